"""`SpladeRetriever` and `SparsEmbedRetriever`: :class:`~cderetrieval.Retriever` with the arguments of sparsembed.

`retriever` is the Retriever underneath: it removes, saves and loads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ..documents import document_rows
from ..retrieval.retriever import Retriever
from .model import SparsEmbed, Splade


class SpladeRetriever:
    """Search with a SPLADE model.

    Parameters
    ----------
    key
        Field of a document's id.
    on
        Fields of its text, joined by spaces.
    model
        The model.
    tokenizer_parallelism
        Value of the environment variable ``TOKENIZERS_PARALLELISM``.
    """

    def __init__(self, key: str, on: str | Sequence[str], model: Splade, tokenizer_parallelism: str = "false") -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = tokenizer_parallelism
        self.key = key
        self.on = [on] if isinstance(on, str) else list(on)
        self.encoder = model.encoder()
        self.retriever = Retriever(self.encoder, key=key, on=self.on)

    def __len__(self) -> int:
        return len(self.retriever)

    def add(
        self,
        documents: Sequence[Mapping[str, Any]],
        batch_size: int = 32,
        k_tokens: int | None = 256,
        **kwargs: Any,
    ) -> Self:
        """Add documents; one whose id is there already replaces it.

        Parameters
        ----------
        documents
            Dictionaries with the key and the text fields; those without any text are left out.
        batch_size
            Unused: batches are cut by their number of tokens.
        k_tokens
            Most terms of a document; None: as many as the model was made with.
        kwargs
            Unused, as in the original.
        """
        del batch_size, kwargs
        rows = list(document_rows(documents, self.key, self.on, skip_empty=True))
        vectors = self.encoder.encode([text for _, text, _ in rows], prompt_name="document", k_tokens=k_tokens)
        self.retriever.add([document for _, _, document in rows], vectors=vectors, show_progress=False)
        return self

    def __call__(
        self, q: str | Sequence[str], k: int = 100, batch_size: int = 3, k_tokens: int | None = 256
    ) -> list[list[dict[str, Any]]]:
        """Search.

        Parameters
        ----------
        q
            One query or a list of them.
        k
            Most documents for each.
        batch_size
            Unused: batches are cut by their number of tokens.
        k_tokens
            Most terms of a query; None: as many as the model was made with.

        Returns
        -------
        list
            For each query a list of ``{key: id, "similarity": score}``, best first; documents that share no term with
            the query are not in it.
        """
        del batch_size
        queries = [q] if isinstance(q, str) else list(q)
        vectors = self.encoder.encode(queries, prompt_name="query", k_tokens=k_tokens)
        return [
            [{self.key: hit["id"], "similarity": hit["similarity"]} for hit in hits]
            for hits in self.retriever(vectors, k=k)
        ]


class SparsEmbedRetriever(SpladeRetriever):
    """Search with a SparsEmbed model: candidates by their terms, scores by the terms' embeddings.

    Parameters
    ----------
    key, on, tokenizer_parallelism
        As for :class:`SpladeRetriever`.
    model
        The model.
    """

    def __init__(
        self, key: str, on: str | Sequence[str], model: SparsEmbed, tokenizer_parallelism: str = "false"
    ) -> None:
        super().__init__(key, on, model, tokenizer_parallelism)

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
