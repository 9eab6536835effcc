"""Records and protocols that the parts of the package share.

`Encoder` is what everything downstream of a model sees: text to vectors. Vectors are a matrix (dense), a scipy
`csr_array` over a vocabulary (sparse), or `TermEmbeddings`, which adds an embedding to each of its terms. `Hits` is
what a retriever answers with: a list of lists of dictionaries, best first, that can also become a pandas frame or a
TREC run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np

from .errors import InputError
from .files import atomic_write
from .values import id_name, shown

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

DocumentId = Hashable
Document = Mapping[str, Any]
# A float32 matrix (dense), or a row of weights over a vocabulary for each text (sparse), or those with embeddings.
Vectors: TypeAlias = "np.ndarray | csr_array | TermEmbeddings"


@runtime_checkable
class Encoder(Protocol):
    """Text to vectors; the one contract between models and everything else."""

    @property
    def dimension(self) -> int:
        """Length of a vector; of a sparse one the size of its vocabulary."""

    @property
    def kind(self) -> str:
        """``"dense"``, ``"sparse"`` or ``"sparse-embed"``."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that determines a vector: weights, tokenizer, prompts, length limit and context."""

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> Any:
        """Vectors of queries (`Vectors` of this encoder's kind), shape (n, dimension), float32."""

    def encode_document(self, texts: Sequence[str], *, show_progress: bool = False) -> Any:
        """Vectors of documents (`Vectors` of this encoder's kind), shape (n, dimension), float32."""


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


@dataclass(frozen=True, eq=False)
class TermEmbeddings:
    """Sparse vectors whose every term carries an embedding: what a SparseEmbed encoder makes of n texts.

    Attributes
    ----------
    weights
        Term weights, scipy csr_array of shape (n, V), float32, columns ascending in each row and no zeros stored.
    embeddings
        Shape (weights.nnz, D), float32 (a store gives float16 back); row i belongs to ``weights.data[i]``.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> weights = csr_array(np.array([[0, 2, 1], [3, 0, 0]], dtype=np.float32))
    >>> vectors = TermEmbeddings(weights, np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32))
    >>> len(vectors), vectors.shape, vectors.take([1]).embeddings.tolist()
    (2, (2, 3), [[1.0, 1.0]])
    >>> TermEmbeddings.concatenate([vectors, vectors.take([0])]).shape
    (3, 3)
    """

    weights: csr_array
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != self.weights.nnz:
            raise InputError(
                f"embeddings have shape {self.embeddings.shape}; ({self.weights.nnz}, D) is expected, one row for each "
                "stored weight."
            )

    def __len__(self) -> int:
        return int(self.weights.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Texts and size of the vocabulary, as of ``weights``."""
        rows, columns = self.weights.shape
        return int(rows), int(columns)

    def take(self, rows: Sequence[int] | np.ndarray) -> TermEmbeddings:
        """Those rows, in that order; positions, or one boolean for each row."""
        from scipy.sparse import csr_array

        from .vectors import spans

        wanted = np.arange(len(self))[np.asarray(rows)] if len(rows) else np.empty(0, dtype=np.int64)
        starts = self.weights.indptr[wanted].astype(np.int64)
        counts = self.weights.indptr[wanted + 1] - starts
        indptr = np.concatenate([[0], np.cumsum(counts)])
        entries = spans(starts, counts)
        weights = csr_array(
            (self.weights.data[entries], self.weights.indices[entries], indptr.astype(self.weights.indptr.dtype)),
            shape=(len(wanted), self.shape[1]),
        )
        return TermEmbeddings(weights, self.embeddings[entries])

    @classmethod
    def concatenate(cls, parts: Sequence[TermEmbeddings]) -> TermEmbeddings:
        """All rows of all parts, which share a vocabulary and a size of embedding.

        Raises
        ------
        InputError
            If there is no part, or they differ in either.
        """
        from scipy.sparse import vstack

        sizes = sorted({(part.shape[1], part.embeddings.shape[1]) for part in parts})
        if len(sizes) != 1:
            raise InputError(
                f"term embeddings of {len(sizes)} shapes (vocabulary, size) cannot be joined: {sizes}; make them with "
                "one encoder."
            )
        weights = vstack([part.weights for part in parts], format="csr")
        return cls(weights, np.concatenate([part.embeddings for part in parts]))


@runtime_checkable
class TermCounting(Protocol):
    """A contextual model that also reads which terms are rare among the context documents."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights, tokenizer and prompts, without a context."""

    def count_terms(self, texts: Sequence[str]) -> np.ndarray | None:
        """In how many of the texts each token occurs, shape (vocabulary,), float32; None: not needed."""

    def in_context(
        self,
        embeddings: np.ndarray | None,
        digest: str = "",
        *,
        terms: np.ndarray | None = None,
        dtype: str = "auto",
    ) -> Encoder:
        """Second stage under these context embeddings and terms; `None` is the null context."""


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
        """The run as pytrec_eval, beir and ir_measures take it: query id to document id to score.

        Raises
        ------
        InputError
            If two ids are one as text, 1 and "1" for example.
        """
        run = {}
        for query_id, ranking in zip(text_ids(self.query_ids, "queries"), self, strict=True):
            names = text_ids([hit["id"] for hit in ranking], f"documents of query {query_id!r}")
            run[query_id] = {name: float(hit["similarity"]) for name, hit in zip(names, ranking, strict=True)}
        text_ids({hit["id"]: None for ranking in self for hit in ranking}, "documents")
        return run

    def to_trec(self, path: str | Path, tag: str = "cderetrieval") -> None:
        """Write a TREC run file: ``query_id Q0 document_id rank score tag``, one hit a line.

        Raises
        ------
        InputError
            If an id or the tag holds white space, which separates the fields of that format.
        """
        run = self.to_run()
        names = {tag, *run, *(name for ranking in run.values() for name in ranking)}
        broken = [name for name in sorted(names) if name.split() != [name] or not _is_text(name)]
        if broken:
            raise InputError(
                f"id {broken[0]!r} is empty or holds white space, which a TREC run cannot hold; use to_frame()."
            )
        lines = [
            f"{query_id} Q0 {name} {rank} {_score(similarity)} {tag}\n"
            for query_id, ranking in run.items()
            for rank, (name, similarity) in enumerate(ranking.items(), start=1)
        ]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def text_ids(ids: Iterable[Hashable], what: str) -> list[str]:
    """Ids as runs and judgements have them, as text.

    Raises
    ------
    InputError
        If two of them are one as text: one's score would be lost.
    """
    names: dict[str, Hashable] = {}
    for identity in ids:
        name = id_name(identity)
        if name in names:
            raise InputError(f"{what}: ids {shown(names[name])} and {shown(identity)} are one as text, {name!r}.")
        names[name] = identity
    return list(names)


def _is_text(name: str) -> bool:
    """Whether a name can be written: half of a surrogate pair cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _score(similarity: float) -> str:
    """Six decimals, and all digits where they would lose some."""
    text = f"{similarity:.6f}"
    return text if float(text) == similarity else repr(float(similarity))


def is_contextual(model: Any) -> TypeGuard[ContextualModel]:
    """Whether a model needs a context to become an encoder."""
    return hasattr(model, "in_context")
