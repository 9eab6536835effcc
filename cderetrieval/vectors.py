"""The three kinds of vectors: what they are, and that they are sound before anything stores or searches them.

``dense`` is a float32 matrix, ``sparse`` a scipy `csr_array` whose columns are the terms of a vocabulary, and
``sparse-embed`` the same with an embedding for each term of each text (:class:`~cderetrieval.types.TermEmbeddings`).
scipy is imported by those who hold sparse vectors, so nothing here costs a dense index anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import InputError, MismatchError
from .types import Encoder, TermEmbeddings, Vectors

DENSE, SPARSE, SPARSE_EMBED = KINDS = ("dense", "sparse", "sparse-embed")
# Rows whose numbers are checked at once.
CHECKED = 4_096


@dataclass(frozen=True)
class Layout:
    """What the vectors of an encoder, a store or an index are.

    Attributes
    ----------
    kind
        ``"dense"``, ``"sparse"`` or ``"sparse-embed"``.
    dimension
        Length of a dense vector, size of the vocabulary of a sparse one.
    embedding_size
        Length of a term's embedding; 0 where terms have none.
    """

    kind: str
    dimension: int
    embedding_size: int = 0

    @classmethod
    def of(cls, vectors: Vectors) -> Layout:
        """Layout of these vectors."""
        size = vectors.embeddings.shape[1] if isinstance(vectors, TermEmbeddings) else 0
        return cls(kind_of(vectors), int(vectors.shape[1]), int(size))

    @classmethod
    def of_encoder(cls, encoder: Encoder) -> Layout:
        """Layout of the vectors that an encoder makes."""
        return cls(encoder.kind, encoder.dimension, getattr(encoder, "embedding_size", 0))

    def __str__(self) -> str:
        if self.kind == DENSE:
            return f"dense vectors of {self.dimension} dimensions"
        embedded = f", with embeddings of {self.embedding_size} dimensions" if self.embedding_size else ""
        return f"{self.kind} vectors over a vocabulary of {self.dimension} terms{embedded}"

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


def is_vectors(value: Any) -> bool:
    """Whether a value is ready vectors of some kind, and not texts.

    >>> is_vectors(np.eye(2)), is_vectors(["owls"])
    (True, False)
    """
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu"
    return isinstance(value, TermEmbeddings) or hasattr(value, "tocsr")


def kind_of(vectors: Vectors) -> str:
    """``"dense"``, ``"sparse"`` or ``"sparse-embed"``."""
    if isinstance(vectors, TermEmbeddings):
        return SPARSE_EMBED
    return SPARSE if hasattr(vectors, "tocsr") else DENSE


def take(vectors: Vectors, rows: Sequence[int] | np.ndarray) -> Vectors:
    """Those rows, by position or by one boolean for each."""
    return vectors.take(rows) if isinstance(vectors, TermEmbeddings) else vectors[rows]


def join(parts: Sequence[Any]) -> Any:
    """All rows of all parts of one sparse layout."""
    from scipy.sparse import vstack

    if len(parts) == 1:
        return parts[0]
    return TermEmbeddings.concatenate(parts) if isinstance(parts[0], TermEmbeddings) else vstack(parts, format="csr")


def spans(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Positions of spans that follow each other: `counts` of them from each of `starts` on.

    >>> spans(np.array([7, 2]), np.array([2, 3])).tolist()
    [7, 8, 2, 3, 4]
    """
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def checked(vectors: Any, layout: Layout, what: str, first: int = 0) -> Vectors:
    """Vectors of one layout in the form that everything downstream takes.

    Parameters
    ----------
    vectors
        Any array or sparse matrix of numbers, or term embeddings.
    layout
        The kind that they must be, and the dimension or vocabulary.
    what
        What to call one of them in a message, ``"query"`` for example.
    first
        Number of the first row, for the message.

    Returns
    -------
    numpy.ndarray, scipy.sparse.csr_array or TermEmbeddings
        Shape (n, dimension), float32; terms ascend in each row, and no zero is stored.

    Raises
    ------
    InputError
        If they are of another kind or shape, or a number is not finite; the message names the row.
    MismatchError
        If sparse vectors have another vocabulary.
    """
    if layout.kind == DENSE:
        return dense_rows(vectors, layout.dimension, what, first)
    _check_kind(vectors, layout.kind, what)
    if layout.kind == SPARSE:
        return _sparse_rows(vectors, layout, what, first)
    if not (vectors.weights.has_canonical_format and vectors.weights.data.all()):
        raise InputError(
            f"the weights of {what} vectors must have ascending terms, each once, and no zeros stored: their "
            "embeddings stand in that order."
        )
    weights = _sparse_rows(vectors.weights, layout, what, first)
    size = vectors.embeddings.shape[1]
    if size != layout.embedding_size:
        raise MismatchError(
            f"the terms of {what} vectors have embeddings of {size} dimensions, not {layout.embedding_size}. Make "
            "them with the model that built the index."
        )
    _check_finite(weights, vectors.embeddings.sum(axis=1, dtype=np.float64), what, first)
    return TermEmbeddings(weights, vectors.embeddings)


