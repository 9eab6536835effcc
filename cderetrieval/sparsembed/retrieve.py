"""`SpladeRetriever` and `SparsEmbedRetriever`: :class:`~cderetrieval.Retriever` with the arguments of sparsembed.

The attribute `retriever` is the Retriever underneath: it removes, saves and loads. `batch_size` is accepted and not
used, since batches are cut by their number of tokens; `k_tokens=None` is the number that the model was made with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ..documents import document_rows
from ..retrieval.retriever import Retriever
from .model import Splade, Usual


class SpladeRetriever:
    """Search with a SPLADE model."""

    # Terms of a text, where nothing is said; None is the number that the model was made with.
    _usual = 256

    def __init__(self, key: str, on: str | Sequence[str], model: Splade, tokenizer_parallelism: str = "false") -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = tokenizer_parallelism
        self.key = key
        self.on = [on] if isinstance(on, str) else list(on)
        self.encoder = model.encoder()
        self.retriever = Retriever(self.encoder, key=key, on=self.on, passages=None)

    def __len__(self) -> int:
        return len(self.retriever)

    def add(
        self,
        documents: Sequence[Mapping[str, Any]],
        batch_size: int = 32,
        k_tokens: int | Usual | None = "usual",
        **kwargs: Any,
    ) -> Self:
        """Add documents, each with at most `k_tokens` terms; equal ids replace, and those without text are left out."""
        del batch_size, kwargs
        rows = list(document_rows(documents, self.key, self.on, skip_empty=True))
        vectors = self.encoder.encode(
            [text for _, text, _ in rows], prompt_name="document", k_tokens=self._kept(k_tokens)
        )
        self.retriever.add([document for _, _, document in rows], vectors=vectors, show_progress=False)
        return self

    def __call__(
        self, q: str | Sequence[str], k: int = 100, batch_size: int = 3, k_tokens: int | Usual | None = "usual"
    ) -> list[list[dict[str, Any]]]:
        """Hits ``{key: id, "similarity": score}`` of each query, best first; each shares a term with it."""
        del batch_size
        queries = [q] if isinstance(q, str) else list(q)
        vectors = self.encoder.encode(queries, prompt_name="query", k_tokens=self._kept(k_tokens))
        return [
            [{self.key: hit["id"], "similarity": hit["similarity"]} for hit in hits]
            for hits in self.retriever(vectors, k=k)
        ]

    def _kept(self, k_tokens: int | Usual | None) -> int | None:
        return self._usual if k_tokens == "usual" else k_tokens


class SparsEmbedRetriever(SpladeRetriever):
    """Search with a SparsEmbed model: candidates by their terms, scores by the terms' embeddings."""

    _usual = 96
