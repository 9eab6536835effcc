"""Exact search with FAISS whose answer does not depend on float noise, batch size or removed rows.

FAISS finds candidates in float32, a few more than k. Their scores are computed again in float64, settled
(:mod:`.scores`), and equal ones put in order of insertion. If a row beyond the last candidate could still tie with the
k-th answer, or removed rows took places, that query looks again: wider, then through all rows.

Removed rows: an IDSelector keeps FAISS from its matrix product, and 1,000 queries on 100,000 rows then take 8.7 s in
place of 2.3 s (one thread). Batches therefore search all rows, drop the removed ones, and use the selector only for
queries that came out short; single queries, which FAISS scans row by row anyway, use it at once.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from .exact import best_first, chunks_of, exact_stream
from .scores import grid, lengths, probes_of, settled

EXTRA = 4
WIDER = 8
CANDIDATES = 256
# FAISS computes a batch of this many queries as a matrix product (distance_compute_blas_threshold).
BLAS_BATCH = 20
# Float32 error of a score, in units of its scale, with a wide margin (seen: 1e-7).
NOISE = 1e-6


def flat_search(
    index: Any,
    queries: np.ndarray,
    k: int,
    alive: np.ndarray | None,
    selector: Any,
    largest_norm: float,
    *,
    searcher: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores, float64, and positions, int64, of the k nearest rows, both of shape (q, k)."""
    vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    live = index.ntotal if alive is None else int(alive.sum())
    long = lengths(queries)
    scale = long * largest_norm
    margin = NOISE * scale + grid(scale)
    probes, powers = probes_of(queries, largest_norm, long)
    scores = np.empty((len(queries), k))
    found = np.empty((len(queries), k), dtype=np.int64)
    rows = np.arange(len(queries))
    batch = searcher is not None or len(queries) >= BLAS_BATCH
    attempts = [
        (searcher or index, k + EXTRA + (0 if alive is None else k // 4), None if batch else selector),
        (index, WIDER * (k + EXTRA), selector),
    ]
    for engine, wanted, chosen in attempts:
        most = index.ntotal if chosen is None else live
        fetch = min(wanted, most)
        parameters = None if chosen is None else faiss.SearchParameters(sel=chosen)
        raw, candidates = engine.search(probes[rows], fetch, params=parameters)
        last = np.ldexp(raw[:, -1].astype(np.float64), powers[rows])
        best, positions = _exact_order(vectors, queries[rows], candidates, alive, k)
        done = np.isfinite(best[:, k - 1]) & ((fetch == most) | (best[:, k - 1] > last + margin[rows]))
        scores[rows[done]], found[rows[done]] = best[done], positions[done]
        rows = rows[~done]
        if not len(rows):
            return scores, found
    scores[rows], found[rows] = exact_stream(chunks_of(vectors, alive), queries[rows], k)
    return scores, found


def _exact_order(
    vectors: np.ndarray, queries: np.ndarray, candidates: np.ndarray, alive: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates by float64 score, then position; a score of -inf where there are fewer."""
    scores = np.empty(candidates.shape, dtype=np.float64)
    # As bytes: in a mapped file floats lie at odd places, and to take a few of them numpy copies all to even ones first
    # (50 ms for 30,000 vectors, and their memory once more).
    stored = vectors.view(np.uint8)
    # Blocks that stay in the processor's cache: 7 ms for 1,000 queries, 23 ms in one go.
    step = max(1, CANDIDATES // candidates.shape[1])
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        wanted = queries[block].astype(np.float64)[:, :, None]
        shape = (*candidates[block].shape, vectors.shape[1])
        near = np.take(stored, candidates[block].ravel(), axis=0).view(np.float32).astype(np.float64).reshape(shape)
        product = np.matmul(near, wanted)[:, :, 0]
        squares, own = np.einsum("qkd,qkd->qk", near, near), (wanted**2).sum(axis=1)
        scores[block] = settled(product, np.sqrt(own) * np.sqrt(squares))
    hidden = candidates < 0 if alive is None else (candidates < 0) | ~alive[candidates]
    scores[hidden] = -np.inf
    return best_first(scores, candidates, k)
