import logging

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.errors import ConfigError, InputError, StoreError
from cderetrieval.index import build, choice
from cderetrieval.index import faiss as module
from cderetrieval.index.exact import exact_search
from cderetrieval.index.faiss import FaissIndex

from .stored import Stored

KINDS = [
    "Flat",
    "SQfp16",
    "SQ8",
    "HNSW16,SQ8",
    "HNSW16,Flat",
    "IVF16,Flat",
    "IVF16,SQ8",
    "IVF16,RaBitQ,Refine(SQ8)",
    "PCA24,IVF16,Flat",
]


def source(seqs, matrix, chunk=300):
    """Vectors above a number, as `Store.iter_vectors` gives them."""

    def after(seq=0):
        for start in range(int(np.searchsorted(seqs, seq, side="right")), len(seqs), chunk):
            yield seqs[start : start + chunk], matrix[start : start + chunk]

    return after


def recall(found, truth):
    return np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, truth, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_against_the_oracle_with_and_without_removed_rows(clustered, kind, monkeypatch):
    monkeypatch.setattr(module, "MOST_DEAD", 1.0)
    matrix, queries = clustered
    seqs = np.arange(10, 10 + len(matrix))
    index = Stored(FaissIndex(32, kind))
    index.add(seqs, matrix)
    assert index.build.factory == kind
    # Without eight of its dimensions the corpus is not what it was: the target is out of reach, and that is measured.
    least = 0.7 if kind.startswith("PCA") else 0.95
    assert index.build.recall >= least
    for removed in (np.empty(0, dtype=np.int64), seqs[::3]):
        assert index.remove(removed) == len(removed)
        live = ~np.isin(seqs, removed)
        truth_scores, truth = exact_search(matrix, queries, 10, live)
        scores, found = index.search(queries, 10)
        assert found.dtype == np.int64
        assert scores.dtype == np.float32
        assert not np.isin(found, removed).any()
        assert (np.diff(scores, axis=1) <= 0).all()
        assert recall(found, truth + 10) >= least - 0.1
        if kind == "Flat":
            np.testing.assert_array_equal(found, truth + 10)
            np.testing.assert_array_equal(scores, truth_scores)
            alone = [index.search(query[None], 10) for query in queries[:5]]
            np.testing.assert_array_equal(np.concatenate([one[1] for one in alone]), found[:5])
            np.testing.assert_array_equal(np.concatenate([one[0] for one in alone]), scores[:5])


@pytest.mark.parametrize("kind", ["Flat", "HNSW16,Flat", "IVF16,Flat", "IVF16,RaBitQ,Refine(SQ8)"])
def test_large_k_returns_all_live_rows_once(clustered, kind, monkeypatch):
    monkeypatch.setattr(module, "MOST_DEAD", 1.0)
    matrix, queries = clustered
    index = Stored(FaissIndex(32, kind))
    index.add(np.arange(len(matrix)), matrix)
    index.remove(np.arange(1, len(matrix), 2))
    scores, found = index.search(queries[:3], 5_000)
    assert found.shape == scores.shape == (3, 1_000)
    for row in found:
        assert len(set(row[row >= 0].tolist())) == (row >= 0).sum() >= (1_000 if kind != "HNSW16,Flat" else 900)
        assert (row[row >= 0] % 2 == 0).all()
    assert np.isneginf(scores[found < 0]).all()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 8), min_size=1, max_size=40)),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 150), max_size=12)),
        st.tuples(st.just("search"), st.integers(1, 30)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS, many=st.booleans())
def test_flat_equals_exact_search_under_any_sequence(operations, many):
    # Nine distinct vectors: ties everywhere. 25 queries go through the matrix product, 3 do not.
    pool = np.random.default_rng(7).standard_normal((9, 5)).astype(np.float32)
    queries = np.tile(pool + np.float32(0.1), (3, 1))[: 25 if many else 3]
    index, rows, seqs = Stored(FaissIndex(5)), [], np.empty(0, dtype=np.int64)
    live = np.empty(0, dtype=bool)
    for name, value in [*operations, ("search", 7)]:
        if name == "add":
            fresh = np.arange(len(seqs), len(seqs) + len(value)) * 2
            index.add(fresh, pool[value])
            rows, seqs = rows + value, np.concatenate([seqs, fresh])
            live = np.concatenate([live, np.ones(len(value), dtype=bool)])
        elif name == "remove":
            expected = np.isin(seqs, value) & live
            assert index.remove(value) == expected.sum()
            live = live & ~expected
        else:
            scores, found = index.search(queries, value)
            truth_scores, truth = exact_search(pool[rows], queries, value, live)
            np.testing.assert_array_equal(scores, truth_scores)
            np.testing.assert_array_equal(found, seqs[truth] if len(seqs) else truth)
        assert index.count == live.sum()


