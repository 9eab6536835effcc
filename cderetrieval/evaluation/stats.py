"""Do two systems differ on the same queries by more than chance? All answers use the differences of query scores.

- the paired bootstrap gives a 95% interval of the mean difference;
- Fisher's randomization test counts how often random signs give a mean at least as far from 0: (1 + b) / (1 + n);
- the paired t-test is the most used in retrieval, and the most reliable of these (Urbano et al. 2019).

Wilcoxon's test and the sign test call harmless differences significant at thousands of queries (Ihemelandu & Ekstrand
2023), so they are left out. The sample of a context is chance too: average scores over seeds first, for each query.
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
    """A paired comparison: b minus a with its 95% interval, two-sided p-values, and queries on which b is better."""

    difference: float
    low: float
    high: float
    p_randomization: float
    p_t: float
    wins: int
    ties: int
    losses: int


def paired_tests(a: np.ndarray, b: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Significance:
    """Compare the scores of two systems on the same queries, both of shape (n_queries,)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise InputError(f"paired tests need the same queries: {a.shape} and {b.shape}.")
    differences = b - a
    # Means over seeds in another order differ in the last digits; that is a tie.
    differences[np.abs(differences) < _EQUAL] = 0.0
    low, high = bootstrap_interval(differences, resamples=resamples, seed=seed)
    return Significance(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_randomization=_randomization_test(differences, resamples, seed),
        p_t=_t_test(differences),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
    )


def bootstrap_interval(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean of at least one value."""
    from scipy import stats

    values = np.asarray(values, np.float64)
    if len(values) == 1:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,),
        np.mean,
        method="percentile",
        n_resamples=resamples,
        batch=max(1, _CHUNK // len(values)),
        random_state=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given; nan stays nan and does not count."""
    p = np.asarray(p_values, np.float64)
    corrected = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[i]))
        corrected[i] = running
    return [float(value) for value in corrected]


def _randomization_test(differences: np.ndarray, resamples: int, seed: int) -> float:
    # scipy.stats.permutation_test gives the same p-value and takes five times as long.
    rng = np.random.default_rng(seed)
    observed = abs(differences.mean())
    size = max(1, _CHUNK // len(differences))
    beyond = 0
    for start in range(0, resamples, size):
        shape = (min(size, resamples - start), len(differences))
        signs = rng.integers(0, 2, shape, dtype=np.int8) * 2 - 1
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
