"""Ranking metrics per query, as trec_eval computes them.

Equal to `pytrec_eval` in five digits, and in its conventions:

- documents are ranked by score, cast to float32, and equal scores by document id, descending;
- gain is the grade itself (linear, not ``2**grade - 1``); grades below 1 are judged and have no gain;
- recall and average precision divide by all relevant documents, whether found or not.

Unlike `pytrec_eval` and `beir`, whose means leave them out, queries without hits count 0. So do queries without a
relevant document, in every metric, which is what trec_eval gives them. Queries of which nothing is judged are left out,
whether the run or empty judgements name them.

Only the ranks of relevant documents matter, so nothing is sorted but scores: a relevant document's rank is the number
of documents that score higher, and of those with the same score and a greater id, plus one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import judgements
from ..errors import InputError
from .forms import as_qrels, as_run

if TYPE_CHECKING:
    import pandas as pd

K_VALUES = (1, 3, 5, 10, 20, 100, 1000)


@dataclass(frozen=True)
class PerQuery:
    """Metrics of each query.

    Attributes
    ----------
    query_ids
        Queries in the order of the qrels.
    values
        Metric name, such as ``"ndcg@10"``, to an array of shape (n_queries,), float64.
    missing
        Queries for which the run has no hits; they count 0.
    """

    query_ids: tuple[str, ...]
    values: dict[str, np.ndarray]
    missing: tuple[str, ...]

    def __getitem__(self, metric: str) -> np.ndarray:
        """Values of one metric in the order of `query_ids`; upper and lower case are the same."""
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
        Judgements, in any form that :func:`~cderetrieval.evaluation.forms.as_qrels` takes.
    run
        Scored documents of each query, in any form that :func:`~cderetrieval.evaluation.forms.as_run` takes.
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
        If there are no judgements, a cut-off is below 1, a grade is no whole number or a score no number.

    Examples
    --------
    >>> scores = evaluate_run({"q1": {"d1": 1}, "q2": {"d2": 1}}, {"q1": {"d3": 2.0, "d1": 1.0}}, k_values=[1, 10])
    >>> scores["mrr@10"], scores.missing
    (array([0.5, 0. ]), ('q2',))
    >>> scores.mean()["recall@10"]
    0.5
    """
    judged, scored = judgements.judged(as_qrels(qrels)), as_run(run)
    ks = sorted(set(k_values))
    if not judged:
        raise InputError("qrels hold no judgements.")
    if not ks or ks[0] < 1:
        raise InputError(f"k_values={list(k_values)} must be at least 1.")
    values = {f"{metric}@{k}": np.zeros(len(judged)) for metric in ("ndcg", "map", "recall", "mrr", "p") for k in ks}
    for i, (query, grades) in enumerate(judged.items()):
        hits = scored.get(query, {})
        if ignore_identical_ids:
            hits = {document: score for document, score in hits.items() if document != query}
        relevant = {document: grade for document, grade in grades.items() if grade > 0}
        if relevant and hits:
            ranks, gains = _rank_relevant(hits, relevant)
            for name, value in _query_metrics(ranks, gains, np.array(list(relevant.values())), ks).items():
                values[name][i] = value
    return PerQuery(tuple(judged), values, tuple(query for query in judged if not scored.get(query)))


def _rank_relevant(hits: Mapping[str, float], relevant: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Ranks (from 1, ascending) and grades of the relevant documents among the hits, both shape (n_found,)."""
    with np.errstate(over="ignore"):  # scores beyond float32 become infinite, as in trec_eval
        scores = np.fromiter(hits.values(), np.float64, len(hits)).astype(np.float32)
    ascending = np.sort(scores)
    ids = list(hits)
    place = {document: i for i, document in enumerate(ids) if document in relevant}
    ranks = []
    for document, i in place.items():
        first, last = (int(np.searchsorted(ascending, scores[i], side)) for side in ("left", "right"))
        n_before = len(ids) - last
        if last - first > 1:
            n_before += sum(ids[j] > document for j in np.flatnonzero(scores == scores[i]))
        ranks.append(n_before + 1)
    order = np.argsort(ranks)
    gains = np.array([relevant[document] for document in place])
    return np.array(ranks, dtype=np.int64)[order], gains[order]


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
