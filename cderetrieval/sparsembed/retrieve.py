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
from .model import Splade


class SpladeRetriever:
    """Search with a SPLADE model."""

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
        k_tokens: int | None = 256,
        **kwargs: Any,
    ) -> Self:
        """Add documents, each with at most `k_tokens` terms; equal ids replace, and those without text are left out."""
        del batch_size, kwargs
        rows = list(document_rows(documents, self.key, self.on, skip_empty=True))
        vectors = self.encoder.encode([text for _, text, _ in rows], prompt_name="document", k_tokens=k_tokens)
        self.retriever.add([document for _, _, document in rows], vectors=vectors, show_progress=False)
        return self

    def __call__(
        self, q: str | Sequence[str], k: int = 100, batch_size: int = 3, k_tokens: int | None = 256
    ) -> list[list[dict[str, Any]]]:
        """Hits ``{key: id, "similarity": score}`` of each query, best first; each shares a term with it."""
        del batch_size
        queries = [q] if isinstance(q, str) else list(q)
        vectors = self.encoder.encode(queries, prompt_name="query", k_tokens=k_tokens)
        return [
            [{self.key: hit["id"], "similarity": hit["similarity"]} for hit in hits]
            for hits in self.retriever(vectors, k=k)
        ]


class SparsEmbedRetriever(SpladeRetriever):
    """Search with a SparsEmbed model: candidates by their terms, scores by the terms' embeddings."""

    def add(
        self,
        documents: Sequence[Mapping[str, Any]],
        batch_size: int = 32,
        k_tokens: int | None = 96,
        **kwargs: Any,
    ) -> Self:
        """Add documents, as :meth:`SpladeRetriever.add`."""
        return super().add(documents, batch_size, k_tokens, **kwargs)

    def __call__(
        self, q: str | Sequence[str], k: int = 100, batch_size: int = 3, k_tokens: int | None = 96
    ) -> list[list[dict[str, Any]]]:
        """Search, as :meth:`SpladeRetriever.__call__`."""
        return super().__call__(q, k, batch_size, k_tokens)
