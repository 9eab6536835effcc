"""Metrics of ranked passages against gold spans, which say whether a search finds the place in a document.

Passages and spans are ranges of characters, so rankings of different splitters can be compared. The texts of all
documents follow each other on one line, once for each query. There, ranges of two queries or documents never meet, and
a sort with a running maximum finds what overlaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..corpora.spans import check_range
from ..errors import InputError
from ..queries import text_ids
from ..values import id_name, shown
from .metrics import PerQuery

K_VALUES = (1, 5, 10, 20)
# Rank of a span that no passage reaches, and numbers of ranks that are set apart for each query.
_NEVER, _ROOM = 2**31, 2**32


def passage_metrics(
    run: Mapping[Any, Sequence[tuple[Any, int, int]]],
    spans: Mapping[Any, Sequence[tuple[Any, int, int]]],
    texts: Mapping[Any, str],
    k_values: Sequence[int] = K_VALUES,
) -> PerQuery:
    """Score ranked passages against gold spans.

    A passage reaches a span if it shares at least one character with it. A query without passages counts 0; one without
    spans is left out.

    - ``ndcg@k``: a span counts once, at the rank of the first passage that reaches it. Spans that one passage reaches
      together take successive ranks. In the ideal ranking, each of the first ranks reaches one span.
    - ``recall@k``: share of the spans that are reached. Where spans and passages are chunks of one splitter, this is
      Pass@k of Anthropic's cookbook for contextual retrieval.
    - ``hit@k``: 1 if a span is reached.
    - ``char_recall@k``: share of the spans' characters that passages cover.
    - ``char_precision@k``: share of the passages' characters that are in spans.
    - ``char_iou@k``: covered characters of spans, divided by the characters of passages and of spans not covered.

    The last three are recall, precision and IoU of "Evaluating Chunking Strategies for Retrieval" (Smith and Troynikov
    2024), which its code also computes on characters. A character in two passages counts once as found, and twice as
    retrieved. Spans of one query that overlap are united first; that code adds their lengths.

    Parameters
    ----------
    run
        Query id to passages, best first, each (document id, start, end).
    spans
        Query id to gold spans, each (document id, start, end).
    texts
        Document id to text.
    k_values
        Cut-offs.

    Returns
    -------
    PerQuery
        Each metric is an array of shape (n_queries,).

    Raises
    ------
    InputError
        If there are no spans, a cut-off is below 1, a document has no text, or a range is not one of its text.

    Examples
    --------
    >>> run = {"q": [("d", 0, 19), ("d", 20, 34)]}
    >>> scores = passage_metrics(run, {"q": [("d", 20, 30)]}, {"d": "Owls hunt at night. They eat mice."}, [1, 2])
    >>> scores["recall@1"], scores["recall@2"], scores["char_precision@2"].round(2)
    (array([0.]), array([1.]), array([0.3]))
    """
    ks = sorted(set(k_values))
    if not ks or ks[0] < 1:
        raise InputError(f"k_values={list(k_values)} must be at least 1.")
    line = TextLine(texts)
    queries, gold = line.gold(spans)
    ranked = named(run, "run")
    found = line.ranges({f"query {query!r}, passage": ranked.get(query, ()) for query in queries}, ks[-1])
    i, j = overlaps(gold.start, gold.end, found.start, found.end)
    ranks = np.full(len(gold.start), _NEVER)
    np.minimum.at(ranks, i, found.rank[j])
    values = {**_of_spans(gold.query, ranks, ks), **_of_characters(gold, found, i, j, ks)}
    n_found = np.bincount(found.query, minlength=len(queries))
    return PerQuery(queries, values, tuple(query for query, n in zip(queries, n_found, strict=True) if not n))


def precision_omega(
    passages: Sequence[tuple[Any, int, int]],
    spans: Mapping[Any, Sequence[tuple[Any, int, int]]],
    texts: Mapping[Any, str],
) -> PerQuery:
    """Score a splitter without any search: the precision of a search that makes no mistake.

    Each query gets the passages that overlap its spans, and no other. ``precision_omega`` is the share of the spans'
    characters among all characters of these passages and spans (Smith and Troynikov 2024). Each character counts once.
    Their code also takes passages that only touch a span.

    Parameters
    ----------
    passages
        All passages of all documents, each (document id, start, end).
    spans, texts
        As for :func:`passage_metrics`.

    Examples
    --------
    >>> texts = {"d": "Owls hunt at night. They eat mice."}
    >>> precision_omega([("d", 0, 19), ("d", 20, 34)], {"q": [("d", 20, 27)]}, texts).mean()
    {'precision_omega': 0.5}
    """
    line = TextLine(texts)
    queries, gold = line.gold(spans)
    cut = line.ranges({"passage": passages})
    shift = gold.query * line.length
    i, j = overlaps(gold.start - shift, gold.end - shift, cut.start, cut.end)
    query, start, end = gold.query[i], cut.start[j] + shift[i], cut.end[j] + shift[i]
    covered = united(query, np.maximum(start, gold.start[i]), np.minimum(end, gold.end[i]), len(queries))
    both = [np.concatenate(pair) for pair in ((query, gold.query), (start, gold.start), (end, gold.end))]
    whole = united(both[0], both[1], both[2], len(queries))
    return PerQuery(queries, {"precision_omega": covered / whole}, ())


def _of_spans(query: np.ndarray, ranks: np.ndarray, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """Metrics of the ranks at which spans are reached."""
    n_spans = np.bincount(query)
    order = np.lexsort((ranks, query))
    number = np.arange(len(order)) - np.repeat(np.cumsum(n_spans) - n_spans, n_spans)
    room = query[order] * _ROOM
    # Successive: the greatest of (rank - number) so far, plus the number; at its own rank or later.
    places = np.maximum.accumulate(ranks[order] - number + room) - room + number
    ideal = np.cumsum(1 / np.log2(np.arange(2, max(ks) + 2)))
    values = {}
    for k in ks:
        gains = np.where(places <= k, 1 / np.log2(places + 1), 0.0)
        values[f"ndcg@{k}"] = np.bincount(query[order], gains) / ideal[np.minimum(n_spans, k) - 1]
    reached = {k: np.bincount(query, ranks <= k) for k in ks}
    values |= {f"recall@{k}": reached[k] / n_spans for k in ks}
    return values | {f"hit@{k}": np.minimum(reached[k], 1.0) for k in ks}


def _of_characters(
    gold: Ranges, found: Ranges, i: np.ndarray, j: np.ndarray, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    """Metrics of characters, from the pairs of spans and passages that overlap."""
    n_queries = int(gold.query[-1]) + 1
    start, end = np.maximum(gold.start[i], found.start[j]), np.minimum(gold.end[i], found.end[j])
    total = united(gold.query, gold.start, gold.end, n_queries)
    recall, precision, iou = {}, {}, {}
    for k in ks:
        near, first = found.rank[j] <= k, found.rank <= k
        covered = united(gold.query[i][near], start[near], end[near], n_queries)
        length = np.bincount(found.query[first], (found.end - found.start)[first], n_queries)
        recall[f"char_recall@{k}"] = covered / total
        precision[f"char_precision@{k}"] = covered / np.maximum(length, 1)
        iou[f"char_iou@{k}"] = covered / (length + total - covered)
    return {**recall, **precision, **iou}


@dataclass(frozen=True)
class Ranges:
    """Ranges on the line, each with the row of its query and its rank there, from 1: arrays of shape (n,)."""

    query: np.ndarray
    rank: np.ndarray
    start: np.ndarray
    end: np.ndarray


class TextLine:
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
