"""Train, fill and tune a FAISS index from a stream of vectors that may be too large for memory.

Three walks through the vectors at most: one for the training sample and the rows to tune on, one to fill; the exact
answers to tune against are found while filling. Samples depend on the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np

from ..vectors import dense_rows
from .exact import exact_stream
from .stream import Chunks, select
from .tune import DEPTH, SAMPLE, Breadth, tune

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
    check = partial(dense_rows, dimension=index.d, what="document")
    own = np.empty(0, dtype=np.int64)
    queries = np.empty((0, index.d), dtype=np.float32)
    if tuned:
        own = _sample(len(seqs), SAMPLE, (seed, 0))
        size = 0 if index.is_trained else max(TRAIN_CODES, TRAIN_PER_LIST * lists(index))
        training, queries = _rows(select(vectors(), seqs, check), _sample(len(seqs), size, (seed, 1)), own)
        if size:
            index.train(training)
    longest_seen = 0.0

    def filling() -> Chunks:
        nonlocal longest_seen
        for _, matrix in select(vectors(), seqs, check):
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
