"""Train, fill and tune a FAISS index from a stream of vectors that may be too large for memory.

Two walks through the vectors: one for the training sample and the rows to tune on, one to fill; the exact answers to
tune against are found while filling. Samples depend on the seed alone. The steps are functions of their own, so that
copies of a trained index can be filled with parts of the vectors, elsewhere, and merged (:func:`merge`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np
from faiss.contrib.clustering import two_level_clustering

from ..vectors import dense_rows
from .assign import add
from .exact import best_first, exact_stream
from .kinds import centres, widths
from .scores import lengths
from .stream import Chunks, select
from .tune import DEPTH, SAMPLE, Breadth, parts, tune

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

logger = logging.getLogger(__name__)


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
    seed: int,
) -> Built:
    """Train `index` where it needs that, add the vectors of `seqs` in order, and tune it."""
    own, queries = train(index, seqs, vectors, seed)
    filled = add_chunks(index, select(vectors(), seqs, _check(index)), queries)
    return tune_filled(index, own, queries, filled)


@dataclass(frozen=True)
class Filled:
    """What was seen of the vectors while they were added."""

    # Of each query the scores and positions of its nearest vectors, both of shape (q, at most DEPTH + 1).
    scores: np.ndarray
    near: np.ndarray
    # Length of the longest vector.
    largest_norm: float

    @classmethod
    def merged(cls, shards: Sequence[Filled]) -> Filled:
        """What was seen of all shards."""
        scores, near = (np.concatenate([getattr(s, name) for s in shards], axis=1) for name in ("scores", "near"))
        return cls(*best_first(scores, near, DEPTH + 1), max(shard.largest_norm for shard in shards))


def train(index: Any, seqs: np.ndarray, vectors: Callable[[], Chunks], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train `index` where it needs that; positions of the rows to tune on, shape (q,), and the rows.

    A flat index is neither trained nor tuned: then there are none.
    """
    if isinstance(index, faiss.IndexFlat):
        return np.empty(0, dtype=np.int64), np.empty((0, index.d), dtype=np.float32)
    own = _sample(len(seqs), SAMPLE, (seed, 0))
    size = 0 if index.is_trained else max(TRAIN_CODES, TRAIN_PER_LIST * lists(index))
    training, queries = _rows(select(vectors(), seqs, _check(index)), _sample(len(seqs), size, (seed, 1)), own)
    _check_lengths(longest(queries))
    if size:
        _place_lists(index, training, seed)
        index.train(training)
    return own, queries


def _check_lengths(longest_seen: float) -> None:
    """Refuse vectors of lengths whose products leave float32, in which FAISS builds lists and graphs."""
    if not SHORT < longest_seen < LONG:
        raise RuntimeError(f"their lengths go up to {longest_seen:g}")


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


def add_chunks(index: Any, chunks: Chunks, queries: np.ndarray, *, first: int = 0) -> Filled:
    """Add vectors to a trained index; the first of them has position `first` in the whole."""
    longest_seen = 0.0

    def adding() -> Chunks:
        nonlocal longest_seen
        for _, matrix in chunks:
            start = first + index.ntotal
            add(index, matrix)
            longest_seen = max(longest_seen, longest(matrix))
            yield np.arange(start, start + len(matrix)), matrix

    if not len(queries):
        for _ in adding():
            pass
        none = np.empty((0, 0))
        return Filled(none, none, longest_seen)
    scores, near = exact_stream(adding(), queries, DEPTH + 1, dtype=np.float32)
    return Filled(scores, near, longest_seen)


def tune_filled(index: Any, own: np.ndarray, queries: np.ndarray, filled: Filled) -> Built:
    """Tune an index that was filled with vectors; what the build measured."""
    if not len(queries):
        return Built(Breadth(), 1.0, filled.largest_norm)
    _check_lengths(filled.largest_norm)
    truth = np.array([row[row != position][:DEPTH] for row, position in zip(filled.near, own, strict=True)])
    breadth, recall = tune(index, queries, own, truth, RECALL_TARGET)
    return Built(breadth, recall, filled.largest_norm)


def can_merge(index: Any) -> bool:
    """Whether parts of such an index can be merged: all kinds of lists and flat codes, no graph of vectors (HNSW)."""
    return all(isinstance(part, faiss.IndexIVF | faiss.IndexFlatCodes | faiss.IndexRefine) for part in parts(index))


def merge(index: Any, shard: Any) -> None:
    """Append the vectors of `shard`, a filled copy of the same trained index; it is empty afterwards."""
    # FAISS's views of what they are do not keep the objects alive: the arguments do.
    whole, part = faiss.downcast_index(index), faiss.downcast_index(shard)
    if isinstance(whole, faiss.IndexRefine):
        merge(whole.base_index, part.base_index)
        merge(whole.refine_index, part.refine_index)
        whole.ntotal = whole.base_index.ntotal
    else:
        whole.merge_from(part, whole.ntotal if isinstance(whole, faiss.IndexIVF) else 0)


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


def _check(index: Any) -> Callable[[Any], np.ndarray]:
    return partial(dense_rows, dimension=index.d, what="document")


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
