"""How the rankings of several retrievers become one: by rank or by score.

Reciprocal rank fusion needs no scores: a document gets ``weight / (rrf_k + rank)`` from each part that found it
(Cormack et al. 2009). Weighted fusion adds the parts' scores, made comparable for each query: what a score is above the
part's floor, in units of the part's spread for that query (the normalisations differ in that unit alone, see `Fusion`).
The floor is the score that a document has at most which the part did not return: 0 for a sparse or lexical part that
has returned all it had, else the last score returned. So documents that a part did not find add nothing, and nothing
that it found counts against a document.

The best `depth` documents of each part count, however many are asked for, so a fused score does not depend on k. Where
more are asked for than all parts together have there, the documents below follow, by reciprocal rank, with scores from
-1 to 0.

Choices by evidence: MiniLM and BM25, nDCG@10, mean of 15 development sets (FeedbackQA's, and held-out slices of
training sets, four of them with 3 to 20 relevant documents a query). Equal weights gave 71.7 with `rrf_k` 60, as
published, 72.2 with 20, 72.6 with 10, 72.9 with 5, 72.8 with 1; of normalised scores 73.1 by min-max and 73.2 by
z-score, at a depth of 1,000 73.0 and 72.8. The least possible score in place of the floor (Bruch et al. 2023) was 1.2
behind min-max on the four sets it was tried on, and with tuned weights equal: left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..index.scores import settled, shown

METHODS = ("rrf", "weighted")
NORMALIZATIONS = ("min-max", "z-score")
# Sums of a few float64 are known to so small a share of their scale that settling leaves twelve digits.
KNOWN = 1e-6


@dataclass(frozen=True)
class Fusion:
    """How rankings are fused.

    Parameters
    ----------
    method
        ``"rrf"`` (reciprocal ranks) or ``"weighted"`` (normalised scores).
    weights
        One for each part, none negative; None: all equal.
    normalization
        Unit of scores in weighted fusion: ``"min-max"``, the distance from the floor to the best score of the query, or
        ``"z-score"``, the standard deviation of the query's scores.
    rrf_k
        Added to each rank; the larger, the less the first ranks stand out.
    depth
        Documents of each part that count.

    Examples
    --------
    >>> Fusion("weighted", (0.7, 0.3)).vector(2)
    array([0.7, 0.3])
    """

    method: str = "rrf"
    weights: tuple[float, ...] | None = None
    normalization: str = "min-max"
    # On 15 development sets: 5 gave nDCG@10 of 72.9, 60, as published, 71.7; normalised scores 73.1 and 73.2.
    rrf_k: int = 5
    depth: int = 100

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"fusion={self.method!r} is unknown; use {' or '.join(map(repr, METHODS))}.")
        if self.normalization not in NORMALIZATIONS:
            names = " or ".join(map(repr, NORMALIZATIONS))
            raise ConfigError(f"normalization={self.normalization!r} is unknown; use {names}.")
        if not isinstance(self.rrf_k, int | float) or not 0 <= self.rrf_k < math.inf:
            raise ConfigError(f"rrf_k={self.rrf_k!r} must be a number of at least 0.")
        if not isinstance(self.depth, int) or self.depth < 1:
            raise ConfigError(f"depth={self.depth!r} must be a whole number of at least 1.")
        if self.weights is not None:
            object.__setattr__(self, "weights", _checked(self.weights))

    def vector(self, n_parts: int) -> np.ndarray:
        """Weights of all parts, shape (n_parts,).

        Raises
        ------
        ConfigError
            If there are weights for another number of parts.
        """
        if self.weights is None:
            return np.ones(n_parts) if self.method == "rrf" else np.full(n_parts, 1 / n_parts)
        if len(self.weights) != n_parts:
            raise ConfigError(f"{len(self.weights)} weights were given for {n_parts} parts; give one for each.")
        return np.array(self.weights)


def _checked(weights: Sequence[float]) -> tuple[float, ...]:
    try:
        found = tuple(map(float, weights))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"weights={weights!r} are not a list of numbers, one for each part.") from error
    if not all(0 <= weight < math.inf for weight in found) or not any(found):
        raise ConfigError(f"weights={list(found)} must be finite, none negative, and not all zero.")
    return found


@dataclass(frozen=True)
class PartRanking:
    """What one part answers to q queries."""

    # Shape (q, d), best first.
    scores: np.ndarray
    # Documents found, the same shape, int64, numbered alike in all parts; -1 where a part found no more.
    rows: np.ndarray
    # Score of the documents that a part leaves out because nothing in them matches: 0 of a sparse or lexical part, None
    # of a dense one, which scores all.
    unfound: float | None = None
    # Documents that there are; None: more than anybody asks for.
    documents: int | None = None

    def contributions(self, fusion: Fusion) -> np.ndarray:
        """What each of the first hits adds to its document at weight 1, shape (q, at most depth), none negative."""
        found = self.rows[:, : fusion.depth] >= 0
        if fusion.method == "rrf":
            return np.where(found, 1 / (fusion.rrf_k + np.arange(1, found.shape[1] + 1)), 0.0)
        counts = found.sum(axis=1)
        if not counts.any():
            return np.zeros(found.shape)
        scores = np.where(found, self.scores[:, : fusion.depth].astype(np.float64), 0.0)
        last = np.take_along_axis(scores, np.maximum(counts - 1, 0)[:, None], axis=1)
        if self.unfound is not None:
            most = fusion.depth if self.documents is None else min(fusion.depth, self.documents)
            last = np.where(counts[:, None] < most, self.unfound, last)
        above = np.where(found, scores - last, 0.0)
        if fusion.normalization == "min-max":
            unit = above.max(axis=1, keepdims=True)
        else:
            # Of equal scores `std` may give 1e-17 in place of 0.
            spread = [np.std(row[:n]) if row[0] > row[n - 1] else 0.0 for row, n in zip(scores, counts, strict=True)]
            unit = np.array(spread)[:, None]
        return np.asarray(np.divide(above, unit, out=np.zeros_like(above), where=unit > 0))


def candidates(rankings: Sequence[PartRanking], fusion: Fusion) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By query: documents that some part found, contributions of shape (m, parts), and which part found which."""
    parts = [(ranking.rows[:, : fusion.depth], ranking.contributions(fusion)) for ranking in rankings]
    for query in range(len(parts[0][0])):
        hits = [rows[query][rows[query] >= 0] for rows, _ in parts]
        rows, places = np.unique(np.concatenate(hits), return_inverse=True)
        matrix = np.zeros((len(rows), len(parts)))
        found = np.zeros(matrix.shape, dtype=bool)
        start = 0
        for part, (own, (_, contributions)) in enumerate(zip(hits, parts, strict=True)):
            mine = places[start : start + len(own)]
            # Hits fill a ranking from its start.
            matrix[mine, part], found[mine, part] = contributions[query, : len(own)], True
            start += len(own)
        yield rows, matrix, found


