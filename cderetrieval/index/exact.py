"""Exact nearest neighbours with numpy: the oracle that every index is tested and tuned against.

The corpus is walked in chunks and a running top k is merged, so a stream of any length needs the memory of one chunk.
A score is the inner product. Scores are settled (:mod:`.scores`) and equal ones come in order of number, which is order
of insertion: float noise then never decides a ranking. In float64, its own noise (1e-16) is far below what settling
takes off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .scores import best_first, lengths, narrow, settled

CHUNK = 8_192


def exact_search(
    matrix: np.ndarray, queries: np.ndarray, k: int, live: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest rows of a matrix.

    >>> exact_search(np.eye(3), np.array([[0.1, 0.9, 0.1]]), k=3)
    (array([[0.9, 0.1, 0.1]], dtype=float32), array([[1, 0, 2]]))
    """
    return exact_stream(chunks_of(matrix, live), queries, k)


def exact_stream(
    chunks: Iterable[tuple[np.ndarray, np.ndarray]],
    queries: np.ndarray,
    k: int,
    *,
    dtype: npt.DTypeLike = np.float64,
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest vectors of a stream of (seqs, matrix), as :func:`exact_search`; float32 is twice as fast."""
    if k <= 0:
        raise InputError(f"k={k} must be 1 or more.")
    wanted = np.asarray(queries, dtype=dtype)
    long = lengths(wanted)[:, None]
    best_scores = np.empty((len(wanted), 0), dtype=np.float64)
    best_seqs = np.empty((len(wanted), 0), dtype=np.int64)
    for seqs, matrix in chunks:
        rows = np.asarray(matrix, dtype=dtype)
        scores = settled(wanted @ rows.T, long * lengths(rows))
        seqs = np.asarray(seqs, dtype=np.int64)
        if best_scores.shape[1] == k:
            # Only columns that reach some query's top k: after a few chunks about one in forty, and the sort is free.
            near = (scores >= best_scores[:, -1:]).any(axis=0)
            scores, seqs = scores[:, near], seqs[near]
        numbers = np.broadcast_to(seqs, scores.shape)
        best_scores, best_seqs = best_first(
            np.concatenate([best_scores, scores], axis=1), np.concatenate([best_seqs, numbers], axis=1), k
        )
    return narrow(best_scores), best_seqs


def chunks_of(matrix: np.ndarray, live: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and vectors of the live rows of a matrix, a part at a time."""
    rows = np.arange(len(matrix)) if live is None else np.flatnonzero(live)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        yield part, matrix[part]
