"""Batches in which no text stands twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cderetrieval.errors import ConfigError
from cderetrieval.training.batches import TextNumbers, distinct_batches, text_numbers
from cderetrieval.training.data import load_pairs
from cderetrieval.training.samplers import ClusteredBatchSampler, Groups


class NoNegatives:
    def negatives_of(self, row):
        return range(0)


def numbers(queries, documents):
    return TextNumbers(np.array(queries), np.array(documents), np.empty(0, dtype=int), NoNegatives())


def test_a_row_that_repeats_a_text_waits_for_the_next_batch():
    texts = numbers([1, 1, 2, 3, 3, 4], [11, 12, 13, 14, 15, 2])
    assert distinct_batches(np.arange(6), 2, texts).tolist() == [[0, 2], [1, 3], [4, 5]]
    assert distinct_batches(np.arange(6), 5, texts).shape == (0, 5)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(6, 18)), min_size=1, max_size=60), st.integers(2, 6))
def test_batches_repeat_neither_text_nor_row(pairs, size):
    texts = numbers(*zip(*pairs, strict=True))
    batches = distinct_batches(np.arange(len(pairs)), size, texts)
    assert batches.shape[1] == size
    assert len(set(batches.ravel().tolist())) == batches.size
    for batch in batches.tolist():
        for place, row in enumerate(batch):
            assert all(texts.of(row).isdisjoint(texts.of(other)) for other in batch[:place])


@pytest.fixture
def repetitive(tmp_path, write_jsonl):
    rows = [
        {"query": f"Owl {k % 20}", "document": f"bee {k}", "negatives": [f"  OWL {(k + 1) % 20} "]} for k in range(60)
    ]
    write_jsonl(tmp_path / "data" / "owls.jsonl", rows)
    write_jsonl(tmp_path / "data" / "same.jsonl", [{"query": "always", "document": f"pine {k}"} for k in range(20)])
    return load_pairs([tmp_path / "data"], tmp_path / "cache", negatives=1)


def test_texts_that_differ_in_case_and_space_are_the_same(repetitive, tmp_path):
    texts = text_numbers(repetitive, tmp_path / "cache")
    assert texts.of(0) & texts.of(1), "a negative of the first row is the query of the second"
    assert len(texts.of(0)) == 3
    assert texts.of(0).isdisjoint(texts.of(3))


@pytest.mark.parametrize("weights", [None, (1.0, 1.0)])
def test_every_epoch_has_as_many_batches(repetitive, tmp_path, weights):
    groups = Groups.without_clusters(np.array(repetitive.domain), np.array(repetitive.dataset), weights)
    texts = text_numbers(repetitive, tmp_path / "cache")
    sampler = ClusteredBatchSampler(repetitive, 4, groups=groups, packing="random", texts=texts)
    assert 5 < len(sampler) <= 15
    for epoch in range(6):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        for batch in batches:
            assert len({repetitive[row]["query"].casefold() for row in batch}) == 4


def test_data_of_one_query_make_no_batch(repetitive, tmp_path):
    domain = np.where(np.array(repetitive.dataset) == repetitive.dataset_names.index("same"), 0, -1)
    texts = text_numbers(repetitive, tmp_path / "cache")
    with pytest.raises(ConfigError, match="no domain has 4 rows without repeated texts, one batch"):
        ClusteredBatchSampler(repetitive, 4, groups=Groups.without_clusters(domain), packing="random", texts=texts)
