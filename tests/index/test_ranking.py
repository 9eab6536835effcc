"""One rule of ranking in every index: neither lengths nor batches, k or kinds change an order, and ties stand still."""

import functools

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from cderetrieval import Retriever
from cderetrieval.errors import ConfigError
from cderetrieval.index import manifest
from cderetrieval.index.exact import exact_search
from cderetrieval.index.faiss import FaissIndex
from cderetrieval.index.inverted import InvertedIndex
from cderetrieval.index.lexical import LexicalIndex
from cderetrieval.index.scores import settled, shown
from cderetrieval.models.bm25 import BM25
from cderetrieval.retrieval.fusion import Fusion, PartRanking, fuse
from cderetrieval.testing import HashEncoder, WordEncoder
from cderetrieval.types import Hits, TermEmbeddings

from .stored import Stored

KINDS = [
    "Flat",
    "SQ8",
    "SQfp16",
    "HNSW16",
    "HNSW16,SQ8",
    "IVF4,Flat",
    "IVF4,SQ8",
    "IVF4_HNSW8,Flat",
    "IVF4,RaBitQ,Refine(SQ8)",
    "HNSW16,SQ8,RFlat",
    "PCA8,Flat",
    "RR,HNSW16",
]
LENGTHS = [1e-30, 2.7e-13, 1e-4, 0.03, 7.0, 1e6, 3.3e19, 1e30]


def drawn(n, dimension=16, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(kind, matrix):
    index = Stored(FaissIndex(matrix.shape[1], kind))
    index.add(np.arange(len(matrix)), matrix)
    return index


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_of_vectors_and_queries_change_no_ranking(length):
    matrix, queries = drawn(400), drawn(25, seed=1)
    products = queries.astype(np.float64) @ matrix.T.astype(np.float64)
    best = -np.sort(-products, axis=1)
    size = np.float32(length)
    for documents, asked in ((size * matrix, queries), (matrix, size * queries), (size * matrix, size * queries)):
        index = filled("Flat", documents)
        every = index.search(asked, 400)[1]
        assert (np.sort(every, axis=1) == np.arange(400)).all()
        # As good as float32 knows vectors of that length.
        np.testing.assert_allclose(np.take_along_axis(products, every, axis=1), best, atol=2e-6)
        np.testing.assert_array_equal(every[:, :10], np.argsort(-products, axis=1, kind="stable")[:, :10])
        for k in (1, 10, 400):
            np.testing.assert_array_equal(index.search(asked, k)[1], every[:, :k])
            np.testing.assert_array_equal(index.search(asked[:2], k)[1], every[:2, :k])
            scores, found = exact_search(documents, asked, k)
            np.testing.assert_array_equal(found, every[:, :k])
            assert np.isfinite(scores).all()
            assert scores.any(axis=1).all()


@functools.cache
def usual_recall(kind):
    """Recall of vectors of length 1, and the truth."""
    matrix, queries = drawn(400), drawn(25, seed=1)
    truth, usual = exact_search(matrix, queries, 10)[1], filled(kind, matrix).search(queries, 10)[1]
    return np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(usual, truth, strict=True)]), truth


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_the_nearest_of_vectors_of_any_length(kind, length):
    matrix, queries = drawn(400), drawn(25, seed=1)
    least, truth = usual_recall(kind)
    scores, found = filled(kind, np.float32(length) * matrix).search(queries / np.float32(length), 10)
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)]) >= least - 0.05
    assert (np.diff(scores, axis=1) <= 0).all()
    near = np.einsum("qkd,qd->qk", matrix[found].astype(np.float64), queries.astype(np.float64))
    np.testing.assert_allclose(scores, near, atol=0.7 if "PCA" in kind else 0.03)


