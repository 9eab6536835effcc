"""Search of approximate indexes: a query's answer is its own, whatever stands beside it in a batch."""

import numpy as np
import pytest

from cderetrieval.index.faiss import FaissIndex

from .stored import Stored


@pytest.fixture(scope="module", params=["IVF16,RaBitQ,Refine(SQ8)", "HNSW16,SQ8"])
def index(request, clustered):
    """Each kind over vectors that stand twice, so that scores tie."""
    documents = np.repeat(clustered[0][:1_000], 2, axis=0)
    stored = Stored(FaissIndex(32, request.param))
    stored.add(np.arange(len(documents)), documents)
    return stored


@pytest.mark.parametrize("length", [1e-25, 0.8, 1.25, 3.0, 1e25])
def test_a_query_of_another_length_beside_it_changes_nothing(index, clustered, length):
    queries = clustered[1][:8]
    scores, found = index.search(queries, 10)
    mixed = np.concatenate([queries, np.float32(length) * queries[:1]])
    own, numbers = index.search(mixed, 10)
    np.testing.assert_array_equal(numbers[:-1], found)
    np.testing.assert_array_equal(own[:-1].astype(np.float32), scores)
    np.testing.assert_array_equal(numbers[-1], found[0])


def test_equal_scores_stand_in_order_of_insertion(index, clustered):
    scores, found = index.search(clustered[1], 10)
    tied = scores[:, 1:] == scores[:, :-1]
    assert tied.any()
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    assert (found[:, 1:] > found[:, :-1])[tied].all()