@pytest.mark.parametrize("size", [1, 64])
def test_ties_far_beyond_the_candidates_come_in_order_of_insertion(size, monkeypatch):
    monkeypatch.setattr(module, "MOST_DEAD", 1.0)
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((3_000, 16)).astype(np.float32)
    matrix[500:2_500] = matrix[500]
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    index = Stored(FaissIndex(16))
    index.add(np.arange(len(matrix)), matrix)
    queries = np.tile(matrix[500], (size, 1))
    _, found = index.search(queries, 10)
    assert found.tolist() == [list(range(500, 510))] * size
    index.remove(np.arange(500, 2_400))
    _, found = index.search(queries, 10)
    assert found.tolist() == [list(range(2_400, 2_410))] * size


def test_long_vectors_keep_their_order():
    rng = np.random.default_rng(0)
    matrix = (1_000 * rng.standard_normal((500, 24))).astype(np.float32)
    matrix[200:] = matrix[200] + rng.standard_normal((300, 24)).astype(np.float32) * 1e-3
    index = Stored(FaissIndex(24))
    index.add(np.arange(500), matrix)
    _, found = index.search(matrix[195:225], 20)
    np.testing.assert_array_equal(found, exact_search(matrix, matrix[195:225], 20)[1])


def test_a_fifth_of_dead_rows_brings_a_rebuild(clustered):
    matrix, queries = clustered
    seqs = np.arange(1, len(matrix) + 1)
    index = Stored(FaissIndex(32, "IVF16,Flat"))
    index.add(seqs, matrix)
    index.remove(seqs[:400])
    assert index.raw.ntotal == 2_000
    index.remove(seqs[400:401])
    assert index.raw.ntotal == 1_599
    assert index.count == 1_599
    assert index.seqs.tolist() == seqs[401:].tolist()
    assert index.search(queries, 5)[1].min() > 401


def test_sync_does_only_what_is_needed(clustered, caplog):
    caplog.set_level(logging.INFO)
    matrix, queries = clustered
    seqs = np.arange(1, len(matrix) + 1)
    asked = []

    def after(seq):
        asked.append(seq)
        return source(seqs, matrix)(seq)

    index = FaissIndex(32)
    index.sync(seqs[:1_000], after)
    assert asked == [-1]
    live = np.setdiff1d(seqs[:1_500], [3, 5, 1_200])
    index.sync(live, after)
    assert asked == [-1, 1_000]
    index.sync(live, after)
    assert asked == [-1, 1_000]
    assert index.seqs.tolist() == live.tolist()
    truth = exact_search(matrix, queries, 10, np.isin(seqs, live))[1]
    np.testing.assert_array_equal(index.search(queries, 10)[1], truth + 1)
    # More than a fifth gone: built again, from the start.
    index.sync(live[800:], after)
    assert asked == [-1, 1_000, -1]
    assert index.raw.ntotal == len(live[800:])
    # A number that the index should have known: built again.
    index.sync(np.concatenate([[3], live[800:]]), after)
    assert asked == [-1, 1_000, -1, -1]
    assert "lacks vectors" in caplog.text
    assert index.seqs.tolist() == [3, *live[800:].tolist()]
    index.sync(np.empty(0, dtype=np.int64), after)
    assert index.count == 0


def test_sync_names_a_document_without_a_vector(clustered):
    matrix, _ = clustered
    seqs = np.arange(1, 101)
    index = FaissIndex(32)
    after = source(np.delete(seqs, 41), np.delete(matrix[:100], 41, axis=0))
    with pytest.raises(StoreError, match="number 42 has no vector"):
        index.sync(seqs, after)
    assert index.count == 0


def test_growth_past_a_size_class_chooses_anew(clustered, monkeypatch):
    monkeypatch.setattr(choice, "FLAT_LIMIT", 800)
    matrix, queries = clustered
    seqs = np.arange(len(matrix))
    index = FaissIndex(32)
    index.sync(seqs[:800], source(seqs, matrix))
    assert index.build.factory == "Flat"
    index.sync(seqs, source(seqs, matrix))
    assert index.build.factory == "IVF128,SQ8"
    assert index.build.recall >= 0.95
    assert recall(index.search(queries, 10)[1], exact_search(matrix, queries, 10)[1]) > 0.9


