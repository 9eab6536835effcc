"""The inverted index against brute force: every answer, in order, whatever was added, removed and merged before."""

import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scipy.sparse import csr_array, random_array

from cderetrieval.errors import ConfigError, InputError, MismatchError, StoreError
from cderetrieval.index import inverted
from cderetrieval.index import kernel as kernel_module
from cderetrieval.index.inverted import InvertedIndex
from cderetrieval.index.scores import settled
from cderetrieval.index.top_k import top_k
from cderetrieval.types import TermEmbeddings
from cderetrieval.vectors import join, take, weights_of

from .stored import Stored

V, D = 60, 4


def sparse(count, seed=0, vocabulary=V, density=0.12, coarse=False):
    """Random rows; coarse weights make many ties."""
    rng = np.random.default_rng(seed)
    matrix = csr_array(random_array((count, vocabulary), density=density, rng=rng, format="csr", dtype=np.float32))
    matrix.data = np.ceil(matrix.data * 2) / 2 if coarse else matrix.data + np.float32(0.01)
    return matrix


def embedded(count, seed=0, **settings):
    weights = sparse(count, seed, **settings)
    embeddings = np.random.default_rng(seed + 1).standard_normal((weights.nnz, D), dtype=np.float32)
    return TermEmbeddings(weights, np.maximum(embeddings, 0).astype(np.float16).astype(np.float32))


def inner_products(vectors, query):
    """Of all rows with one query, float64; a plain dictionary of terms does it."""
    if isinstance(vectors, TermEmbeddings):
        (start, end), terms = query.weights.indptr, query.weights.indices
        theirs = dict(zip(terms.tolist(), query.embeddings[start:end].astype(np.float64), strict=True))
        scores = np.zeros(vectors.shape[0])
        for row, (start, end) in enumerate(pairwise(vectors.weights.indptr)):
            for entry in range(start, end):
                other = theirs.get(int(vectors.weights.indices[entry]))
                if other is not None:
                    scores[row] += vectors.embeddings[entry].astype(np.float64) @ other
        return scores
    return vectors.toarray().astype(np.float64) @ query.toarray()[0].astype(np.float64)


def oracle(seqs, vectors, queries, k):
    """Answers by brute force: for each query numbers and settled scores above zero, best first, ties by number."""
    answers = []
    for row in range(queries.shape[0]):
        scores = settled(inner_products(vectors, take(queries, [row])))
        order = np.lexsort((seqs, -scores))[:k]
        order = order[scores[order] > 0]
        answers.append((seqs[order].tolist(), scores[order].tolist()))
    return answers


def answers(index, queries, k, mask=None):
    scores, seqs = index.search(queries, k, mask)
    assert scores.dtype == np.float64
    assert seqs.dtype == np.int64
    found = seqs >= 0
    assert np.isneginf(scores[~found]).all()
    assert (np.sort(~found, axis=1) == ~found).all(), "answers stand before the padding"
    return [(seqs[row][found[row]].tolist(), scores[row][found[row]].tolist()) for row in range(len(seqs))]


