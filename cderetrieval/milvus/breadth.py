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

from ..index.exact import best_first
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
        self._names: list[str] = []
        self._own: list[str] = []
        self._scores = np.empty((0, 0))
        self._numbers = np.empty((0, 0), dtype=np.int64)

    def offer(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Take rows that are written to the collection."""
        if self.queries is None:
            drawn = np.unique(np.linspace(0, len(keys) - 1, min(SAMPLE, len(keys))).round().astype(np.int64))
            self.queries = np.array(vectors[drawn], dtype=np.float32)
            self._own = [keys[row] for row in drawn]
            self._scores = np.empty((len(drawn), 0))
            self._numbers = np.empty((len(drawn), 0), dtype=np.int64)
        scores = (self.queries @ np.asarray(vectors, dtype=np.float32).T).astype(np.float64)
        numbers = np.broadcast_to(np.arange(self.rows, self.rows + len(keys)), scores.shape)
        self._scores, best = best_first(
            np.concatenate([self._scores, scores], axis=1),
            np.concatenate([self._numbers, numbers], axis=1),
            DEPTH + 1,
        )
        self._keep(best, keys)
        self.rows += len(keys)

    def _keep(self, best: np.ndarray, keys: Sequence[str]) -> None:
        """Hold the names of the rows that are near to a query now, and of no others."""
        held = dict(zip(np.unique(self._numbers).tolist(), self._names, strict=True))
        kept = np.unique(best).tolist()
        self._names = [held[number] if number in held else keys[number - self.rows] for number in kept]
        self._numbers = best

    def truth(self) -> list[list[str]]:
        """For each query the keys of its nearest other rows, best first."""
        names = dict(zip(np.unique(self._numbers).tolist(), self._names, strict=True))
        ranked = [[names[number] for number in row] for row in self._numbers.tolist()]
        return [[key for key in row if key != own][:DEPTH] for row, own in zip(ranked, self._own, strict=True)]

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
