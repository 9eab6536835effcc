"""Train, fill and tune a FAISS index from a stream of vectors that may be too large for memory.

Three walks through the vectors at most: one for the training sample and the rows to tune on, one to fill; the exact
answers to tune against are found while filling. Samples depend on the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from ..errors import InputError, StoreError
from .exact import exact_stream
from .tune import DEPTH, SAMPLE, Breadth, tune

Chunks = Iterator[tuple[np.ndarray, np.ndarray]]

# k-means wants at least 39 vectors for each list (FAISS warns below); 64 are used where there are as many.
LEAST_PER_LIST = 39
TRAIN_PER_LIST = 64
LEAST_TRAINING = 256
TRAIN_CODES = 16_384


@dataclass(frozen=True)
class Built:
    """What a build measured."""

    breadth: Breadth
    recall: float
    largest_norm: float


def fill(
    index: Any,
    seqs: np.ndarray,
    vectors: Callable[[], Chunks],
    *,
    metric: str,
    recall_target: float,
    seed: int,
) -> Built:
    """Train `index` where it needs that, add the vectors of `seqs` in order, and tune it.

    Raises
    ------
    InputError
        If a vector is not finite or has another dimension.
    StoreError
        If `vectors` lacks one of `seqs`.
    """
    tuned = not isinstance(index, faiss.IndexFlat)
    own = np.empty(0, dtype=np.int64)
    queries = np.empty((0, index.d), dtype=np.float32)
    if tuned:
        own = _sample(len(seqs), SAMPLE, (seed, 0))
        size = 0 if index.is_trained else max(TRAIN_CODES, TRAIN_PER_LIST * lists(index))
        training, queries = _rows(select(vectors(), seqs, index.d), _sample(len(seqs), size, (seed, 1)), own)
        if size:
            index.train(training)
    longest_seen = 0.0

    def filling() -> Chunks:
        nonlocal longest_seen
        for _, matrix in select(vectors(), seqs, index.d):
            start = index.ntotal
            index.add(matrix)
            longest_seen = max(longest_seen, longest(matrix))
            yield np.arange(start, index.ntotal), matrix

    if not tuned:
        for _ in filling():
            pass
        return Built(Breadth(), 1.0, longest_seen)
    _, near = exact_stream(filling(), queries, DEPTH + 1, metric=metric, dtype=np.float32)
    truth = np.array([row[row != position][:DEPTH] for row, position in zip(near, own, strict=True)])
    breadth, recall = tune(index, queries, own, truth, recall_target)
    return Built(breadth, recall, longest_seen)


def training_needed(index: Any) -> int:
    """Vectors below which this type of index is not worth training, or cannot be."""
    return 0 if index.is_trained else max(LEAST_TRAINING, LEAST_PER_LIST * lists(index))


def lists(index: Any) -> int:
    """Number of inverted lists; 0 where there are none."""
    inverted = faiss.try_extract_index_ivf(index)
    return 0 if inverted is None else int(inverted.nlist)


def longest(matrix: np.ndarray) -> float:
    """Norm of the longest row."""
    return float(np.sqrt(np.einsum("nd,nd->n", matrix, matrix).max(initial=0.0)))


def checked(vectors: np.ndarray, dimension: int, name: str) -> np.ndarray:
    """The vectors as contiguous float32.

    Raises
    ------
    InputError
        If one is not finite, or the shape is not (n, dimension); the message names the row.
    """
    matrix = np.ascontiguousarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != dimension:
        raise InputError(f"{name} array has shape {matrix.shape}; (n, {dimension}) is expected.")
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise InputError(f"{name} row {int(finite.argmin())} holds NaN or infinity.")
    return matrix


def select(chunks: Chunks, seqs: np.ndarray, dimension: int) -> Chunks:
    """Those rows of the chunks whose numbers are in `seqs`; all of `seqs` must turn up, in order."""
    seen = 0
    for numbers, vectors in chunks:
        matrix = checked(vectors, dimension, "vector")
        if not len(numbers):
            continue
        expected = seqs[seen : np.searchsorted(seqs, numbers[-1], side="right")]
        if len(expected) < len(numbers):  # rows that the index is not to hold
            wanted = np.isin(numbers, expected, assume_unique=True)
            numbers, matrix = numbers[wanted], matrix[wanted]
        if not np.array_equal(numbers, expected):
            raise _missing(np.setdiff1d(expected, numbers))
        seen += len(numbers)
        if len(numbers):
            yield numbers, matrix
    if seen != len(seqs):
        raise _missing(seqs[seen:])


def _missing(numbers: np.ndarray) -> StoreError:
    return StoreError(f"document number {numbers[0]} has no vector ({len(numbers)} or more lack one). Add it again.")


def _sample(n: int, size: int, seed: tuple[int, int]) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(n, min(n, size), replace=False))


def _rows(chunks: Chunks, *samples: np.ndarray) -> list[np.ndarray]:
    """For each array of sorted positions in the stream, the vectors there, shape (len(positions), dimension)."""
    parts: list[list[np.ndarray]] = [[] for _ in samples]
    start = 0
    for _, matrix in chunks:
        for positions, part in zip(samples, parts, strict=True):
            low, high = np.searchsorted(positions, [start, start + len(matrix)])
            part.append(matrix[positions[low:high] - start])
        start += len(matrix)
    return [np.concatenate(part) for part in parts]
