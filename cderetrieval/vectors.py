"""The three kinds of vectors, and the checks that they pass before anything stores or searches them.

``dense`` is a float32 matrix, ``sparse`` a scipy `csr_array` whose columns are the terms of a vocabulary, and
``sparse-embed`` the same with an embedding for each term of each text (:class:`TermEmbeddings`). scipy is imported
only where there are sparse vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .errors import InputError, MismatchError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DENSE, SPARSE, SPARSE_EMBED = KINDS = ("dense", "sparse", "sparse-embed")
# Kinds of numpy's types that are real numbers: booleans, integers, floats.
REAL = "biuf"
Vectors: TypeAlias = "np.ndarray | csr_array | TermEmbeddings"


@dataclass(frozen=True, eq=False)
class TermEmbeddings:
    """Sparse vectors whose every term carries an embedding: what a SparseEmbed encoder makes of n texts.

    >>> from scipy.sparse import csr_array
    >>> weights = csr_array(np.array([[0, 2, 1], [3, 0, 0]], dtype=np.float32))
    >>> vectors = TermEmbeddings(weights, np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32))
    >>> len(vectors), vectors.shape, vectors.take([1]).embeddings.tolist()
    (2, (2, 3), [[1.0, 1.0]])
    >>> TermEmbeddings.concatenate([vectors, vectors.take([0])]).shape
    (3, 3)
    """

    # Term weights, scipy csr_array of shape (n, V), float32, columns ascending in each row and no zeros stored.
    weights: csr_array
    # Shape (weights.nnz, D), float32 (a store gives float16 back); row i belongs to ``weights.data[i]``.
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
        """All rows of all parts, which share a vocabulary and a size of embedding."""
        from scipy.sparse import vstack

        sizes = sorted({(part.shape[1], part.embeddings.shape[1]) for part in parts})
        if len(sizes) != 1:
            raise InputError(
                f"term embeddings of {len(sizes)} shapes (vocabulary, size) cannot be joined: {sizes}; make them with "
                "one encoder."
            )
        weights = vstack([part.weights for part in parts], format="csr")
        return cls(weights, np.concatenate([part.embeddings for part in parts]))


@dataclass(frozen=True)
class Layout:
    """What the vectors of an encoder, a store or an index are."""

    kind: str
    dimension: int
    embedding_size: int = 0

    @classmethod
    def of(cls, vectors: Vectors) -> Layout:
        """Layout of these vectors."""
        size = vectors.embeddings.shape[1] if isinstance(vectors, TermEmbeddings) else 0
        return cls(kind_of(vectors), int(vectors.shape[1]), int(size))

    @classmethod
    def of_encoder(cls, encoder: Any) -> Layout:
        """Layout of the vectors that an `Encoder` makes."""
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
    """Whether a value is ready vectors of some kind, and not texts."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "OSUT"  # others are refused later, as vectors
    return isinstance(value, TermEmbeddings) or hasattr(value, "tocsr") or hasattr(value, "detach")


def kind_of(vectors: Vectors) -> str:
    """``"dense"``, ``"sparse"`` or ``"sparse-embed"``."""
    if isinstance(vectors, TermEmbeddings):
        return SPARSE_EMBED
    return SPARSE if hasattr(vectors, "tocsr") else DENSE


def take(vectors: Vectors, rows: Sequence[int] | np.ndarray) -> Vectors:
    """Those rows, by position or by one boolean for each."""
    return vectors.take(rows) if isinstance(vectors, TermEmbeddings) else vectors[rows]


def join(parts: Sequence[Any]) -> Any:
    """All rows of all parts of one layout."""
    from scipy.sparse import vstack

    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return TermEmbeddings.concatenate(parts) if isinstance(parts[0], TermEmbeddings) else vstack(parts, format="csr")


