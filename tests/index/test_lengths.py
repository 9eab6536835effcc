"""Dense vectors of very different lengths, compared by inner product: what models that do not normalise give.

A few long vectors are then near to every query, and lists, which say only a direction, have to be looked at more
widely. What was measured at the build must hold for other queries, and what is not reached must be said.
"""

import numpy as np
import pytest

from cderetrieval import Retriever
from cderetrieval.index.exact import exact_search
from cderetrieval.index.faiss import FaissIndex

from .stored import Stored

KINDS = ["SQfp16", "SQ8", "HNSW16,Flat", "HNSW16,SQ8", "IVF16,Flat", "IVF16,SQ8"]


class TextIsNumber:
    """An encoder whose texts are numbers of rows: vectors of any lengths, compared by inner product."""

    kind, dimension, fingerprint = "dense", 64, "rows"

    def __init__(self, documents, queries):
        self.documents, self.queries = documents, queries

    def encode_query(self, texts, *, show_progress=False):
        return self.queries[[int(text) for text in texts]]

    def encode_document(self, texts, *, show_progress=False):
        return self.documents[[int(text) for text in texts]]


@pytest.fixture(scope="module")
def drawn(draw_clustered):
    """2,000 vectors of 64 dimensions in 60 clusters, the longest 600 times as long as the shortest; 100 queries."""
    rng = np.random.default_rng(0)
    of_length_1 = draw_clustered(rng, 64)

    def draw(n):
        return (of_length_1(n) * np.exp(rng.standard_normal((n, 1)))).astype(np.float32)

    return draw(2_000), draw(100)


def recall(found, truth):
    return np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, truth, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_recall_that_was_measured_holds_for_queries(drawn, kind):
    documents, queries = drawn
    index = Stored(FaissIndex(64, kind))
    index.add(np.arange(len(documents)), documents)
    scores, found = index.search(queries, 10)
    _, truth = exact_search(documents, queries, 10)
    assert index.build.recall >= 0.95
    assert recall(found, truth) >= index.build.recall - 0.03
    products = np.einsum("qkd,qd->qk", documents[found], queries)
    np.testing.assert_allclose(scores, products, atol=0.03 * products.max(), err_msg="codes of 8 bits, at worst")


def test_one_bit_a_dimension_is_measured_too(drawn, caplog):
    documents, queries = drawn
    index = Stored(FaissIndex(64, "IVF16,RaBitQ,Refine(SQ8)"))
    index.add(np.arange(len(documents)), documents)
    _, truth = exact_search(documents, queries, 10)
    assert recall(index.search(queries, 10)[1], truth) == pytest.approx(index.build.recall, abs=0.03)
    assert index.build.recall >= 0.95 or "the target is 0.95" in caplog.text


def test_flat_is_exact(drawn):
    documents, queries = drawn
    index = Stored(FaissIndex(64, "Flat"))
    index.add(np.arange(len(documents)), documents)
    for count in (1, len(queries)):
        scores, truth = exact_search(documents, queries[:count], 10)
        own, found = index.search(queries[:count], 10)
        np.testing.assert_array_equal(found, truth)
        np.testing.assert_array_equal(own, scores)


@pytest.mark.parametrize("kind", ["auto", "IVF16,Flat", "HNSW16,Flat"])
def test_a_retriever_answers_by_inner_product(drawn, kind, tmp_path):
    documents, queries = drawn
    encoder = TextIsNumber(documents, queries)
    retriever = Retriever(encoder, index=kind, path=tmp_path)
    retriever.add([{"id": i, "text": str(i)} for i in range(len(documents))], show_progress=False)
    asked = [str(i) for i in range(len(queries))]
    _, truth = exact_search(documents, queries, 10)

    def answers(opened):
        hits = opened(asked, k=10)
        return np.array([[hit["id"] for hit in ranking] for ranking in hits]), hits

    found, hits = answers(retriever)
    assert recall(found, truth) >= (1.0 if kind == "auto" else 0.92)
    for ranking, query in zip(hits, queries, strict=True):
        for hit in ranking:
            assert hit["similarity"] == pytest.approx(float(documents[hit["id"]] @ query), rel=1e-4, abs=1e-4)
    longest = int(np.linalg.norm(documents, axis=1).argmax())
    retriever.remove(longest)
    assert longest not in answers(retriever)[0]
    before = answers(retriever)[0]
    retriever.close()
    with Retriever.load(tmp_path, model=encoder) as opened:
        np.testing.assert_array_equal(answers(opened)[0], before)
