"""What a score is once float noise is taken off it: the one rule by which everything here ranks.

A score is known to about a millionth of its scale. The scale of an inner product is the product of both lengths, since
its rounding errors grow with that, also where the terms of the sum cancel; the scale of a sum of positive terms, as
sparse vectors and words give, is the sum itself. So a score is rounded to six decimals, and where its scale is below
one to six decimals of the power of ten nearest to it. Large scores keep their six decimals as long as float64 knows
them: up to a scale of a million, of positive sums a hundred million, and as many digits from there on.

Settled scores that are equal are ties and stand in order of insertion. What a score settles to follows from the query
and that document alone: no other document, no index, chunk, batch or k has a say, so the order is transitive and the
same everywhere. Vectors and queries of any length are ranked as those of length 1 are.
"""

from __future__ import annotations

import math

import numpy as np

DECIMALS = 6
# The power of ten from which on a score has digits in place of decimals: of products, and of positive sums.
LARGE, LARGE_SUM = 6, 8
# Scores below are shown with digits in place of decimals.
SMALL = 1e-3
# A query that many powers of two from length 1 is brought there for engines that compute in float32.
ORDINARY = 24
# Lengths that are 1 for all that approximate indexes care.
ABOUT = (0.8, 1.25)
# Scales whose nearest power of ten is 1.
ONE = (10**-0.5, 10**0.5)
FLOAT32 = np.finfo(np.float32)
# Powers of ten that float64 holds whatever it is multiplied with here.
_MOST = 300
_POWERS = [float(f"1e{power}") for power in range(-_MOST, _MOST + 1)]


def settled(scores: np.ndarray, scale: np.ndarray | float | None = None) -> np.ndarray:
    """Scores without their noise, float64; equal ones are ties.

    >>> settled(np.array([0.12345678, 12.345678912, 3e-9]), 1.0)
    array([ 0.123457, 12.345679,  0.      ])
    >>> settled(np.array([3.00000004e-9, 3e-9]))
    array([3.e-09, 3.e-09])
    """
    wide = np.asarray(scores, dtype=np.float64)
    factor = steps(np.abs(wide), LARGE_SUM) if scale is None else steps(np.asarray(scale, dtype=np.float64))
    return np.asarray(np.rint(wide * factor) / factor)


def shown(scores: np.ndarray) -> np.ndarray:
    """Scores as users see them, float64: six decimals, those below a thousandth to about six digits.

    >>> shown(np.array([0.83, 12.3456789, 0.0, -3.123456789e-9], dtype=np.float32)).tolist()
    [0.83, 12.345679, 0.0, -3.123457e-09]
    """
    wide = np.asarray(scores, dtype=np.float64)  # float32 would print 0.83 as 0.8299999833106995
    rounded = np.round(wide, DECIMALS)
    small = np.abs(wide) < SMALL
    return np.where(small, settled(wide), rounded) if small.any() else rounded


def narrow(scores: np.ndarray) -> np.ndarray:
    """The same as float32, where that holds them all."""
    sizes = np.abs(scores[np.isfinite(scores)])
    fits = (sizes <= FLOAT32.max) & ((sizes >= FLOAT32.tiny) | (sizes == 0))
    return scores.astype(np.float32) if fits.all() else scores


def best_first(scores: np.ndarray, seqs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best columns of each row, equal scores by number."""
    order = np.lexsort((seqs, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(seqs, order, axis=1)


def lengths(matrix: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, float64, shape (n,)."""
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64)))


def probes_of(
    queries: np.ndarray, largest_norm: float = 1.0, long: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Queries whose products with the vectors stay within float32, and the power of two that each was divided by.

    Such a division is exact, and changes nothing of what is near. Queries of ordinary length stay as they are; `long`
    is their lengths, where these are known.
    """
    powers = np.frexp(lengths(queries) if long is None else long)[1]
    if 0 < largest_norm < np.inf:
        powers = powers + np.frexp(largest_norm)[1] // 2
    powers = np.where(abs(powers) < ORDINARY, 0, powers)
    return np.ldexp(queries, -powers[:, None]), powers


def near_one(found: np.ndarray) -> np.ndarray:
    """What to divide vectors of these lengths by to give them length 1: 1 where they are empty, or have nearly that."""
    return np.where((found == 0) | ((found > ABOUT[0]) & (found < ABOUT[1])), 1.0, found)


def steps(scale: np.ndarray, large: int = LARGE) -> np.ndarray | float:
    """Power of ten that turns scores of a scale into whole numbers; settled ones differ by 1 over it at least."""
    least, most = float(scale.min(initial=np.inf)), float(scale.max(initial=0.0))
    if ONE[0] < least and most < ONE[1]:  # vectors of about length 1, as a rule
        return _POWERS[DECIMALS + _MOST]
    # As a rule all scales want the same, and a number is multiplied faster than a matrix is looked up.
    if 0 < least <= most < np.inf:
        ends = [_kept(round(math.log10(end)), large) for end in (least, most)]
        if ends[0] == ends[1]:
            return _POWERS[ends[0] + _MOST]
    powers = np.zeros(scale.shape)
    np.log10(scale, out=powers, where=(scale > 0) & (scale < np.inf))
    return np.take(_KEPT[large], np.rint(powers).astype(np.int64) + _FAR)


def _kept(power: int, large: int) -> int:
    """Decimals to keep of scores whose scale is that power of ten."""
    return max(-_MOST, min(_MOST, DECIMALS - min(power, 0) - max(power - large, 0)))


# The factor for each power of ten that a float64 can have.
_FAR = 400
_KEPT = {
    large: np.array([_POWERS[_kept(power, large) + _MOST] for power in range(-_FAR, _FAR + 1)])
    for large in (LARGE, LARGE_SUM)
}
