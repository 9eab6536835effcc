"""Character ranges of documents on one line, and their overlaps and unions.

The texts of all documents follow each other on the line, once for each query. There, ranges of two queries or documents
never meet, and a sort with a running maximum finds what overlaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..corpora.spans import check_range
from ..errors import InputError
from ..types import text_ids
from ..values import id_name, shown


@dataclass(frozen=True)
class Ranges:
    """Ranges on the line, each with the row of its query and its rank there, from 1: arrays of shape (n,)."""

    query: np.ndarray
    rank: np.ndarray
    start: np.ndarray
    end: np.ndarray


class Line:
    """Where each document begins on the line of one query, and how long that line is."""

    def __init__(self, texts: Mapping[Any, str]) -> None:
        self._texts = named(texts, "texts")
        ends = np.cumsum([len(text) for text in self._texts.values()]).tolist()
        self._begins = dict(zip(self._texts, [0, *ends], strict=False))
        self.length = ends[-1] if ends else 0

    def gold(self, spans: Mapping[Any, Sequence[tuple[Any, int, int]]]) -> tuple[tuple[str, ...], Ranges]:
        """The queries that have spans, and these."""
        known = {query: listed for query, listed in named(spans, "spans").items() if len(listed)}
        if not known:
            raise InputError("spans hold no span.")
        return tuple(known), self.ranges({f"query {query!r}, span": listed for query, listed in known.items()})

    def ranges(self, listed: Mapping[str, Sequence[Any]], k: int | None = None) -> Ranges:
        """The first `k` ranges of each query, checked; names are those of error messages."""
        rows = []
        for row, (name, values) in enumerate(listed.items()):
            for rank, value in enumerate(islice(values, k), 1):
                document, start, end = self._checked(value, f"{name} {rank}")
                begin = row * self.length + self._begins[document]
                rows.append((row, rank, begin + start, begin + end))
        return Ranges(*np.array(rows, np.int64).reshape(-1, 4).T)

    def _checked(self, value: Any, where: str) -> tuple[str, int, int]:
        try:
            document, start, end = value
        except (TypeError, ValueError):
            raise InputError(f"{where}: expected (document id, start, end), found {shown(value)}.") from None
        name = document if type(document) is str else id_name(document)
        if name not in self._texts:
            raise InputError(f"{where}: document {name!r} has no text.")
        return name, *check_range(start, end, name, self._texts[name], where)


def named(values: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """A dictionary of lists, or of texts, with its ids as text."""
    if not isinstance(values, Mapping):
        raise InputError(f"{what}: expected a dictionary by id, found {shown(values)}.")
    for name, value in values.items():
        if not isinstance(value, Sequence):
            raise InputError(f"{what}: of {name!r} there is {shown(value)}, a {type(value).__name__}.")
    return dict(zip(text_ids(values, what), values.values(), strict=True))


def overlaps(a_start: np.ndarray, a_end: np.ndarray, b_start: np.ndarray, b_end: np.ndarray) -> tuple[Any, Any]:
    """Numbers of all pairs of ranges that overlap, the first of `a`, the second of `b`."""
    order = np.argsort(b_start, kind="stable")
    reach = np.maximum.accumulate(b_end[order])
    first = np.searchsorted(reach, a_start, "right")
    n = np.maximum(np.searchsorted(b_start[order], a_end, "left") - first, 0)
    i = np.repeat(np.arange(len(n)), n)
    j = order[np.arange(len(i)) + np.repeat(first - np.cumsum(n) + n, n)]
    meet = b_end[j] > a_start[i]
    return i[meet], j[meet]


def united(query: np.ndarray, start: np.ndarray, end: np.ndarray, n_queries: int) -> np.ndarray:
    """Characters that the ranges of each query cover, each counted once: shape (n_queries,)."""
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    before = np.maximum.accumulate(np.concatenate([[0], end]))[:-1]
    return np.bincount(query[order], np.maximum(end - np.maximum(start, before), 0), n_queries)
