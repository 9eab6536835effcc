"""Whether two systems differ on the same queries, by more than chance.

Three answers to one question, all on the differences of the queries' scores:

- a 95% interval of the mean difference, by the paired bootstrap: queries drawn with replacement;
- Fisher's randomization test: how often random signs give a mean at least as far from zero, counted (1 + b) / (1 + n);
- the paired t-test, the most used one in retrieval (Urbano et al. 2019 find it the most reliable of these).

Wilcoxon's and the sign test are left out: at thousands of queries they call harmless differences significant
(Ihemelandu & Ekstrand 2023). Where several datasets or systems are compared, Holm's correction keeps the chance of any
false alarm at the level. The context's sample is a second source of chance: scores are first averaged over seeds, for
each query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

RESAMPLES = 10_000
# Random numbers drawn at once: 64 MB.
_CHUNK = 8_000_000
_EQUAL = 1e-9


@dataclass(frozen=True)
class Significance:
    """A paired comparison of two systems.

    Attributes
    ----------
    difference
        Mean of b minus a.
    low, high
        95% interval of the mean difference.
    p_randomization, p_t
        Two-sided p-values.
    wins, ties, losses
        Queries on which b is better, equal, worse.
    """

    difference: float
    low: float
    high: float
    p_randomization: float
    p_t: float
    wins: int
    ties: int
    losses: int


def paired_tests(a: np.ndarray, b: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Significance:
    """Compare the scores of two systems on the same queries.

    Parameters
    ----------
    a, b
        Shape (n_queries,), the same queries in the same order.
    resamples
        Of the bootstrap, and random relabellings.
    seed
        Of both.

    Raises
    ------
    InputError
        If the shapes differ or there is no query.

    Examples
    --------
    >>> result = paired_tests(np.array([0.2, 0.4, 0.1, 0.3]), np.array([0.5, 0.4, 0.6, 0.9]))
    >>> round(result.difference, 3), result.wins, result.ties, result.losses
    (0.35, 3, 1, 0)
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InputError(f"paired tests need the same queries: {a.shape} and {b.shape}.")
    differences = b - a
    # Means over seeds in another order differ in the last digits; that is a tie.
    differences[np.abs(differences) < _EQUAL] = 0.0
    rng = np.random.default_rng(seed)
    low, high = bootstrap_interval(differences, resamples=resamples, seed=seed)
    return Significance(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_randomization=_randomization(differences, resamples, rng),
        p_t=_t_test(differences),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
    )


def bootstrap_interval(
    values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a mean.

    Parameters
    ----------
    values
        Shape (n,), n at least 1.
    level
        Share of the bootstrap means inside.
    """
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[rng.integers(0, len(values), (size, len(values)))].mean(axis=1)
            for size in _sizes(resamples, len(values))
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given; nan stays nan and does not count.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    corrected = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[i]))
        corrected[i] = running
    return [float(value) for value in corrected]


def _randomization(differences: np.ndarray, resamples: int, rng: np.random.Generator) -> float:
    observed = abs(differences.mean())
    beyond = 0
    for size in _sizes(resamples, len(differences)):
        signs = rng.integers(0, 2, (size, len(differences)), dtype=np.int8) * 2 - 1
        # Sums of the same numbers in another order differ in the last digits.
        beyond += int((np.abs(signs @ differences) / len(differences) >= observed - 1e-12).sum())
    return (1 + beyond) / (1 + resamples)


def _t_test(differences: np.ndarray) -> float:
    from scipy import stats

    if not differences.any():
        return 1.0
    if len(differences) < 2 or np.ptp(differences) == 0:
        return float("nan")
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _sizes(total: int, width: int) -> list[int]:
    """Cut a number of draws into chunks that fit into memory."""
    size = max(1, _CHUNK // width)
    return [min(size, total - start) for start in range(0, total, size)]