def fuse(rankings: Sequence[PartRanking], fusion: Fusion, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fuse the rankings of all parts."""
    weights = fusion.vector(len(rankings))
    fused = []
    for query, (every, matrix, found) in enumerate(candidates(rankings, fusion)):
        counted = found[:, weights > 0].any(axis=1)
        rows, scores = every[counted], matrix[counted] @ weights
        best = np.lexsort((rows, -ranked(scores, fusion, weights)))[:k]
        if len(best) < k:
            below, more = _below(rankings, query, fusion, weights / weights.sum(), rows)
            rows, scores = np.concatenate([rows[best], below]), np.concatenate([scores[best], more])
            best = np.arange(min(k, len(rows)))
        fused.append((shown(scores[best]), rows[best]))
    return fused


def ranked(scores: np.ndarray, fusion: Fusion, weights: np.ndarray) -> np.ndarray:
    """What fused scores are ranked by; `weights` of the parts, or several lots of them for as many columns."""
    most = weights.sum(axis=-1) / (fusion.rrf_k + 1 if fusion.method == "rrf" else 1)
    return settled(scores, KNOWN * most)


def _below(
    rankings: Sequence[PartRanking], query: int, fusion: Fusion, weights: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Documents that come after those that count: rows and scores below 0, best first."""
    hits, own_gains = [], []
    for ranking, weight in zip(rankings, weights, strict=True):
        own = ranking.rows[query, fusion.depth :] if weight > 0 else np.empty(0, dtype=np.int64)
        hits.append(own)
        own_gains.append(weight / (fusion.rrf_k + fusion.depth + np.arange(1, len(own) + 1)))
    rows, gain = np.concatenate(hits), np.concatenate(own_gains)
    new = (rows >= 0) & ~np.isin(rows, known)
    rows, places = np.unique(rows[new], return_inverse=True)
    gains = np.bincount(places, gain[new], len(rows))
    order = np.lexsort((rows, -ranked(gains, fusion, weights)))
    return rows[order], gains[order] - 1
