"""Steps of building: lists placed by clustering twice, or by one k-means."""

import logging

import faiss
import numpy as np
import pytest

from cderetrieval.index import build
from cderetrieval.index.exact import exact_search
from cderetrieval.index.faiss import FaissIndex

from .stored import Stored


@pytest.mark.parametrize("kind", ["IVF16,Flat", "IVF25,SQ8", "IVF16,RaBitQ,Refine(SQ8)"])
def test_lists_that_are_placed_twice(clustered, kind, monkeypatch):
    matrix, queries = clustered
    monkeypatch.setattr(build, "TWO_LEVELS", 9)
    called = []
    clustering = build.two_level_clustering
    monkeypatch.setattr(
        build, "two_level_clustering", lambda *a, **k: called.append((a[1:], k["spherical"])) or clustering(*a, **k)
    )
    index, again = Stored(FaissIndex(32, kind)), Stored(FaissIndex(32, kind))
    for one in (index, again):
        one.add(np.arange(len(matrix)), matrix)
    lists = int(kind[3:5])
    assert called == [((int(lists**0.5), lists), True)] * 2
    assert build.lists(index.raw) == lists
    assert index.build.recall >= 0.95
    _, truth = exact_search(matrix, queries, 10)
    _, found = index.search(queries, 10)
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]) >= 9.3
    np.testing.assert_array_equal(faiss.serialize_index(index.raw), faiss.serialize_index(again.raw))


@pytest.mark.parametrize("kind", ["PCA24,IVF16,Flat", "IVF8,Flat", "SQ8"])
def test_others_are_trained_in_one_go(clustered, kind, monkeypatch):
    matrix, _ = clustered
    monkeypatch.setattr(build, "TWO_LEVELS", 9)
    monkeypatch.setattr(build, "two_level_clustering", None)
    index = Stored(FaissIndex(32, kind))
    index.add(np.arange(len(matrix)), matrix)
    assert index.build.factory == kind


def test_skewed_vectors_are_trained_anyway(clustered, monkeypatch, caplog):
    """Nearly all vectors in one place: clusters of the first level that get no list."""
    matrix, _ = clustered
    skewed = np.concatenate([np.repeat(matrix[:1], 1_950, axis=0), matrix[:50]])
    skewed += 1e-4 * np.random.default_rng(0).standard_normal(skewed.shape).astype(np.float32)
    monkeypatch.setattr(build, "TWO_LEVELS", 9)
    with caplog.at_level(logging.WARNING):
        index = Stored(FaissIndex(32, "IVF16,Flat"))
        index.add(np.arange(2_000), skewed)
    assert index.build.factory == "IVF16,Flat"
    assert index.search(matrix[:5], 3)[1].shape == (5, 3)


@pytest.mark.parametrize(("count", "trained"), [(2_000, 1_500), (800, 800)], ids=["enough", "too few others"])
def test_the_rows_that_are_tuned_on_are_not_trained_on(clustered, count, trained, monkeypatch):
    matrix, seen, tuned = clustered[0][:count], {}, {}
    monkeypatch.setattr(build, "_place_lists", lambda index, training, seed: seen.update(training=training))
    tune = build.tune
    monkeypatch.setattr(build, "tune", lambda index, rows, *rest: tuned.update(rows=rows) or tune(index, rows, *rest))
    Stored(FaissIndex(32, "IVF16,Flat")).add(np.arange(count), matrix)
    rows = {row.tobytes() for row in seen["training"]}
    assert len(rows) == trained
    assert len(tuned["rows"]) == 500
    assert (not rows & {row.tobytes() for row in tuned["rows"]}) == (trained < count)
