"""Exact search costs what it looks at, also where the vectors lie in a mapped file."""

import tracemalloc

import numpy as np

from cderetrieval.index import manifest
from cderetrieval.index.faiss import FaissIndex

from .stored import Stored

OWNER = {"epoch": 0, "fingerprint": "model-a"}


def test_a_search_of_a_mapped_index_copies_no_vectors(tmp_path):
    """Floats of a mapped file are not aligned, and numpy would copy all of them to take ten."""
    matrix = np.random.default_rng(0).standard_normal((4_000, 64), dtype=np.float32)
    index = Stored(FaissIndex(64))
    index.add(np.arange(4_000), matrix)
    digest = manifest.save(index, tmp_path, generation=1, **OWNER)
    mapped = FaissIndex(64)
    assert manifest.load(mapped, tmp_path, digest=digest, **OWNER)
    for queries in (matrix[:1], matrix[:50]):
        tracemalloc.start()
        found = mapped.search(queries, 10)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < matrix.nbytes / 2
        for mine, other in zip(found, index.search(queries, 10), strict=True):
            np.testing.assert_array_equal(mine, other)
