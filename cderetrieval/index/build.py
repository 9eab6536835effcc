"""Train, fill and tune a FAISS index from a stream of vectors that may be too large for memory.

Two walks through the vectors: one for the training sample and the rows to tune on, one to fill; the exact answers to
tune against are found while filling. Samples depend on the seed alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import faiss
import numpy as np
from faiss.contrib.clustering import two_level_clustering

from ..vectors import dense_rows
from .exact import exact_stream
from .kinds import centres, make, widths
from .scores import lengths
from .stream import Chunks, factor_for, scaled, select
from .tune import DEPTH, SAMPLE, Breadth, tune

# k-means wants at least 39 vectors for each list (FAISS warns below); 64 are used where there are as many.
LEAST_PER_LIST = 39
TRAIN_PER_LIST = 64
LEAST_TRAINING = 256
TRAIN_CODES = 16_384
# One k-means takes 78 s of a core for 2,048 lists, sixteen times that for 8,192; in two levels, first into the square
# root of their number, 15 s for 2,048 and 25 s for 8,192. The lists are a little worse: at 2,048, five had to be looked
# at for the recall that three gave.
TWO_LEVELS = 4_096
ITERATIONS = 10
# Recall@10 that an approximate index is tuned for.
RECALL_TARGET = 0.95
# Lengths of vectors whose squares, and those of their parts, float32 holds.
SHORT, LONG = 1e-14, 1e17
# Rows whose products with all centres are held at once: 32 MB for 8,192 lists. Finding the list of a vector is most of
# what filling an index costs, and numpy multiplies four times as fast as FAISS's wheels (139 against 32 GFLOPS of one
# core: 48 us a vector for 8,192 lists, not 205), with the same answer.
ROWS = 1_024

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Build:
    """How an index was built, as its manifest keeps it."""

    factory: str = "Flat"
    # Vectors that were there.
    built: int = 0
    breadth: Breadth = field(default_factory=Breadth)
    # Recall@10 that was measured; 1 for a flat index, which is exact.
    recall: float = 1.0
    # Length of the longest vector, and what vectors were multiplied with before.
    largest_norm: float = 0.0
    scale: float = 1.0


def fill(
    dimension: int, factory: str, seqs: np.ndarray, vectors: Callable[[], Chunks], *, seed: int
) -> tuple[Any, Build]:
    """A FAISS index of the vectors of `seqs` in order, trained and tuned where its kind needs that."""
    index = make(dimension, factory)
    flat = isinstance(index, faiss.IndexFlat)
    scale = 1.0 if flat else factor_for(vectors())
    largest = 0.0

    def selected() -> Chunks:
        for numbers, matrix in select(vectors(), seqs, partial(dense_rows, dimension=dimension, what="document")):
            yield numbers, matrix if scale == 1 else _finite(scaled(matrix, scale))

    def adding() -> Chunks:
        nonlocal largest
        for _, matrix in selected():
            start = index.ntotal
            add(index, matrix)
            largest = max(largest, longest(matrix))
            yield np.arange(start, start + len(matrix)), matrix

    if flat:
        for _ in adding():
            pass
        return index, Build(factory, len(seqs), largest_norm=largest)
    own, queries = _train(index, len(seqs), selected, seed)
    _, near = exact_stream(adding(), queries, DEPTH + 1, dtype=np.float32)
    _check_length(largest)
    truth = np.array([row[row != position][:DEPTH] for row, position in zip(near, own, strict=True)])
    breadth, recall = tune(index, queries, own, truth, RECALL_TARGET)
    return index, Build(factory, len(seqs), breadth, recall, largest, scale)


def _train(index: Any, count: int, vectors: Callable[[], Chunks], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train `index` where it needs that; positions of the rows to tune on, shape (q,), and the rows.

    It is trained on others, where there are enough.
    """
    own = _sample(count, SAMPLE, (seed, 0))
    size = 0 if index.is_trained else max(TRAIN_CODES, TRAIN_PER_LIST * lists(index))
    others = np.delete(np.arange(count), own)
    if len(others) < training_needed(index):
        others = np.arange(count)
    training, queries = _rows(vectors(), others[_sample(len(others), size, (seed, 1))], own)
    _check_length(longest(queries))
    if size:
        _place_lists(index, training, seed)
        index.train(training)
    return own, queries


