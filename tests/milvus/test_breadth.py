"""Queries drawn from rows that pass by, their exact neighbours, and the narrowest breadth that finds them."""

import numpy as np
import pytest

from cderetrieval.milvus.breadth import DEPTH, SAMPLE, WIDEST, Probe, measure


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    found = rng.standard_normal((900, 8)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("sizes", [[900], [300, 300, 300], [5, 895], [899, 1]])
def test_the_truth_is_exact_however_the_rows_come(vectors, sizes):
    probe, start = Probe(), 0
    for size in sizes:
        probe.offer([f"k{i}" for i in range(start, start + size)], vectors[start : start + size])
        start += size
    assert len(probe.queries) == min(SAMPLE, sizes[0])
    for query, found in zip(probe.queries, probe.truth(), strict=True):
        own = int(np.flatnonzero((vectors == query).all(axis=1))[0])
        ranked = [row for row in np.argsort(-(vectors.astype(np.float64) @ query), kind="stable") if row != own]
        assert found == [f"k{row}" for row in ranked[:DEPTH]]


def test_the_narrowest_breadth_that_reaches_the_target(vectors):
    probe = Probe()
    probe.offer([f"k{i}" for i in range(900)], vectors)
    asked = []

    def search(queries, limit, parameters):
        """Finds all of it from ef=64 on, and half of it before."""
        asked.append(parameters["ef"])
        return [row if parameters["ef"] >= 64 else row[: DEPTH // 2] for row in probe.truth()]

    assert measure(probe, "HNSW", search) == {"parameters": {"ef": 64}, "recall": 1.0, "rows": 900}
    assert asked == [16, 32, 64]
    worst = measure(probe, "IVF_FLAT", lambda queries, limit, parameters: [[] for _ in queries])
    assert worst == {"parameters": {"nprobe": WIDEST}, "recall": 0.0, "rows": 900}
    automatic = measure(probe, "AUTOINDEX", lambda queries, limit, parameters: probe.truth())
    assert automatic == {"parameters": {}, "recall": 1.0, "rows": 900}


def test_nothing_was_offered():
    assert measure(Probe(), "HNSW", lambda *_: [])["recall"] is None
