"""Records and protocols that the parts of the package share.

`Encoder` is what everything downstream of a model sees: text to vectors. `Hits` is what a retriever answers with: a
list of lists of dictionaries, best first, that can also become a pandas frame or a TREC run.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from .errors import InputError
from .files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

DocumentId = Hashable
Document = Mapping[str, Any]


@runtime_checkable
class Encoder(Protocol):
    """Text to vectors; the one contract between models and everything else."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def kind(self) -> str:
        """``"dense"``, ``"sparse"`` or ``"sparse-embed"``."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that determines a vector: weights, tokenizer, prompts, length limit and context."""

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of queries, shape (n, dimension), float32."""

    def encode_document(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of documents, shape (n, dimension), float32."""


@runtime_checkable
class ContextualModel(Protocol):
    """A model that becomes an :class:`Encoder` once it is given a context."""

    @property
    def context_size(self) -> int:
        """Number of context documents the model was made for (J)."""

    @property
    def exact_context_size(self) -> bool:
        """Whether the weights need exactly that many, so that a smaller corpus is repeated."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights, tokenizer and prompts, without a context."""

    def embed_context(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """First stage: one embedding for each sampled document, shape (J, H), float32."""

    def in_context(self, embeddings: np.ndarray | None, digest: str = "", *, dtype: str = "auto") -> Encoder:
        """Second stage under these context embeddings; `None` is the null context."""


class Hits(list[list[dict[str, Any]]]):
    """Answers to a list of queries: one list of ``{"id", "similarity"}`` for each, best first.

    Examples
    --------
    >>> hits = Hits([[{"id": "d7", "similarity": 0.9}]], query_ids=["q1"])
    >>> hits.to_frame()
      query_id  rank  id  similarity
    0       q1     1  d7         0.9
    >>> hits.to_run()
    {'q1': {'d7': 0.9}}
    """

    def __init__(self, hits: Sequence[list[dict[str, Any]]], query_ids: Sequence[Hashable] | None = None) -> None:
        super().__init__(hits)
        self.query_ids = list(range(len(self))) if query_ids is None else list(query_ids)

    def to_frame(self) -> pd.DataFrame:
        """One row for each hit: query_id, rank (from 1), id, similarity, and the document where it was asked for."""
        import pandas as pd

        rows = [
            {"query_id": query_id, "rank": rank, **hit}
            for query_id, ranking in zip(self.query_ids, self, strict=True)
            for rank, hit in enumerate(ranking, start=1)
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["query_id", "rank", "id", "similarity"])

    def to_run(self) -> dict[str, dict[str, float]]:
        """The run as pytrec_eval, beir and ir_measures take it: query id to document id to score."""
        return {
            str(query_id): {str(hit["id"]): float(hit["similarity"]) for hit in ranking}
            for query_id, ranking in zip(self.query_ids, self, strict=True)
        }

    def to_trec(self, path: str | Path, tag: str = "cderetrieval") -> None:
        """Write a TREC run file: ``query_id Q0 document_id rank score tag``, one hit a line.

        Raises
        ------
        InputError
            If an id holds white space, which separates the fields of that format.
        """
        names = {str(name) for name in self.query_ids} | {str(hit["id"]) for ranking in self for hit in ranking}
        if broken := next((name for name in sorted(names) if name.split() != [name]), None):
            raise InputError(
                f"id {broken!r} is empty or holds white space, which a TREC run cannot hold; use to_frame()."
            )
        lines = [
            f"{query_id} Q0 {hit['id']} {rank} {hit['similarity']:.6f} {tag}\n"
            for query_id, ranking in zip(self.query_ids, self, strict=True)
            for rank, hit in enumerate(ranking, start=1)
        ]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