def _finite(matrix: np.ndarray) -> np.ndarray:
    if not np.isfinite(matrix).all():
        raise RuntimeError("their lengths differ too much")
    return matrix


def _check_length(largest: float) -> None:
    """Refuse vectors of lengths whose products leave float32, in which FAISS builds lists and graphs."""
    if not SHORT < largest < LONG:
        raise RuntimeError(f"their lengths go up to {largest:g}")


def _place_lists(index: Any, training: np.ndarray, seed: int) -> None:
    """Give an index with very many lists their centres by clustering twice; its training then finds them there."""
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is None or inverted.nlist < TWO_LEVELS or isinstance(index, faiss.IndexPreTransform):
        return
    settings = {"spherical": True, "seed": seed + 1}
    coarse = math.isqrt(inverted.nlist)
    try:
        centres, _ = two_level_clustering(training, coarse, inverted.nlist, clustering_niter=ITERATIONS, **settings)
    except (RuntimeError, AssertionError) as error:  # a cluster of the first level too small for its share of the lists
        logger.warning("The lists are placed by one k-means, which takes longer: %s", error)
        return
    inverted.quantizer.add(centres)


def training_needed(index: Any) -> int:
    """Vectors below which this type of index is not worth it, or cannot be trained."""
    if isinstance(index, faiss.IndexFlat):
        return 0
    return max(LEAST_TRAINING, LEAST_PER_LIST * lists(index), centres(index), *(after for *_, after in widths(index)))


def lists(index: Any) -> int:
    """Number of inverted lists; 0 where there are none."""
    inverted = faiss.try_extract_index_ivf(index)
    return 0 if inverted is None else int(inverted.nlist)


def longest(matrix: np.ndarray) -> float:
    """Norm of the longest row."""
    return float(lengths(matrix).max(initial=0.0))


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


def add(index: Any, matrix: np.ndarray) -> None:
    """Append vectors, contiguous float32, to any FAISS index; to lists faster than `index.add`."""
    outer = faiss.downcast_index(index)
    inner = faiss.downcast_index(outer.base_index) if isinstance(outer, faiss.IndexRefine) else outer
    centres = _centres(inner)
    if centres is None:
        index.add(matrix)
        return
    lists = nearest(centres, matrix)
    inner.add_core(len(matrix), faiss.swig_ptr(matrix), None, faiss.swig_ptr(lists))
    if inner is not outer:
        outer.refine_index.add(matrix)
        outer.ntotal = inner.ntotal


def nearest(centres: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Number of the centre with the largest inner product with each vector, shape (n,), int64.

    >>> nearest(np.eye(3, dtype=np.float32), np.array([[0, 1, 0], [0.1, 0, 3]], dtype=np.float32))
    array([1, 2])
    """
    found = np.empty(len(matrix), dtype=np.int64)
    for start in range(0, len(matrix), ROWS):
        found[start : start + ROWS] = (matrix[start : start + ROWS] @ centres.T).argmax(axis=1)
    return found


def _centres(index: Any) -> np.ndarray | None:
    """Centres of the lists, a view; None where there are no lists, or they are not found by comparing with each."""
    if not isinstance(index, faiss.IndexIVF):
        return None
    quantizer = faiss.downcast_index(index.quantizer)
    if not isinstance(quantizer, faiss.IndexFlat) or quantizer.metric_type != faiss.METRIC_INNER_PRODUCT:
        return None
    centres: np.ndarray = faiss.rev_swig_ptr(quantizer.get_xb(), quantizer.ntotal * index.d)
    return centres.reshape(quantizer.ntotal, index.d)
