"""Drift: a fresh sample of the same corpus is none, another corpus is."""

import numpy as np
import pytest

from cderetrieval.context.drift import measure_drift


def topics(rng, n, centres):
    return centres[rng.integers(0, len(centres), n)] + rng.normal(size=(n, 24)) * 0.5


@pytest.mark.parametrize("size", [32, 256])
def test_a_fresh_sample_is_not_stale_and_another_corpus_is(size):
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(2, 8, 24))
    same = [measure_drift(topics(rng, size, old), topics(rng, size, old), seed=seed) for seed in range(10)]
    assert not any(drift.stale for drift in same)
    assert np.mean([drift.p_value for drift in same]) > 0.2
    half = measure_drift(topics(rng, size, old), np.concatenate([topics(rng, size // 2, c) for c in (old, new)]))
    other = measure_drift(topics(rng, size, old), topics(rng, size, new))
    assert other.stale
    assert half.stale or size < 64, "32 documents are too few to be sure of half of a corpus"
    assert other.shift > half.shift


def test_samples_too_small_to_say_anything_are_not_stale():
    for a, b in [(1, 1), (1, 50), (2, 2)]:
        rng = np.random.default_rng(0)
        assert not measure_drift(rng.normal(size=(a, 4)), rng.normal(size=(b, 4)) + 9).stale
    same = np.ones((10, 4))
    assert measure_drift(same, same).shift == pytest.approx(0)