def unit(vectors: np.ndarray) -> np.ndarray:
    """Dense vectors of length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def spans(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Positions of spans that follow each other: `counts` of them from each of `starts` on.

    >>> spans(np.array([7, 2]), np.array([2, 3])).tolist()
    [7, 8, 2, 3, 4]
    """
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def checked(vectors: Any, layout: Layout, what: str, first: int = 0) -> Vectors:
    """Vectors as everything downstream takes them: float32, finite, terms ascending and without stored zeros.

    `what` names one of them in a message, such as ``"query"``; `first` is the number of the first row.
    """
    if layout.kind == DENSE:
        return dense_rows(vectors, layout.dimension, what, first)
    _check_kind(vectors, layout.kind, what)
    if layout.kind == SPARSE:
        return _sparse_rows(vectors, layout, what, first)
    weights = _sparse_rows(vectors.weights, layout, what, first)
    if getattr(vectors.weights, "format", "") != "csr" or not np.array_equal(vectors.weights.indices, weights.indices):
        raise InputError(
            f"the weights of {what} vectors must have ascending terms, each once, and no zeros stored, in a csr_array: "
            "their embeddings are in that order."
        )
    embeddings = as_vectors(vectors.embeddings, what)
    size = embeddings.shape[1]
    if size != layout.embedding_size:
        raise MismatchError(
            f"the terms of {what} vectors have embeddings of {size} dimensions, not {layout.embedding_size}. Make "
            "them with the model that built the index."
        )
    _check_finite(weights, embeddings.sum(axis=1, dtype=np.float64), what, first, embeddings)
    return TermEmbeddings(weights, embeddings)


def as_vectors(vectors: Any, what: str) -> Any:
    """Make an array of numbers of anything that is not already a sparse matrix or `TermEmbeddings`."""
    if isinstance(vectors, TermEmbeddings) or hasattr(vectors, "tocsr"):
        return vectors
    try:
        array = np.asarray(_in_memory(vectors) if hasattr(vectors, "detach") else vectors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{what} vectors, a {type(vectors).__name__}, are not a matrix of numbers ({error}); pass rows of equal "
            "length."
        ) from error
    if np.ma.is_masked(vectors):
        raise InputError(f"{what} vectors are a masked array, and {int(np.sum(vectors.mask))} numbers are masked out.")
    _check_real(array.dtype, what)
    return array


def _in_memory(tensor: Any) -> np.ndarray:
    """A torch tensor as an array; numpy has no bfloat16."""
    found = tensor.detach().cpu()
    array: np.ndarray = (found.float() if found.is_floating_point() else found).resolve_conj().numpy()
    return array


def _check_real(dtype: np.dtype[Any], what: str) -> None:
    if dtype.kind not in REAL:
        names = {"c": "complex numbers", "O": "objects", "U": "text", "S": "bytes", "M": "dates", "m": "durations"}
        raise InputError(f"{what} vectors hold {names.get(dtype.kind, dtype.name)}; pass real numbers.")


def dense_rows(vectors: Any, dimension: int, what: str, first: int = 0) -> np.ndarray:
    """Dense vectors as contiguous float32, shape (n, dimension); otherwise as :func:`checked`."""
    if type(vectors) is np.ndarray and vectors.dtype == np.float32:
        given = vectors
    else:
        _check_kind(vectors, DENSE, what)
        given = as_vectors(vectors, what)
    if given.ndim != 2 or given.shape[1] != dimension:
        raise InputError(f"{what} vectors have shape {given.shape}; (n, {dimension}) is expected.")
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(given, dtype=np.float32)
    # Not of isfinite(matrix): a million rows of 384 would take 370 MB.
    finite = np.isfinite(matrix.min(axis=1, initial=0)) & np.isfinite(matrix.max(axis=1, initial=0))
    if not finite.all():
        row = int(finite.argmin())
        raise InputError(_not_finite(what, first + row, int((~finite).sum()), given[row]))
    if given.dtype.itemsize > matrix.dtype.itemsize:
        empty = np.flatnonzero(~matrix.any(axis=1))
        if len(lost := empty[given[empty].any(axis=1)]):
            raise InputError(f"the vector of {what} {first + lost[0]} has numbers too small to be stored: scale it up.")
    return matrix


def canonical(matrix: Any, what: str = "sparse") -> Any:
    """A sparse matrix of any format as csr_array, float32, terms ascending, each once, no zeros stored."""
    from scipy.sparse import csr_array

    _check_real(matrix.dtype, what)
    try:
        found = matrix if matrix.format == "csr" and matrix.ndim == 2 else csr_array(_inside(matrix))
        indices, starts = _places(found)
        _check_rows(found, indices, starts)
        with np.errstate(over="ignore"):
            data = found.data[: starts[-1]].astype(np.float32, copy=False)
        # Built from its arrays, because the flags that a matrix keeps about its own order may be wrong.
        rows = csr_array((data, indices[: starts[-1]], starts), shape=found.shape)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{what} vectors are a sparse matrix of shape {matrix.shape} that contradicts itself: {error}. A term is "
            "a column, counted from 0."
        ) from error
    if not rows.has_canonical_format or not rows.data.all():
        rows = rows.copy()  # the caller's may share its memory
        rows.sum_duplicates()
        rows.eliminate_zeros()
    return rows