def test_a_kind_that_needs_training_is_exact_until_there_is_enough(clustered):
    matrix, _ = clustered
    seqs = np.arange(len(matrix))
    index = FaissIndex(32, "IVF32,Flat")
    index.sync(seqs[:500], source(seqs, matrix))
    assert (index.requested, index.build.factory, index.build.recall) == ("IVF32,Flat", "Flat", 1.0)
    index.sync(seqs[:1_248], source(seqs, matrix))
    assert index.build.factory == "IVF32,Flat"
    built = index.build.breadth
    index.sync(seqs, source(seqs, matrix))
    assert (index.count, index.build.breadth) == (2_000, built)


def test_a_trained_index_is_trained_again_after_doubling(clustered, monkeypatch):
    matrix, _ = clustered
    seqs = np.arange(len(matrix))
    sizes = []
    monkeypatch.setattr(
        module, "fill", lambda d, kind, seqs, *a, **k: sizes.append(len(seqs)) or build.fill(d, kind, seqs, *a, **k)
    )
    index = FaissIndex(32, "SQ8")
    for n in (400, 700, 801, 1_000, 2_000):
        index.sync(seqs[:n], source(seqs, matrix))
    assert sizes == [400, 801, 2_000]


@pytest.mark.parametrize("kind", ["IVF16,RaBitQ,Refine(SQ8)", "IVF16,SQ8", "SQ8"])
def test_the_same_seed_gives_the_same_index(clustered, kind):
    matrix, _ = clustered
    built = []
    for _ in range(2):
        index = Stored(FaissIndex(32, kind, seed=3))
        index.add(np.arange(len(matrix)), matrix)
        built.append((faiss.serialize_index(index.raw).tobytes(), index.build.breadth, index.build.recall))
    assert built[0] == built[1]


def test_a_stream_gives_the_same_index_as_one_matrix(clustered):
    matrix, _ = clustered
    seqs = np.arange(len(matrix))
    whole, streamed = Stored(FaissIndex(32, "IVF16,SQ8")), FaissIndex(32, "IVF16,SQ8")
    whole.add(seqs, matrix)
    streamed.sync(seqs, source(seqs, matrix, chunk=77))
    a, b = (faiss.serialize_index(index.raw) for index in (whole, streamed))
    np.testing.assert_array_equal(a, b)


def test_bad_input_names_the_row_and_changes_nothing(clustered):
    matrix, _ = clustered
    index = Stored(FaissIndex(32))
    index.add([1, 2], matrix[:2])
    bad = matrix[:3].copy()
    bad[1, 4] = np.inf
    with pytest.raises(InputError, match="vector of document 1 is not finite"):
        index.add([3, 4, 5], bad)
    with pytest.raises(InputError, match="vector of query 1 is not finite"):
        index.search(bad, 3)
    with pytest.raises(InputError, match=r"query vectors have shape \(2, 31\)"):
        index.search(matrix[:2, 1:], 3)
    with pytest.raises(InputError, match="document vectors have shape"):
        index.add([3], matrix[0])
    for k in (0, -1):
        with pytest.raises(InputError, match=f"k={k}"):
            index.search(matrix[:1], k)
    assert index.count == 2


def test_bad_settings():
    with pytest.raises(ConfigError, match="factory='nonsense' is no FAISS index"):
        FaissIndex(8, "nonsense")
    with pytest.raises(ConfigError, match="dimension=0"):
        FaissIndex(0)


def test_empty_index_and_no_queries(clustered):
    _, queries = clustered
    index = Stored(FaissIndex(32))
    scores, found = index.search(queries, 4)
    assert scores.shape == found.shape == (100, 0)
    index.add(np.empty(0, dtype=np.int64), np.empty((0, 32)))
    index.add([1], queries[:1])
    assert index.search(queries[:0], 4)[1].shape == (0, 1)
    assert index.remove([1, 9]) == 1
    assert index.search(queries, 4)[1].shape == (100, 0)


def test_the_wide_paths_of_the_flat_search_are_rare(clustered, monkeypatch):
    matrix, queries = clustered
    index = Stored(FaissIndex(32))
    index.add(np.arange(len(matrix)), matrix)
    monkeypatch.setattr(module, "exact_stream", lambda *a, **k: pytest.fail("walked through all rows"))
    index.search(queries, 10)
    index.remove(np.arange(0, 300))
    index.search(queries, 10)