@pytest.mark.parametrize("length", [1e-18, 1e-4, 1.0, 1e18])
def test_copies_stand_in_order_of_insertion_at_any_length_k_and_batch(length):
    matrix = np.float32(length) * np.tile(drawn(7), (60, 1))
    matrix[100:200] = matrix[100]
    index = filled("Flat", matrix)
    for size in (1, 3, 30):
        queries = np.float32(length) * drawn(30, seed=1)[:size]
        for k in (1, 5, 200, 420):
            scores, found = index.search(queries, k)
            for row in range(size):
                order = np.lexsort((found[row], -scores[row]))
                np.testing.assert_array_equal(order, np.arange(k))
            np.testing.assert_array_equal(found, index.search(queries, 420)[1][:, :k])
            np.testing.assert_array_equal(found, exact_search(matrix, queries, k)[1])


@pytest.mark.parametrize("kind", ["HNSW16", "IVF4,SQ8"])
def test_an_index_of_long_vectors_is_opened_and_grows_as_it_was_saved(kind, tmp_path):
    matrix, queries = 50 * drawn(400), 50 * drawn(5, seed=1)
    index = filled(kind, matrix[:390])
    assert index.build.factory == kind
    digest = manifest.save(index, tmp_path, epoch=0, generation=1, fingerprint="a")
    opened = FaissIndex(16, kind)
    assert manifest.load(opened, tmp_path, epoch=0, fingerprint="a", digest=digest)
    opened = Stored(opened)
    opened.add(np.arange(390, 400), matrix[390:])
    scores, found = opened.search(queries, 400)
    truth, _ = exact_search(matrix, queries, 400)
    np.testing.assert_allclose(scores[:, :100], truth[:, :100], atol=150)
    assert np.mean(np.sort(found, axis=1) == np.arange(400)) > 0.95


def test_vectors_too_long_for_an_approximate_index_turn_it_into_an_exact_one(caplog):
    matrix, queries = drawn(400), drawn(5, seed=1)
    grown = np.concatenate([matrix, np.float32(1e25) * matrix[:3]])
    numbers = np.arange(403)
    index = FaissIndex(16, "HNSW16")
    for count in (400, 403, 403):
        index.sync(numbers[:count], lambda seq: iter([(numbers[numbers > seq], grown[numbers > seq])]))
    assert index.build.factory == "Flat"
    np.testing.assert_array_equal(index.search(queries, 9)[1], exact_search(grown, queries, 9)[1])


def test_float_noise_ties_and_what_is_more_than_noise_does_not():
    one = np.array([[0.6, 0.8, 0], [0.8, 0.6, 0]], dtype=np.float32)
    noisy = np.concatenate([one, np.nextafter(one, np.float32(2))])
    for length in (1e-20, 1.0):
        assert filled("Flat", np.float32(length) * noisy).search([[1, 1, 0]], 4)[1].tolist() == [[0, 1, 2, 3]]
    orthogonal = np.array([[1, 1, 1], [1, 1, 1.00001], [1, 1, 0.99999]], dtype=np.float32)
    assert filled("Flat", 1e-15 * orthogonal).search([[1, 1, -2]], 3)[1].tolist() == [[2, 0, 1]]
    apart = np.array([[1e7, 1], [1e7, 2], [3, 1.5]], dtype=np.float32)
    assert filled("Flat", apart).search([[0, 1]], 3)[1].tolist() == [[1, 2, 0]]


def test_one_long_vector_does_not_hide_what_others_say():
    matrix, queries = drawn(300), drawn(3, seed=1)
    matrix[7] *= np.float32(1e25)
    expected = np.argsort(-(queries.astype(np.float64) @ matrix.T.astype(np.float64)), axis=1, kind="stable")
    for kind in ("Flat", "HNSW16", "IVF4,Flat"):
        np.testing.assert_array_equal(filled(kind, matrix).search(queries, 10)[1], expected[:, :10])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 300])
