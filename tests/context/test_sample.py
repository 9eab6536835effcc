"""The sample of a corpus: uniform, distinct, the same for any order of rows."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from cderetrieval.context.sample import Sampler, sample_texts
from cderetrieval.errors import ConfigError

CORPUS = [f"document {i}" for i in range(40)]


def test_every_document_is_as_likely_and_in_every_place():
    samples = [sample_texts(CORPUS, 10, seed) for seed in range(2000)]
    chosen = np.zeros(len(CORPUS))
    first = np.zeros(len(CORPUS))
    for sample in samples:
        chosen[[CORPUS.index(text) for text in sample]] += 1
        first[CORPUS.index(sample[0])] += 1
    # Ten distinct draws of forty vary less than independent ones do: (1 - 10/40) of it.
    assert chisquare(chosen).statistic / 0.75 < 72, "the 0.1% limit for 39 degrees of freedom"
    assert chisquare(first).statistic < 72
    pairs = sum(CORPUS[0] in sample and CORPUS[1] in sample for sample in samples)
    assert abs(pairs - 2000 * 10 * 9 / (40 * 39)) < 50, "neighbours are drawn independently"


@given(st.lists(st.text(max_size=3), min_size=1, max_size=30), st.integers(1, 12), st.integers(0, 5), st.randoms())
def test_order_and_duplicates_do_not_matter(texts, size, seed, shuffler):
    sample = sample_texts(texts, size, seed)
    assert len(sample) == len(set(sample)) == min(size, len(set(texts)))
    assert set(sample) <= set(texts)
    shuffled = texts * 2
    shuffler.shuffle(shuffled)
    assert sample_texts(shuffled, size, seed) == sample


def test_seeds_give_other_samples_and_ids_stay_with_their_texts():
    samples = {tuple(sample_texts(CORPUS, 10, seed)) for seed in range(50)}
    assert len(samples) == 50
    sampler = Sampler(10, seed=3)
    rows = [(i, text, {}) for i, text in enumerate(CORPUS)]
    random.Random(0).shuffle(rows)
    assert list(sampler.watch(rows)) == rows
    assert [CORPUS[i] for i, _ in sampler.items()] == sampler.texts() == sample_texts(CORPUS, 10, 3)
    assert (sampler.offered, sampler.duplicates) == (40, 0)


def test_a_sample_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="0 must be at least 1"):
        Sampler(0)
    assert sample_texts([], 5) == []
