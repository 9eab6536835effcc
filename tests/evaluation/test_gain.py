"""Contexts of the corpus and of the document, each against its controls, on one's own documents."""

import random

import numpy as np
import pytest

from cderetrieval import DocumentContext, Retriever, context_gain, load
from cderetrieval.errors import InputError, ModelError
from cderetrieval.testing import HashEncoder, tiny_dense_directory, tiny_model, tiny_splade

QUIET = {"show_progress": False, "seeds": 1}
ANIMALS = ["owl", "bee", "fox", "cat", "dog", "elk", "ant", "cod"]


def text_of(number, sentences):
    draw = random.Random(number)
    return " ".join(f"The {draw.choice(ANIMALS)} saw {draw.choice(ANIMALS)} {i}." for i in range(sentences))


DOCUMENTS = [{"id": i, "title": f"Tale {i}", "text": text_of(i, 1 + 9 * (i % 3))} for i in range(18)]
QUERIES = {f"q{i}": text_of(i, 20)[-40:] for i in range(9)}
QRELS = {f"q{i}": {i: 1} for i in range(9)}


def test_corpus_and_document_each_with_its_control():
    found = context_gain(DOCUMENTS, QUERIES, QRELS, tiny_model(), context_size=4, **QUIET)
    frame = found.to_frame().set_index(["context", "document"])
    assert list(frame.index) == [(c, d) for c in ("null", "random", "own") for d in ("none", "own", "another")]
    assert found.long == 12
    own = frame.loc[("own", "own"), "ndcg@10"]
    for cell, row in frame.iterrows():
        assert np.isnan(row["gain"]) == (cell == ("own", "own"))
        if cell != ("own", "own"):
            assert row["gain"] == pytest.approx(own - row["ndcg@10"])
            assert row["gain_low"] <= row["gain"] <= row["gain_high"]
    assert found.gain().rows[0]["difference"] == frame.loc[("null", "own"), "gain"]
    assert found.gain(document="another").rows[0]["difference"] == frame.loc[("own", "another"), "gain"]
    assert "18 documents (12 of them long), 9 given queries" in str(found)
    assert found.reason in str(found)
    with pytest.raises(InputError, match="was not measured"):
        found.gain("centre")


def test_a_plain_model_has_documents_alone():
    dense = load(tiny_dense_directory())
    found = context_gain(DOCUMENTS, QUERIES, QRELS, dense, document_context=DocumentContext(prefix=8), **QUIET)
    frame = found.to_frame()
    assert frame["document"].tolist() == ["none", "own", "another"]
    assert set(frame["context"]) == {"none"}
    assert found.gain().a.endswith("+passages")
    # The same numbers as of the retriever that is recommended.
    with Retriever(dense, document_context=DocumentContext(prefix=8)) as retriever:
        retriever.add(DOCUMENTS, show_progress=False)
        ranks = [
            [hit["id"] for hit in hits].index(i) + 1 for i, hits in enumerate(retriever(list(QUERIES.values()), k=18))
        ]
    ndcg = np.mean([1 / np.log2(rank + 1) if rank <= 10 else 0 for rank in ranks])
    assert frame.set_index("document").loc["own", "ndcg@10"] == pytest.approx(ndcg)


def test_what_is_recommended_has_a_reason(monkeypatch):
    dense = load(tiny_dense_directory())
    found = context_gain(DOCUMENTS, QUERIES, QRELS, dense, **QUIET)
    rows = {}
    monkeypatch.setattr(type(found), "_over", lambda self, document: rows[document])

    def row(low, difference, high):
        return {"low": low / 100, "difference": difference / 100, "high": high / 100}

    rows.update(none=row(1, 2, 3), another=row(0.5, 1, 2))
    assert found.recommended == "auto"
    assert found.reason == (
        "document_context='auto': the document's own context gains +2.0 (1.0 to 3.0) points over none, and "
        "+1.0 (0.5 to 2.0) points over another document's."
    )
    rows.update(another=row(-1, 0, 1))
    assert found.reason.endswith("over another document's: it need not be the own one.")
    rows.update(none=row(-1, 0, 1))
    assert found.recommended == "auto"
    assert "no difference can be shown" in found.reason
    rows.update(none=row(-3, -2, -1))
    assert found.recommended == "none"
    assert found.reason.startswith("document_context='none'")


def test_generated_queries():
    documents = [{"id": i, "text": f"Words of the {ANIMALS[i]}. {text_of(i, 12)}"} for i in range(8)]
    found = context_gain(documents, model=load(tiny_dense_directory()), passages=20, n_queries=5, **QUIET)
    assert found.generated
    assert found.long == 8
    assert "5 generated queries" in str(found)


def test_nothing_to_measure():
    short = [{"id": i, "text": f"owl {i}"} for i in range(9)]
    found = context_gain(short, QUERIES, QRELS, tiny_model(), context_size=4, **QUIET)
    assert "document" not in found.to_frame()
    assert "No document is longer" in str(found)
    dense = load(tiny_dense_directory())
    for documents, model in ((short, dense), (DOCUMENTS, HashEncoder()), (DOCUMENTS, tiny_splade())):
        with pytest.raises(ModelError, match="takes no context"):
            context_gain(documents, QUERIES, QRELS, model, **QUIET)
    one = [*short[1:], {"id": 0, "text": text_of(0, 30)}]
    found = context_gain(one, QUERIES, QRELS, dense, **QUIET)
    assert found.to_frame()["document"].tolist() == ["none", "own"]  # there is no other