@pytest.mark.parametrize("make", [drawn, lambda n: np.tile(drawn(1), (n, 1)), lambda n: np.zeros((n, 16), np.float32)])
def test_few_equal_and_empty_vectors_in_every_kind(kind, count, make, tmp_path):
    matrix = make(count)
    source = [np.arange(count), matrix]

    def after(seq):
        yield source[0][source[0] > seq], source[1][source[0] > seq]

    index = FaissIndex(16, kind)
    index.sync(np.arange(count), after)
    queries = np.concatenate([drawn(2, seed=5), np.zeros((1, 16), dtype=np.float32)])
    for k in (1, count, count + 5):
        scores, found = index.search(queries, k)
        assert found.shape == (3, min(k, count))
        assert not np.isnan(scores).any()
        if index.build.factory == "Flat":
            np.testing.assert_array_equal(found, exact_search(matrix, queries, k)[1])
            if make is not drawn:
                assert found.tolist() == [list(range(min(k, count)))] * 3
    digest = manifest.save(index, tmp_path, epoch=0, generation=1, fingerprint="a")
    opened = FaissIndex(16, kind)
    assert manifest.load(opened, tmp_path, epoch=0, fingerprint="a", digest=digest)
    np.testing.assert_array_equal(opened.search(queries, 1)[1], index.search(queries, 1)[1])
    for left in (1, 0):
        opened.sync(np.arange(left), after)
        assert opened.search(queries, 4)[1].tolist() == [[0][:left]] * 3


@pytest.mark.parametrize(
    "factory",
    [
        "IDMap,Flat",
        "IDMap2,Flat",
        "Flat,IDMap",
        "IDMap,HNSW16",
        "IVF4,Flat,IDMap",
        "Refine",
        "Refine(Flat)",
        "LSH",
        "Binary",
        "BFlat",
        "flat",
        " Flat",
        "Flat ",
        "",
        "PQ4",
        "PQ5",
        "PQ4x4fs",
        "IVF4,PQ4x4fs",
        "IVF4,PQ4x16",
        "IVF4,RQ4x4",
        "NSG16",
        "HNSW0",
        "HNSW1",
        "HNSW99999999",
        "HNSW9999",
        "IVF0,Flat",
        "IVF99999999999,Flat",
        f"IVF{'9' * 5_000},Flat",
        "PCA64,Flat",
        "Pad99999999,Flat",
        "ZnLattice2x4_4",
        "\udc80",
        7,
        None,
    ],
)
def test_a_kind_that_cannot_do_it_all_is_refused_before_anything_is_stored(factory, tmp_path):
    with pytest.raises(ConfigError, match="use 'auto'"):
        FaissIndex(16, factory)
    encoder = HashEncoder()
    with pytest.raises(ConfigError, match="use 'auto'"):
        Retriever(encoder, index=factory if factory != "PCA64,Flat" else "PCA999,Flat", path=tmp_path).add(
            ["one", "two"]
        )
    with Retriever(encoder, path=tmp_path) as retriever:
        retriever.add(["one", "two"])
        assert len(retriever) == 2


def test_a_kind_that_was_taken_before_it_was_tried_is_searched_all_the_same(tmp_path, caplog):
    with Retriever(HashEncoder(), path=tmp_path) as retriever:
        retriever.add(["one", "two"])
        settings = retriever.collection.get_setting("retriever")
        retriever.collection.set_setting("retriever", {**settings, "index": "IDMap,Flat"})
    with Retriever.load(tmp_path, model=HashEncoder()) as opened:
        assert opened("one", k=1)[0][0]["id"] == 0
        opened.add(["three"])
        assert opened("three", k=1)[0][0]["id"] == 2
    assert "index='auto' is used for this index: factory='IDMap,Flat'" in caplog.text


@pytest.mark.parametrize("length", [1e-30, 1e-4, 0.7, 1e12, 1e30])
def test_weights_of_any_size_find_and_rank_alike(length):
    rng = np.random.default_rng(0)
    made = [random_array((n, 40), density=0.2, format="csr", dtype=np.float32, rng=rng) for n in (500, 20)]
    vectors, queries = map(csr_array, made)
    usual = Stored(InvertedIndex(40))
    usual.add(np.arange(500), vectors)
    expected = usual.search(queries, 500)[1]
    product = queries.toarray().astype(np.float64) @ vectors.toarray().T.astype(np.float64)
    assert ((expected >= 0).sum(axis=1) == (product > 0).sum(axis=1)).all()
    for documents, asked in ((vectors * length, queries), (vectors, queries * length), (vectors * length,) * 2):
        index = Stored(InvertedIndex(40))
        index.add(np.arange(500), documents)
        if asked is documents:
            asked = queries * length
        np.testing.assert_array_equal(index.search(asked, 500)[1], expected)
        np.testing.assert_array_equal(index.search(asked, 7)[1], expected[:, :7])