def _inside(matrix: Any) -> Any:
    """Refuse entries outside of a sparse matrix: scipy does not look where it writes when it converts it."""
    if matrix.ndim != 2:
        raise ValueError("it must have rows and columns")
    if hasattr(matrix, "indptr"):
        matrix = type(matrix)((matrix.data, *_places(matrix)), shape=matrix.shape)
        matrix.check_format(full_check=True)
        return matrix
    for places, size in zip(_places(matrix), matrix.shape, strict=False):
        if len(places) != matrix.nnz or (len(places) and not 0 <= places.min() <= places.max() < size):
            raise ValueError(f"not all of its entries lie in {size} rows or columns")
    return matrix


def _check_rows(matrix: Any, indices: np.ndarray, starts: np.ndarray) -> None:
    """Do what scipy's `check_format` does, in a tenth of the time for one query, and name the row."""
    rows, columns = matrix.shape
    if len(starts) != rows + 1 or starts[0] != 0 or (starts[1:] < starts[:-1]).any():
        raise ValueError(f"its rows begin at no {rows + 1} ascending places")
    if len(matrix.data) != len(indices) or starts[-1] > len(indices):
        raise ValueError(f"its rows end at {starts[-1]}, its columns at {len(indices)}, its data at {len(matrix.data)}")
    indices = indices[: starts[-1]]
    if len(indices) and not 0 <= indices.min() <= indices.max() < columns:
        entry = int(np.flatnonzero((indices < 0) | (indices >= columns))[0])
        row = int(np.searchsorted(starts, entry, side="right")) - 1
        raise ValueError(f"row {row} has an entry in column {indices[entry]}")


def _places(matrix: Any) -> list[np.ndarray]:
    """Indices of the entries, as signed numbers."""
    names = ["indices", "indptr"] if hasattr(matrix, "indptr") else ["coords"]
    found = [getattr(matrix, name, ()) for name in names]
    places = [np.asarray(some) for some in (found if len(found) == 2 else found[0])]
    if any(some.dtype.kind not in "iu" for some in places):
        raise ValueError("its indices are not whole numbers")
    return [some.astype(np.int64) if some.dtype.kind == "u" else some for some in places]


def weights_of(vectors: Any) -> Any:
    """The term weights of sparse vectors, with embeddings or without, a csr_array."""
    return vectors.weights if isinstance(vectors, TermEmbeddings) else vectors


def _check_kind(vectors: Any, kind: str, what: str) -> None:
    found = kind_of(vectors)
    if found != kind:
        raise InputError(f"{what} vectors are {_described(found)}; this index holds {_described(kind)}.")


def _sparse_rows(vectors: Any, layout: Layout, what: str, first: int) -> Any:
    rows = canonical(vectors, what)
    if rows.ndim != 2 or rows.shape[1] != layout.dimension:
        raise MismatchError(
            f"{what} vectors have shape {rows.shape}, and this index a vocabulary of {layout.dimension} terms. Make "
            "them with the model that built the index."
        )
    _check_finite(rows, rows.data, what, first, getattr(vectors, "data", rows.data))
    return rows


def _check_finite(rows: Any, values: np.ndarray, what: str, first: int, given: Any) -> None:
    """Refuse sparse rows with a value, one for each weight, that is not finite; `given` is what they were made from."""
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.unique(np.searchsorted(rows.indptr, np.flatnonzero(~finite), side="right") - 1)
        raise InputError(_not_finite(what, first + int(bad[0]), len(bad), given))


def _not_finite(what: str, row: int, count: int, given: Any) -> str:
    numbers = np.asarray(given)
    beyond = numbers.dtype.kind in REAL and bool(np.isfinite(numbers).all())
    reason = "has numbers too large to be stored" if beyond else "is not finite"
    return f"the vector of {what} {row} {reason} ({count} such vectors)."


def _described(kind: str) -> str:
    forms = {DENSE: "a dense array", SPARSE: "a sparse matrix (scipy csr_array)", SPARSE_EMBED: "TermEmbeddings"}
    return f"{kind!r}, {forms[kind]}"