def dense_rows(vectors: Any, dimension: int, what: str, first: int = 0) -> np.ndarray:
    """Dense vectors as contiguous float32, shape (n, dimension); otherwise as :func:`checked`."""
    _check_kind(vectors, DENSE, what)
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != dimension:
        raise InputError(f"{what} vectors have shape {matrix.shape}; (n, {dimension}) is expected.")
    finite = _finite_rows(matrix)
    if not finite.all():
        raise InputError(_not_finite(what, first + int(finite.argmin()), int((~finite).sum())))
    return matrix


def _finite_rows(matrix: np.ndarray) -> np.ndarray:
    """Which rows hold finite numbers only; in blocks, or a million rows of 384 would take 370 MB to say so."""
    finite = np.empty(len(matrix), dtype=bool)
    for start in range(0, len(matrix), CHECKED):
        block = slice(start, start + CHECKED)
        finite[block] = np.isfinite(matrix[block]).all(axis=1)
    return finite


def canonical(matrix: Any) -> Any:
    """A sparse matrix of any format as csr_array, float32, terms ascending, each once, no zeros stored."""
    from scipy.sparse import csr_array

    rows = csr_array(matrix, dtype=np.float32)
    if not rows.has_canonical_format or not rows.data.all():
        rows = rows.copy()  # the caller's may share its memory
        rows.sum_duplicates()
        rows.eliminate_zeros()
    return rows


def weights_of(vectors: Any) -> Any:
    """The term weights of sparse vectors, with embeddings or without, a csr_array."""
    return vectors.weights if isinstance(vectors, TermEmbeddings) else vectors


def _check_kind(vectors: Any, kind: str, what: str) -> None:
    found = kind_of(vectors)
    if found != kind:
        raise InputError(f"{what} vectors are {_described(found)}; this index holds {_described(kind)}.")


def _sparse_rows(vectors: Any, layout: Layout, what: str, first: int) -> Any:
    rows = canonical(vectors)
    if rows.ndim != 2 or rows.shape[1] != layout.dimension:
        raise MismatchError(
            f"{what} vectors have shape {rows.shape}, and this index a vocabulary of {layout.dimension} terms. Make "
            "them with the model that built the index."
        )
    _check_finite(rows, rows.data, what, first)
    return rows


def _check_finite(rows: Any, values: np.ndarray, what: str, first: int) -> None:
    """Refuse sparse rows with a value, one for each stored weight, that is not finite."""
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.unique(np.searchsorted(rows.indptr, np.flatnonzero(~finite), side="right") - 1)
        raise InputError(_not_finite(what, first + int(bad[0]), len(bad)))


def _not_finite(what: str, row: int, count: int) -> str:
    return f"the vector of {what} {row} is not finite ({count} such vectors)."


def _described(kind: str) -> str:
    forms = {DENSE: "a dense array", SPARSE: "a sparse matrix (scipy csr_array)", SPARSE_EMBED: "TermEmbeddings"}
    return f"{kind!r}, {forms[kind]}"