def test_small_term_embeddings_are_ranked_too():
    weights = csr_array(np.array([[1, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32))
    embeddings = np.array([[1], [1], [3], [2.5], [3]], dtype=np.float32) * np.float32(1e-3)
    index = Stored(InvertedIndex(2, 1))
    index.add(np.arange(4), TermEmbeddings(weights, embeddings))
    query = TermEmbeddings(csr_array(np.array([[1, 1]], dtype=np.float32)), np.full((2, 1), 1e-9, dtype=np.float32))
    scores, found = index.search(query, 4)
    assert found.tolist() == [[1, 3, 2, 0]]
    assert (scores > 0).all()


def test_a_word_that_nearly_all_documents_hold_still_ranks_them():
    texts = ["owl " * (1 + i % 7) + "bee " * (i % 5) for i in range(30_000)]
    index = LexicalIndex(BM25(None))
    index.sync(np.arange(30_000), lambda after: iter([(np.arange(30_000), texts)]))
    _, found = index.search([["owl"]], 50)
    raw = index.weights().get_scores(["owl"]).astype(np.float64)
    assert raw.max() < 1e-4
    assert found[0].tolist() == np.argsort(-raw, kind="stable")[:50].tolist()
    assert len(set(settled(raw).tolist())) > 30


def test_what_is_shown_keeps_six_decimals_and_loses_nothing_small():
    assert shown(np.float32([0.83, 0.1234564, -0.5, 0, 12.25])).tolist() == [0.83, 0.123456, -0.5, 0.0, 12.25]
    encoder = WordEncoder()
    vectors = encoder.encode_document(["owl bee", "owl"])
    retriever = Retriever(encoder).add(["owl bee", "owl"], vectors=vectors * np.float32(1e-9))
    (hits,) = retriever("owl")
    assert len(hits) == 2
    assert all(0 < hit["similarity"] < 1e-6 for hit in hits)
    names = drawn(3)
    dense = Retriever(HashEncoder()).add(
        ["a", "b", "c"], vectors=np.pad(names * np.float32(1e-8), ((0, 0), (0, HashEncoder().dimension - 16)))
    )
    (hits,) = dense(np.pad(names[:1], ((0, 0), (0, HashEncoder().dimension - 16))), k=3)
    assert hits[0] == {"id": 0, "similarity": pytest.approx(1e-8, rel=1e-4)}


def test_a_run_file_keeps_small_scores(tmp_path):
    Hits([[{"id": "a", "similarity": 3.2e-9}, {"id": "b", "similarity": 0.5}]], ["q"]).to_trec(tmp_path / "run")
    assert [line.split()[4] for line in (tmp_path / "run").read_text().splitlines()] == ["3.2e-09", "0.500000"]


@pytest.mark.parametrize(
    "fusion",
    [
        Fusion(rrf_k=10_000_000),
        Fusion(weights=(1e-9, 1e-9)),
        Fusion("weighted", (1e-12, 1e-12)),
        Fusion("weighted", (1e9, 1e9), "z-score"),
    ],
)
def test_fused_scores_of_any_size_are_ranked(fusion):
    order = np.random.default_rng(0).permutation(50)
    ranking = PartRanking(np.linspace(1, 0.5, 50)[None], order[None])
    ((scores, rows),) = fuse([ranking, ranking], fusion, 50)
    assert rows.tolist() == order.tolist()
    assert (np.diff(scores) <= 0).all()


def test_fused_copies_stand_in_order_of_insertion():
    scores = np.array([[3e-9, 3e-9, 1e-9]])
    ranking = PartRanking(scores, np.array([[4, 7, 2]]), 0.0)
    ((_, rows),) = fuse([ranking, ranking], Fusion("weighted"), 3)
    assert rows.tolist() == [4, 7, 2]
