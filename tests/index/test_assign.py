"""Vectors are added to the lists that FAISS would choose."""

import faiss
import numpy as np
import pytest

from cderetrieval.index.build import add, nearest

KINDS = ["IVF16,Flat", "IVF16,SQ8", "IVF16,RaBitQ,Refine(SQ8)", "IVF16_HNSW8,SQ8", "HNSW8,Flat", "SQ8", "Flat"]


@pytest.mark.parametrize("kind", [*KINDS, "PCA24,IVF16,Flat"])
def test_the_index_is_the_one_that_faiss_fills(clustered, kind):
    matrix, queries = clustered
    index = faiss.index_factory(32, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(matrix)
    other = faiss.deserialize_index(faiss.serialize_index(index))
    for start, end in [(0, 1_500), (1_500, 1_501), (1_501, 2_000)]:
        add(index, matrix[start:end])
        other.add(matrix[start:end])
    assert index.ntotal == 2_000
    np.testing.assert_array_equal(faiss.serialize_index(index), faiss.serialize_index(other))
    np.testing.assert_array_equal(index.search(queries, 5)[1], other.search(queries, 5)[1])


def test_nearest_centres():
    rng = np.random.default_rng(0)
    centres, matrix = (rng.standard_normal((n, 24)).astype(np.float32) for n in (70, 3_000))
    np.testing.assert_array_equal(nearest(centres, matrix), (matrix @ centres.T).argmax(axis=1))
