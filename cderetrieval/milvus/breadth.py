"""How widely an approximate index on a server has to look: measured, never a constant.

Some rows that pass by on their way to the collection become queries, and their exact nearest others are found among all
rows that pass by. Once the index is built, the breadth (``ef`` of HNSW, ``nprobe`` of IVF) doubles until recall@10
reaches the target. What was reached is kept with the collection. Rows that are added later are not measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .fields import WIDTHS

logger = logging.getLogger(__name__)

SAMPLE = 200
DEPTH = 10
# A server answers in milliseconds whatever ef is, so it is asked for more than an index in memory (.95).
TARGET = 0.99
WIDEST = 1_024


class Probe:
    """Queries drawn from the first rows, and their exact neighbours among all rows offered.

    >>> probe = Probe()
    >>> probe.offer(["a", "b"], np.eye(2, dtype=np.float32))
    >>> probe.offer(["c"], np.array([[0.9, 0.1]], dtype=np.float32))
    >>> probe.truth()
    [['c', 'b'], ['c', 'a']]
    """

    def __init__(self) -> None:
        self.queries: np.ndarray | None = None
        self.rows = 0
        self._own: list[str] = []
        # Of the rows nearest to each query, best first, its own among them.
        self._scores = np.empty((0, 0))
        self._keys = np.empty((0, 0), dtype=object)

    def offer(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Take rows that are written to the collection."""
        if self.queries is None:
            drawn = np.unique(np.linspace(0, len(keys) - 1, min(SAMPLE, len(keys))).round().astype(np.int64))
            self.queries = np.array(vectors[drawn], dtype=np.float32)
            self._own = [keys[row] for row in drawn]
            self._scores, self._keys = np.empty((len(drawn), 0)), np.empty((len(drawn), 0), dtype=object)
        found = (self.queries @ np.asarray(vectors, dtype=np.float32).T).astype(np.float64)
        scores = np.concatenate([self._scores, found], axis=1)
        names = np.concatenate([self._keys, np.broadcast_to(np.array(keys, dtype=object), found.shape)], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : DEPTH + 1]
        self._scores, self._keys = (np.take_along_axis(some, best, axis=1) for some in (scores, names))
        self.rows += len(keys)

    def truth(self) -> list[list[str]]:
        """For each query the keys of its nearest other rows, best first."""
        pairs = zip(self._keys.tolist(), self._own, strict=True)
        return [[key for key in row if key != own][:DEPTH] for row, own in pairs]

    def recall(self, found: Sequence[Sequence[str]]) -> float:
        """Share of the exact neighbours that are among the answers; each query's own row does not count."""
        hits = total = 0
        for own, wanted, keys in zip(self._own, self.truth(), found, strict=True):
            answers = [key for key in keys if key != own][:DEPTH]
            hits += len(set(wanted) & set(answers))
            total += len(wanted)
        return hits / total if total else 1.0


def measure(probe: Probe, index: str, search: Callable[[np.ndarray, int, Mapping[str, int]], Any]) -> dict[str, Any]:
    """Find the narrowest breadth that reaches the target."""
    name = WIDTHS.get(index)
    if probe.queries is None:
        return {"parameters": {}, "recall": None, "rows": 0}
    width, found = (16 if name else 0), 0.0
    while True:
        parameters = {name: width} if name else {}
        found = probe.recall(search(probe.queries, DEPTH + 1, parameters))
        if found >= TARGET or not name or width >= WIDEST:
            break
        width *= 2
    logger.info("%s %s: recall@%d %.3f on %d rows", index, parameters, DEPTH, found, probe.rows)
    return {"parameters": parameters, "recall": round(found, 4), "rows": probe.rows}
