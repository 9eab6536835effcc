"""Ranking metrics per query, as trec_eval computes them.

They equal `pytrec_eval` in five digits and follow its conventions: documents are ranked by score as float32, equal
scores by document id, descending; gain is the grade itself, and grades below 1 have none; recall and average precision
divide by all relevant documents. A judged query without hits or relevant documents counts 0, while the means of
`pytrec_eval` and `beir` leave out those without hits. Queries without any judgement are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import judgements
from ..corpora.qrels import read_qrels, read_rows
from ..errors import InputError
from ..files import as_path
from ..values import shown

if TYPE_CHECKING:
    import pandas as pd

# Query id to document id to score.
Run = dict[str, dict[str, float]]
METRICS = ("ndcg", "map", "recall", "mrr", "p")
K_VALUES = (1, 3, 5, 10, 20, 100, 1000)
SCORE_COLUMNS = ("score", "similarity", "sim")
# Hits of each query that are kept: ten thousand rankings of 1,000 would be 2 GB of Python objects.
KEPT = 100


def as_qrels(qrels: Any) -> judgements.Qrels:
    """Judgements in any form that `judgements.as_qrels` reads, or from a TREC or BEIR file."""
    return read_qrels(qrels) if isinstance(qrels, str | Path) else judgements.as_qrels(qrels)


def as_run(run: Any) -> Run:
    """Scored documents from a nested dictionary, data frame, tuples, `Hits`, or a TREC run file."""
    if isinstance(run, str | Path):
        run = _read_run(as_path(run))
    return judgements.nested(run.to_run() if hasattr(run, "to_run") else run, SCORE_COLUMNS, "run", _score)


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if math.isnan(score):
        raise InputError(f"run: the score of {where} is not a number: {shown(value)}.")
    return score


def _read_run(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, fields in read_rows(path):
        if len(fields) != 6:
            form = "query Q0 document rank score tag"
            raise InputError(f"{path}, line {number}: {len(fields)} columns; a TREC run has six: {form}.")
        yield fields[0], fields[2], fields[4]


@dataclass(frozen=True)
class PerQuery:
    """Metrics of each query, such as ``"ndcg@10"``: arrays of shape (n_queries,), in the order of `query_ids`."""

    query_ids: tuple[str, ...]
    values: dict[str, np.ndarray]
    missing: tuple[str, ...]  # queries without hits; they count 0

    def __getitem__(self, metric: str) -> np.ndarray:
        """Values of one metric, in upper or lower case."""
        try:
            return self.values[metric.lower()]
        except KeyError:
            raise InputError(f"No metric {metric!r}; there are {', '.join(self.values)}.") from None

    def mean(self) -> dict[str, float]:
        """Mean of each metric over all judged queries."""
        return {metric: float(values.mean()) for metric, values in self.values.items()}

    def to_frame(self) -> pd.DataFrame:
        """One row for each query, one column for each metric."""
        import pandas as pd

        return pd.DataFrame(self.values, index=pd.Index(self.query_ids, name="query_id"))


def evaluate_run(
    qrels: Any, run: Any, k_values: Sequence[int] = K_VALUES, ignore_identical_ids: bool = False
) -> PerQuery:
    """Score a run against judgements.

    Parameters
    ----------
    qrels
        Query id to document id to grade; query id to the ids of relevant documents; a data frame; tuples of BEIR or
        TREC; or the path of a TREC or BEIR file.
    run
        Scored documents of each query: a nested dictionary, a data frame, tuples, :class:`~cderetrieval.Hits`, or
        the path of a TREC run file.
    k_values
        Cut-offs.
    ignore_identical_ids
        Leave out hits whose id is the query's, as ArguAna and Quora are evaluated, whose queries are documents.

    Returns
    -------
    PerQuery
        ``ndcg@k``, ``map@k``, ``recall@k``, ``mrr@k`` and ``p@k``.

    Raises
    ------
    InputError
        If there are no judgements, a cut-off is below 1, a grade is not a whole number or a score not a number.

    Examples
    --------
    >>> scores = evaluate_run({"q1": {"d1": 1}, "q2": {"d2": 1}}, {"q1": {"d3": 2.0, "d1": 1.0}}, k_values=[1, 10])
    >>> scores["mrr@10"], scores.missing
    (array([0.5, 0. ]), ('q2',))
    >>> scores.mean()["recall@10"]
    0.5
    """
    scorer = Scorer(as_qrels(qrels), ignore_identical_ids, k_values)
    scorer.add(as_run(run))
    return scorer.scores()


class Scorer:
    """Scores blocks of rankings as they come, and keeps the `KEPT` best hits of each in `run`."""

    def __init__(
        self, qrels: judgements.Qrels, ignore_identical_ids: bool = False, k_values: Sequence[int] = K_VALUES
    ) -> None:
        self._qrels = judgements.judged(qrels)
        self._ks = sorted(set(k_values))
        if not self._qrels:
            raise InputError("qrels contain no judgements.")
        if not self._ks or self._ks[0] < 1:
            raise InputError(f"k_values={list(k_values)} must be at least 1.")
        self._ignore_identical_ids = ignore_identical_ids
        self._rows = {query: row for row, query in enumerate(self._qrels)}
        self._values = {f"{metric}@{k}": np.zeros(len(self._rows)) for metric in METRICS for k in self._ks}
        self._found: set[str] = set()
        self.run: Run = {}

    def watch(self, blocks: Iterable[Run]) -> Iterator[Run]:
        """Pass blocks through, scoring and keeping each."""
        for block in blocks:
            self.add(block)
            for query, hits in block.items():
                self.run[query] = dict(sorted(hits.items(), key=lambda hit: -hit[1])[:KEPT])
            yield block

    def add(self, block: Run) -> None:
        """Score the rankings of some queries; those that are not judged are left out."""
        for query in block.keys() & self._rows:
            hits = block[query]
            if hits:
                self._found.add(query)
            if self._ignore_identical_ids:
                hits = {document: score for document, score in hits.items() if document != query}
            relevant = {document: grade for document, grade in self._qrels[query].items() if grade > 0}
            if relevant and hits:
                ranks, gains = _rank_relevant(hits, relevant)
                for name, value in _query_metrics(ranks, gains, np.array(list(relevant.values())), self._ks).items():
                    self._values[name][self._rows[query]] = value

    def scores(self) -> PerQuery:
        """Metrics of all judged queries; one that never came counts 0."""
        return PerQuery(
            tuple(self._rows), self._values, tuple(query for query in self._rows if query not in self._found)
        )


def _rank_relevant(hits: Mapping[str, float], relevant: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ranks (from 1, ascending) and grades of the relevant documents among the hits, both shape (n_found,)."""
    with np.errstate(over="ignore"):  # scores beyond float32 become infinite, as in trec_eval
        scores = np.fromiter(hits.values(), np.float64, len(hits)).astype(np.float32)
    ranked = sorted(zip(scores.tolist(), hits, strict=True), reverse=True)
    found = [(rank, relevant[document]) for rank, (_, document) in enumerate(ranked, 1) if document in relevant]
    ranks, gains = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return ranks, gains


def _query_metrics(ranks: np.ndarray, gains: np.ndarray, all_gains: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Metrics of one query from ranks and grades of its relevant hits, and the grades of all relevant documents."""
    ideal = np.sort(all_gains)[::-1]
    ideal_dcg = np.cumsum(ideal / np.log2(np.arange(2, len(ideal) + 2)))
    discounted = gains / np.log2(ranks + 1)
    precisions = np.arange(1, len(ranks) + 1) / ranks
    values = {}
    for k in ks:
        n = int(np.searchsorted(ranks, k, "right"))
        values[f"ndcg@{k}"] = discounted[:n].sum() / ideal_dcg[min(k, len(ideal)) - 1]
        values[f"map@{k}"] = precisions[:n].sum() / len(ideal)
        values[f"recall@{k}"] = n / len(ideal)
        values[f"mrr@{k}"] = 1 / ranks[0] if n else 0.0
        values[f"p@{k}"] = n / k
    return values
