"""How widely an approximate index has to look: measured after each build, never a constant.

Some rows of the corpus are searched for their ten nearest other rows, with the index and exactly. The breadth
(``nprobe`` of IVF, ``efSearch`` of HNSW) doubles until recall@10 reaches the target and is then narrowed by bisection;
if no breadth reaches it, re-ranking fetches more candidates (``k_factor``). What was reached is kept beside the index.

A breadth reaches the target where as many other queries would reach it with 95 per cent confidence: the narrowest of
several that do on a sample is too narrow for others as often as not. The rows stand for queries, so the lists are not
trained on them (recall .959 of trained rows, .952 of others, .949 of queries, at one breadth of 100,000 vectors), and
no more candidates are re-ranked than for a query. Queries that are unlike documents can still fare worse.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import faiss
import numpy as np

from ..errors import ConfigError
from .kinds import parts

logger = logging.getLogger(__name__)

# Rows to tune on. Recall@10 of a row varies by about 0.1, so the mean of 500 is known to 0.0045.
SAMPLE = 500
# Standard errors that the mean of as many other queries lies below this mean by, in 5 per cent of cases.
MARGIN = 1.645 * math.sqrt(2)
DEPTH = 10
WIDEST_EF = 2_048
K_FACTORS = (10.0, 40.0)
BISECTIONS = 3


@dataclass(frozen=True)
class Breadth:
    """Search settings of an approximate index; an index uses those that its parts have."""

    width: int = 16
    k_factor: float = K_FACTORS[0]

    def __post_init__(self) -> None:
        if self.width < 1 or self.k_factor < 1:
            raise ConfigError(f"{self} must have a width and a k_factor of 1 or more.")


class Recall(NamedTuple):
    """Mean recall of some queries, and what as many others like them reach with 95 per cent confidence."""

    mean: float
    at_least: float


def widest(index: Any) -> int | None:
    """Largest useful width; `None` where the index looks at everything anyway."""
    for part in parts(index):
        if isinstance(part, faiss.IndexIVF):
            return int(part.nlist)
        if isinstance(part, faiss.IndexHNSW):
            return WIDEST_EF
    return None


def search_parameters(index: Any, breadth: Breadth, selector: Any, fetch: int) -> Any:
    """FAISS search parameters for every part of the index; `selector` says which rows may be found."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = search_parameters(index.index, breadth, selector, fetch)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = search_parameters(index.base_index, breadth, selector, int(fetch * breadth.k_factor))
        return faiss.IndexRefineSearchParameters(k_factor=breadth.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(breadth.width, index.nlist), sel=selector)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=max(breadth.width, fetch), sel=selector)
    return faiss.SearchParameters(sel=selector)


def tune(index: Any, queries: np.ndarray, own: np.ndarray, truth: np.ndarray, target: float) -> tuple[Breadth, float]:
    """The narrowest breadth that reaches the recall target, or else the best, and its mean recall."""
    recall = partial(measure, index, queries, own, truth)
    limit = widest(index) or 1
    refines = any(isinstance(part, faiss.IndexRefine) for part in parts(index))
    best, reached = Breadth(1), Recall(-1.0, -1.0)
    for factor in K_FACTORS if refines else K_FACTORS[:1]:
        breadth = Breadth(1, factor)
        found = recall(breadth)
        while found.at_least < target and breadth.width < limit:
            breadth = Breadth(min(2 * breadth.width, limit), factor)
            found = recall(breadth)
        if found.mean > reached.mean:
            best, reached = breadth, found
        if found.at_least >= target:
            return _narrowed(breadth, found, recall, target)
    logger.warning(
        "The index reaches recall@%d of %.3f (with 95 per cent confidence %.3f); the target is %.3f.",
        truth.shape[1],
        *reached,
        target,
    )
    return best, reached.mean


def _narrowed(breadth: Breadth, reached: Recall, recall: Any, target: float) -> tuple[Breadth, float]:
    """Bisections between half the width, known to be too narrow, and the width."""
    low = breadth.width // 2
    for _ in range(BISECTIONS):
        middle = (low + breadth.width) // 2
        if middle <= low:
            break
        found = recall(replace(breadth, width=middle))
        if found.at_least >= target:
            breadth, reached = replace(breadth, width=middle), found
        else:
            low = middle
    return breadth, reached.mean


def measure(index: Any, queries: np.ndarray, own: np.ndarray, truth: np.ndarray, breadth: Breadth) -> Recall:
    """Recall of the index against `truth`, as :func:`tune` takes it."""
    depth = truth.shape[1]
    # A row finds itself: one more is asked for, and as many are re-ranked as for `depth`.
    asked = replace(breadth, k_factor=max(1.0, breadth.k_factor * depth / (depth + 1)))
    _, found = index.search(queries, depth + 1, params=search_parameters(index, asked, None, depth + 1))
    others = [row[row != number][:depth] for row, number in zip(found, own, strict=True)]
    recalls = np.array([np.isin(near, some).mean() for near, some in zip(truth, others, strict=True)])
    mean = float(recalls.mean())
    error = float(recalls.std(ddof=1)) / math.sqrt(len(recalls)) if len(recalls) > 1 else 0.0
    return Recall(mean, mean - MARGIN * error)
