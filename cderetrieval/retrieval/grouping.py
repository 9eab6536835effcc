"""Rank documents by their best passage, exactly.

A ranking of passages is read from its top; the first passage of each document counts. Where the n best passages hold
fewer than k documents, more are fetched for those queries: n is multiplied until they do, or nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..vectors import as_vectors, take

# Passages that are fetched for each document wanted; and how many times more, for the queries that lack some.
FIRST, MORE = 2, 4


def best_of_each(
    search: Callable[[Any, int], tuple[np.ndarray, np.ndarray]],
    queries: Any,
    k: int,
    most: int,
    group: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and groups of the k best groups of each query, both of shape (q, k), best first; -1: no more.

    `search` gives scores and numbers, of which there are `most`; `group` gives the group of each number, -1: none.
    """
    fetched, rows = min(most, FIRST * k + 2), None
    while True:
        found, numbers = search(queries if rows is None else _some(queries, rows), fetched)
        best, groups = _firsts(found, numbers, k, group)
        if rows is None:
            scores, answers, rows = best, groups, np.arange(len(best))
        else:
            scores[rows], answers[rows] = best, groups
        ended = (numbers < 0).any(axis=1) | (numbers.shape[1] < fetched)
        rows = rows[(groups[:, -1] < 0) & ~ended]
        if not len(rows) or fetched >= most:
            return scores, answers
        fetched = min(most, MORE * fetched)


def _some(queries: Any, rows: np.ndarray) -> Any:
    return [queries[i] for i in rows] if isinstance(queries, list) else take(as_vectors(queries, "query"), rows)


def _firsts(
    scores: np.ndarray, numbers: np.ndarray, k: int, group: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The first of each group in each row, k at most."""
    groups = np.where(numbers < 0, -1, group(numbers))
    order = np.argsort(groups, axis=1, kind="stable")
    ordered = np.take_along_axis(groups, order, axis=1)
    new = np.ones(groups.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.zeros(groups.shape, dtype=bool)
    np.put_along_axis(first, order, new & (ordered >= 0), axis=1)
    ranks = first.cumsum(axis=1) - 1
    rows, columns = np.nonzero(first & (ranks < k))
    best, found = np.full((len(groups), k), -np.inf), np.full((len(groups), k), -1, dtype=np.int64)
    best[rows, ranks[rows, columns]] = scores[rows, columns]
    found[rows, ranks[rows, columns]] = groups[rows, columns]
    return best, found
