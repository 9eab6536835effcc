import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cderetrieval.errors import InputError
from cderetrieval.evaluation.stats import bootstrap_interval, holm, paired_tests


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    a = rng.beta(2, 3, 80)
    return a, np.clip(a + rng.normal(0.03, 0.1, 80), 0, 1)


def test_equals_scipy(scores):
    a, b = scores
    found = paired_tests(a, b)
    assert found.p_t == pytest.approx(stats.ttest_rel(b, a).pvalue, rel=1e-9)
    exact = stats.permutation_test(
        (b - a,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    )
    assert found.p_randomization == pytest.approx(exact.pvalue, abs=0.01)
    interval = stats.bootstrap((b - a,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1))
    assert found.low == pytest.approx(interval.confidence_interval.low, abs=2e-3)
    assert found.high == pytest.approx(interval.confidence_interval.high, abs=2e-3)
    assert found.difference == pytest.approx((b - a).mean())
    assert (found.wins, found.ties, found.losses) == ((b > a).sum(), (b == a).sum(), (b < a).sum())


def test_randomization_is_exact_on_few_queries():
    # eight of eight differences of one sign: 2 of 256 sign patterns are as extreme
    found = paired_tests(np.zeros(8), np.arange(1, 9, dtype=float), resamples=100_000)
    assert found.p_randomization == pytest.approx(2 / 256, abs=1e-3)


def test_no_difference_and_one_query():
    same = paired_tests(np.ones(5), np.ones(5))
    assert (same.difference, same.low, same.high, same.p_randomization, same.p_t, same.ties) == (0, 0, 0, 1, 1, 5)
    one = paired_tests(np.array([0.2]), np.array([0.5]))
    assert math.isnan(one.p_t)
    assert one.p_randomization == 1
    assert paired_tests(np.full(3, 0.1 + 0.2), np.full(3, 0.3)).ties == 3  # the last digit is no win


def test_same_seed_same_numbers(scores):
    assert paired_tests(*scores) == paired_tests(*scores)
    assert paired_tests(*scores, seed=1) != paired_tests(*scores, seed=2)


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(rng.normal(0.1, 1.0, 60), resamples=600, seed=trial)
        covered += low <= 0.1 <= high
    assert 180 <= covered <= 199


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=8))
def test_holm_is_monotone_and_never_below_the_raw(p_values):
    corrected = holm(p_values)
    pairs = sorted((p, c) for p, c in zip(p_values, corrected, strict=True) if not math.isnan(p))
    assert all(p <= c <= 1 for p, c in pairs)
    assert [c for _, c in pairs] == sorted(c for _, c in pairs)
    assert [math.isnan(c) for c in corrected] == [math.isnan(p) for p in p_values]


def test_bad_shapes():
    for a, b in ((np.ones(3), np.ones(4)), (np.ones(0), np.ones(0)), (np.ones((2, 2)), np.ones((2, 2)))):
        with pytest.raises(InputError, match="the same queries"):
            paired_tests(a, b)
