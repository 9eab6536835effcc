"""Weights of a hybrid's parts, chosen by nDCG on development queries.

Every part searches once; then all weights on a grid over the simplex are tried on the cached rankings. The grid is
coarse on purpose: the optimum is flat, and a finer one fits the noise of a few hundred queries. It holds the corners,
so the choice is never worse on these queries than the best part alone. Tune on development queries, never on those
that the hybrid will be judged by.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..index.scores import settled
from ..judgements import Qrels, as_qrels
from ..queries import named_queries, query_texts
from ..values import id_name
from .fusion import Fusion, PartRanking, candidates, ranked

if TYPE_CHECKING:
    import pandas as pd

# Steps of the grid for so many parts: 21, 66, 286 and 1,001 points; beyond, 5 steps.
STEPS = {1: 1, 2: 20, 3: 10, 4: 10, 5: 10}


@dataclass(frozen=True)
class Tuned:
    """What tuning found on the development queries."""

    # Weight of each part, by name; they add up to 1.
    weights: dict[str, float]
    # Such as ``"ndcg@10"``.
    metric: str
    # With these weights.
    score: float
    # With the weights before.
    untuned: float
    # Score of each part alone, by name.
    parts: dict[str, float]
    # Queries that had judgements.
    n_queries: int
    # Weights that were tried, shape (n, parts).
    grid: np.ndarray
    # Their scores, shape (n,).
    scores: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row for each point of the grid: the weight of each part, and the score."""
        import pandas as pd

        return pd.DataFrame(self.grid, columns=list(self.weights)).assign(**{self.metric: self.scores})

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {weight:.2f}" for name, weight in self.weights.items())
        alone = ", ".join(f"{name} {score:.4f}" for name, score in self.parts.items())
        return (
            f"weights {shown}: {self.metric} {self.score:.4f} on {self.n_queries} queries "
            f"(untuned {self.untuned:.4f}; alone: {alone})"
        )


def simplex(n_parts: int) -> np.ndarray:
    """All weights on a grid that add up to 1, shape (n, n_parts)."""
    steps = STEPS.get(n_parts, 5)
    bars = itertools.combinations(range(steps + n_parts - 1), n_parts - 1)
    counts = [np.diff([-1, *bar, steps + n_parts - 1]) - 1 for bar in bars]
    return np.array(counts) / steps


def search_weights(
    names: Sequence[str],
    rankings: Sequence[PartRanking],
    grades: Sequence[Mapping[int, int]],
    fusion: Fusion,
    k: int,
) -> Tuned:
    """Try all weights of the grid."""
    grid = simplex(len(names))
    tried = np.vstack([grid, np.eye(len(names)), fusion.vector(len(names))])
    total = np.zeros(len(tried))
    for (rows, matrix, found), judged in zip(candidates(rankings, fusion), grades, strict=True):
        fused = ranked(matrix @ tried.T, fusion, tried)
        total += ndcg(rows, np.where(found @ (tried > 0).T, fused, -np.inf), judged, k)
    scores = total / len(grades)
    on_grid, alone = scores[: len(grid)], scores[len(grid) : -1]
    # Among equal scores the most even weights win.
    spread = np.abs(grid - 1 / len(names)).sum(axis=1)
    best = int(np.lexsort((spread, -settled(on_grid, 1.0)))[0])
    return Tuned(
        dict(zip(names, grid[best].tolist(), strict=True)),
        f"ndcg@{k}",
        float(on_grid[best]),
        float(scores[-1]),
        dict(zip(names, alone.tolist(), strict=True)),
        len(grades),
        grid,
        on_grid,
    )


def ndcg(rows: np.ndarray, scores: np.ndarray, grades: Mapping[int, int], k: int) -> np.ndarray:
    """Find nDCG@k of one query under many scorings, shape (n,), by the ranks of its relevant documents alone."""
    relevant = {row: grade for row, grade in grades.items() if grade > 0}
    gains = np.zeros(scores.shape[1])
    for row, grade in relevant.items():
        place = int(np.searchsorted(rows, row))
        if place == len(rows) or rows[place] != row:
            continue
        own = scores[place]
        ranks = 1 + (scores > own).sum(axis=0) + (scores[:place] == own).sum(axis=0)
        gains += np.where((ranks <= k) & np.isfinite(own), grade / np.log2(ranks + 1), 0.0)
    ideal = sorted(relevant.values(), reverse=True)[:k]
    best = sum(grade / np.log2(rank + 1) for rank, grade in enumerate(ideal, start=1))
    return gains / best if best else gains


def grades_by_row(qrels: Qrels, queries: Sequence[str], seqs: np.ndarray, ids: np.ndarray) -> list[dict[int, int]]:
    """Judgements of queries by number of the document; those of documents that are not there have numbers below 0."""
    rows: dict[str, int] = {}
    several: set[str] = set()
    for row, document_id in zip(seqs.tolist(), ids.tolist(), strict=True):
        name = id_name(document_id)
        if rows.setdefault(name, row) != row:
            several.add(name)
    # A relevant document that is not there still counts in the ideal ranking.
    grades = []
    for query in queries:
        if twice := sorted(several.intersection(qrels[query])):
            raise InputError(f"query {query!r} judges {twice[0]!r}, and two ids of this index are that as text.")
        grades.append({rows.get(name, -1 - i): grade for i, (name, grade) in enumerate(qrels[query].items())})
    if not any(row >= 0 for one in grades for row in one):
        raise InputError("qrels judge no document of this index; are their ids those of the documents?")
    return grades


def judged_queries(queries: Any, qrels: Any) -> tuple[dict[str, str], Qrels]:
    """Queries that have judgements, by id, and all judgements."""
    if qrels is None or isinstance(qrels, str | Path) or not isinstance(queries, Iterable):
        raise InputError(_NEEDED)
    grades = as_qrels(qrels)
    queries = list(queries) if isinstance(queries, Iterator) else queries
    if isinstance(queries, Mapping):  # those that nobody judged are not asked, and may be anything
        queries = {query: text for query, text in queries.items() if grades.get(id_name(query))}
    elif query_texts(queries)[0] is None:
        raise InputError(_NEEDED)
    asked = {query: text for query, text in named_queries(queries).items() if grades.get(query)}
    if not asked:
        raise InputError("no query has judgements: are the keys of qrels those of queries?")
    return asked, grades


_NEEDED = (
    "tune needs queries, query id to text, and qrels, query id to document id to grade: read_beir gives both, "
    "and cderetrieval.judgements.as_qrels reads other forms."
)
