"""Search of an approximate FAISS index: its own scores, settled, equal ones in order of insertion.

FAISS says how far codes are, not how long the vectors were, so a score is its own scale here. The index holds vectors
of about length 1 (:func:`~.stream.factor_for`) and is asked with queries of that length; scores are put back to scale.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .scores import ABOUT, best_first, lengths, near_one, settled
from .tune import Breadth, search_parameters, widest

# Squares of lengths that are about 1 also where float32, with its noise, says so.
SURELY = (1.001 * ABOUT[0] ** 2, 0.999 * ABOUT[1] ** 2)


def approximate_search(
    index: Any, queries: np.ndarray, k: int, breadth: Breadth, selector: Any, factor: float, *, engine: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Scores, float64, and positions, int64, both of shape (q, k), best first; short rows end in -inf and -1."""
    probes, long = _of_length_one(queries)
    back = long / factor
    width, limit = breadth.width, widest(index) or 0
    rows: Any = slice(None)
    scores = np.full((len(queries), k), -np.inf)
    found = np.full((len(queries), k), -1, dtype=np.int64)
    while True:
        parameters = search_parameters(index, replace(breadth, width=width), selector, k)
        raw, positions = engine.search(probes[rows], k, params=parameters)
        similar = raw.astype(np.float64) * back[rows, None]
        scores[rows], found[rows] = np.where(positions < 0, -np.inf, settled(similar)), positions
        # The lists visited may hold fewer than k vectors (large k, many removed): look at more of them.
        rows = np.flatnonzero(found[:, k - 1] < 0)
        if width >= limit or not len(rows):
            break
        width = min(2 * width, limit)
    mixed = (scores[:, 1:] >= scores[:, :-1]).any(axis=1)  # FAISS sorts; once settled, few rows hold equal ones
    if mixed.any():
        scores[mixed], found[mixed] = best_first(scores[mixed], found[mixed], k)
    return scores, found


def _of_length_one(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Queries of about length 1, float32, and what each was divided by; as a rule they are that already."""
    squares = np.einsum("nd,nd->n", queries, queries)
    if SURELY[0] < squares.min(initial=1) and squares.max(initial=1) < SURELY[1]:
        return queries, np.ones(len(queries))
    long = near_one(lengths(queries))
    return (queries / long[:, None]).astype(np.float32), long