@pytest.fixture(params=["scipy", "numba"])
def kernel(request, monkeypatch):
    """Compute the sums with scipy, then with numba."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(kernel_module, "MANY", 0 if request.param == "numba" else 10**12)


@pytest.mark.parametrize("make", [sparse, embedded])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("k", [1, 7, 10_000])
def test_every_answer_is_that_of_brute_force(make, coarse, k, kernel):
    vectors, queries = make(3_000, coarse=coarse), make(20, seed=7, coarse=coarse)
    seqs = np.arange(3_000) * 2 + 5
    index = Stored(InvertedIndex(V, D if make is embedded else 0))
    index.add(seqs, vectors)
    # Term embeddings re-score candidates of the weights: all of them where k is large.
    if make is sparse or k == 10_000:
        assert answers(index, queries, k) == oracle(seqs, vectors, queries, k)
    alone = [answers(index, take(queries, [row]), k)[0] for row in range(5)]
    assert alone == answers(index, queries, k)[:5], "an answer does not depend on the batch"


def test_scores_are_those_of_scipy_over_a_larger_corpus(kernel):
    vectors = sparse(30_000, vocabulary=2_000, density=0.02)
    queries = sparse(10, seed=1, vocabulary=2_000, density=0.02)
    index = Stored(InvertedIndex(2_000))
    index.add(np.arange(30_000), vectors)
    expected = (queries @ vectors.T).toarray()
    scores, seqs = index.search(queries, 100)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, seqs, axis=1), rtol=1e-5)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :100], rtol=1e-5)


def test_scipy_numpy_and_numba_give_equal_bits(monkeypatch):
    pytest.importorskip("numba")
    vectors, queries = sparse(5_000, vocabulary=500), sparse(50, seed=3, vocabulary=500)
    index = Stored(InvertedIndex(500))
    index.add(np.arange(5_000), vectors)
    lists = index.segments[0].postings
    assert kernel_module._matvec() is not None
    for change in (("MANY", 0), ("_matvec", lambda: None)):
        sums = kernel_module.Sums()
        expected = [lists.scores(q.indices, q.data, sums) for q in map(queries.__getitem__, slices(50))]
        with monkeypatch.context() as patch:
            patch.setattr(kernel_module, *change)
            found = [lists.scores(q.indices, q.data, sums) for q in map(queries.__getitem__, slices(50))]
        np.testing.assert_array_equal(found, expected)


def slices(count):
    return [slice(row, row + 1) for row in range(count)]


@pytest.mark.parametrize("without_cache", [False, True])
def test_a_kernel_that_numba_cannot_compile_or_cache_is_done_without(monkeypatch, caplog, without_cache):
    numba = pytest.importorskip("numba")

    def refuse(*_, cache, **__):
        if without_cache and not cache:
            return lambda function: function
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(numba, "njit", refuse)
    kernel_module.compiled.cache_clear()
    try:
        assert kernel_module.compiled() is (kernel_module.accumulate if without_cache else None)
        assert ("scipy is used" in caplog.text) != without_cache
    finally:
        kernel_module.compiled.cache_clear()


@pytest.mark.parametrize("changed", [None, lambda *_: None, lambda size: None])
def test_a_private_function_of_scipy_that_has_changed_is_done_without(monkeypatch, changed):
    monkeypatch.setattr("scipy.sparse._sparsetools.csc_matvec", changed)
    kernel_module._matvec.cache_clear()
    try:
        assert kernel_module._matvec() is None
    finally:
        kernel_module._matvec.cache_clear()


def test_numba_is_loaded_once_it_has_paid_and_changes_no_answer(monkeypatch):
    vectors, queries = sparse(2_000), sparse(6, seed=3)
    index = Stored(InvertedIndex(V))
    index.add(np.arange(2_000), vectors)
    lists = index.segments[0].postings
    lengths = np.diff(lists.starts)
    of_each = [int(lengths[queries[[row]].indices].sum()) for row in range(6)]
    loaded = []
    monkeypatch.setattr(kernel_module, "compiled", lambda: loaded.append(1) or kernel_module.accumulate)
    monkeypatch.setattr(kernel_module, "MANY", sum(of_each[:3]))
    expected = oracle(np.arange(2_000), vectors, queries, 5)
    for row in range(6):
        assert answers(index, take(queries, [row]), 5) == expected[row : row + 1]
        assert len(loaded) == max(0, row - 2)


@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 1e-7, 0.5, 0.5000001, 1.0, 2.0]) | st.floats(-2, 3), max_size=900),
    k=st.integers(1, 60),
)
@settings(deadline=None, max_examples=80)
def test_the_best_of_many_scores(scores, k):
    values = np.array(scores, dtype=np.float64)
    clean = settled(values)
    expected = [i for i in sorted(range(len(values)), key=lambda i: (-clean[i], i)) if clean[i] > 0][:k]
    top, positions = top_k(values, k)
    assert positions.tolist() == expected
    assert top.tolist() == clean[expected].tolist()


def test_equal_scores_stand_in_order_of_insertion_across_segments():
    row = sparse(1, density=0.3)
    index = Stored(InvertedIndex(V))
    for block in range(8):
        index.add(np.arange(block * 500, block * 500 + 2 ** (8 - block)), join([row] * 2 ** (8 - block)))
    assert len(index.segments) > 3
    order = index.seqs.tolist()
    assert answers(index, row, 10_000)[0][0] == order
    assert answers(index, row, 300)[0][0] == order[:300]


def test_what_scores_nothing_is_no_answer():
    index = Stored(InvertedIndex(4))
    assert answers(index, csr_array(np.ones((2, 4))), 3) == [([], []), ([], [])]
    index.add([1, 2, 3], csr_array([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]]))
    queries = csr_array([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 5, 0], [1, 1, 0, 0], [0, -1, 0, 0], [0, 1e-9, 0, 0]])
    assert answers(index, queries, 10) == [
        ([1], [1.0]),
        ([], []),
        ([], []),
        ([3, 1], [2.0, 1.0]),
        ([], []),
        ([3], [2e-9]),
    ]
    assert index.count == 3
    scores, seqs = index.search(queries[:0], 10)
    assert scores.shape == seqs.shape == (0, 0)


@pytest.mark.parametrize("make", [sparse, embedded])
def test_a_mask_says_which_documents_may_be_found(make, kernel):
    vectors, queries = make(900), make(6, seed=2)
    seqs = np.arange(900)
    index = Stored(InvertedIndex(V, D if make is embedded else 0))
    index.add(seqs[:600], take(vectors, seqs[:600]))
    index.add(seqs[600:], take(vectors, seqs[600:]))
    index.remove(seqs[::7])
    live = seqs[seqs % 7 > 0]
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = rng.random(len(live)) < share
        chosen = live[mask]
        assert answers(index, queries, 900, mask) == oracle(chosen, take(vectors, chosen), queries, 900)
    for wrong in (np.ones(900, dtype=bool), np.ones(len(live)), "all"):
        with pytest.raises(InputError, match="one boolean for each of 771 documents"):
            index.search(queries, 5, wrong)


def test_candidates_are_many_more_than_answers(monkeypatch):
    """The first stage orders by weights; what term embeddings think of its candidates decides."""
    vectors, queries = embedded(4_000, density=0.2), embedded(10, seed=5, density=0.2)
    seqs = np.arange(4_000)
    index = Stored(InvertedIndex(V, D))
    index.add(seqs[:2_500], vectors.take(seqs[:2_500]))
    index.add(seqs[2_500:], vectors.take(seqs[2_500:]))
    for k in (5, 50):
        depth = max(inverted.LEAST_CANDIDATES, inverted.CANDIDATES * k)
        for row, found in enumerate(answers(index, queries, k)):
            query = queries.take([row])
            first = oracle(seqs, vectors.weights, query.weights, depth)[0][0]
            assert found == oracle(np.array(first), vectors.take(first), query, k)[0]


def test_segments_are_merged_and_rewritten(monkeypatch):
    monkeypatch.setattr(inverted, "LARGEST", 400)
    vectors, queries = sparse(1_000), sparse(5, seed=4)
    seqs = np.arange(1_000)
    index = Stored(InvertedIndex(V))
    sizes = []
    for start in range(0, 1_000, 10):
        index.add(seqs[start : start + 10], vectors[start : start + 10])
        sizes.append([segment.size for segment in index.segments])
    assert max(map(len, sizes)) <= 9
    assert max(map(max, sizes)) <= 400
    assert all(sum(found) == 10 * (row + 1) for row, found in enumerate(sizes))
    before = [id(segment) for segment in index.segments]
    assert index.remove(seqs[:30]) == 30
    assert index.remove([3, 4, 5_000]) == 0
    assert index.segments[0].size == index.segments[0].count + 30, "tombstones"
    assert [id(segment) for segment in index.segments[1:]] == before[1:]
    index.remove(seqs[:100])
    assert index.segments[0].size == index.segments[0].count, "more than a fifth was dead"
    live = seqs[100:]
    assert index.count == len(live)
    assert answers(index, queries, 50) == oracle(live, vectors[live], queries, 50)
    index.remove(live[: -len(live) // 2])
    assert index.count == 450
    live = live[-len(live) // 2 :]
    assert index.seqs.tolist() == live.tolist()
    assert answers(index, queries, 50) == oracle(live, vectors[live], queries, 50)
    index.remove(live)
    assert index.segments == ()
    assert index.count == 0


@pytest.mark.parametrize("make", [sparse, embedded])
def test_sync_follows_the_store(make, monkeypatch, caplog):
    monkeypatch.setattr(inverted, "LARGEST", 300)
    vectors, queries = make(1_000), make(5, seed=4)

    def after(live, chunk=70):
        def read(seq):
            rest = live[live > seq]
            for start in range(0, len(rest), chunk):
                yield rest[start : start + chunk], take(vectors, rest[start : start + chunk])

        return read

    index = InvertedIndex(V, D if make is embedded else 0)
    for live in (
        np.arange(400),
        np.arange(700),
        np.setdiff1d(np.arange(900), [3, 5, 650]),
        np.arange(601, 1_000, 2),
        np.empty(0, dtype=np.int64),
        np.arange(10, 900),
    ):
        index.sync(live, after(live))
        assert index.seqs.tolist() == live.tolist()
        expected = oracle(live, take(vectors, live), queries, 1_000) if len(live) else [([], [])] * 5
        assert answers(index, queries, 1_000) == expected
    assert "built again" not in caplog.text
    index.sync(np.arange(900), after(np.arange(900)))
    assert "lacks vectors that the store has had for longer" in caplog.text
    assert index.seqs.tolist() == list(range(900))
    with pytest.raises(StoreError, match="document number 950 has no vector"):
        index.sync(np.arange(960), after(np.arange(950)))


class IndexMachine(RuleBasedStateMachine):
    """Random operations, against a dictionary of number to vector."""

    size = 0

    @initialize()
    def start(self):
        self.index = Stored(InvertedIndex(V, self.size))
        self.model = {}
        self.next = 0
        self.source = embedded(400, coarse=True) if self.size else sparse(400, coarse=True)
        self.queries = embedded(3, seed=9, density=0.3) if self.size else sparse(3, seed=9, density=0.3)

    @rule(rows=st.lists(st.integers(0, 399), min_size=1, max_size=30))
    def add(self, rows):
        seqs = np.arange(self.next, self.next + len(rows))
        self.index.add(seqs, take(self.source, rows))
        self.model |= dict(zip(seqs.tolist(), rows, strict=True))
        self.next += len(rows)

    @rule(data=st.data())
    def remove(self, data):
        chosen = data.draw(st.lists(st.sampled_from([-1, *self.model]), max_size=40))
        assert self.index.remove(chosen) == len({*chosen} & {*self.model})
        for seq in chosen:
            self.model.pop(seq, None)

    @rule(k=st.integers(1, 40))
    def search(self, k):
        seqs = np.array(list(self.model), dtype=np.int64)
        if self.size or not len(seqs):
            k = 500
        expected = oracle(seqs, take(self.source, list(self.model.values())), self.queries, k)
        assert answers(self.index, self.queries, k) == expected

    @invariant()
    def count(self):
        if hasattr(self, "index"):
            assert self.index.seqs.tolist() == list(self.model)
            dead = [segment.size - segment.count for segment in self.index.segments]
            assert all(d <= 0.2 * s.size for d, s in zip(dead, self.index.segments, strict=True))


class EmbeddedMachine(IndexMachine):
    size = D


IndexMachine.TestCase.settings = EmbeddedMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None
)
TestIndexMachine = IndexMachine.TestCase
TestEmbeddedMachine = EmbeddedMachine.TestCase


def test_bad_input_names_the_row_and_changes_nothing():
    index = Stored(InvertedIndex(V))
    index.add([4, 5], sparse(2))
    bad = sparse(3)
    bad.data[bad.indptr[2]] = np.inf
    for seqs, vectors, error, named in (
        ([6, 7, 8], bad, InputError, "the vector of document 2 is not finite"),
        ([6], sparse(1, vocabulary=61), MismatchError, "a vocabulary of 60 terms"),
        ([6], np.ones((1, V)), InputError, "document vectors are 'dense'"),
        ([6], embedded(1), InputError, "document vectors are 'sparse-embed'"),
    ):
        with pytest.raises(error, match=named):
            index.add(seqs, vectors)
        assert index.seqs.tolist() == [4, 5]
    for queries, k, error, named in (
        (sparse(1), 0, InputError, "k=0"),
        (sparse(1, vocabulary=59), 1, MismatchError, r"query vectors have shape \(1, 59\)"),
        (bad, 1, InputError, "the vector of query 2 is not finite"),
        (np.ones((1, V)), 1, InputError, "query vectors are 'dense'"),
    ):
        with pytest.raises(error, match=named):
            index.search(queries, k)
    for vocabulary, size in ((0, 0), (5, -1)):
        with pytest.raises(ConfigError, match="vocabulary="):
            InvertedIndex(vocabulary, size)
    other = Stored(InvertedIndex(V, D + 1))
    with pytest.raises(MismatchError, match="4 dimensions, not 5"):
        other.add([1], embedded(1))
    index.add([], sparse(0))
    assert index.count == 2


def test_queries_in_any_sparse_form():
    index, query = Stored(InvertedIndex(V)), sparse(3, seed=8)
    index.add(np.arange(50), sparse(50))
    expected = answers(index, query, 5)
    doubled = csr_array(
        (np.repeat(query.data / 2, 2), np.repeat(query.indices, 2), query.indptr * 2), shape=query.shape
    )
    for form in (query.tocoo(), query.tocsc(), query.astype(np.float64), doubled):
        assert answers(index, form, 5) == expected
    assert doubled.nnz == 2 * query.nnz, "the caller's matrix is as it was"


def test_threads_may_search_while_one_changes(kernel):
    vectors, queries = sparse(6_000), sparse(4, seed=3)
    index = Stored(InvertedIndex(V))
    index.add(np.arange(3_000), vectors[:3_000])
    expected = {tuple(answers(index, queries, 5)[0][0])}
    failures, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                assert all(len(seqs) == 5 for seqs, _ in answers(index, queries, 5))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for start in range(3_000, 6_000, 100):
        index.add(np.arange(start, start + 100), vectors[start : start + 100])
        index.remove(np.arange(start - 3_000, start - 2_950))
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert expected
    live = index.seqs
    assert answers(index, queries, 5) == oracle(live, vectors[live], queries, 5)


def test_weights_of_both_kinds():
    assert weights_of(embedded(2)).shape == weights_of(sparse(2)).shape == (2, V)


def test_a_large_add_makes_several_segments(monkeypatch):
    monkeypatch.setattr(inverted, "LARGEST", 64)
    vectors, queries = sparse(150), sparse(3, seed=2)
    index = Stored(InvertedIndex(V))
    index.add(np.arange(150), vectors)
    assert [segment.size for segment in index.segments] == [64, 64, 22]
    assert answers(index, queries, 20) == oracle(np.arange(150), vectors, queries, 20)


def test_very_large_scores_are_ranked_too():
    values = np.full(1_000, 3e11)
    values[::7] += 0.001
    top, positions = top_k(values, 200)
    expected = sorted(range(1_000), key=lambda i: (-np.round(values[i], 6), i))[:200]
    assert positions.tolist() == expected
    assert top[0] == np.round(values[0], 6)
