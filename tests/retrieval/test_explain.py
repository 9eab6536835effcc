"""Shares add up to the similarity, and name what they should."""

import numpy as np
import pytest

from cderetrieval import DenseEncoder, DocumentContext, Retriever, StatisticsConfig, StatisticsModel
from cderetrieval.errors import InputError
from cderetrieval.models.document_context import NONE, Units, encode_passages, shortening
from cderetrieval.retrieval.explain import _scale
from cderetrieval.retrieval.fusion import Fusion
from cderetrieval.testing import WordEncoder, tiny_dense_directory, tiny_model, tiny_sparse_embed, tiny_splade

LONG = "The owl hunts at night. Bees make honey from nectar. A storm broke the old mast. The sails were torn."
DOCUMENTS = [
    {"id": "tale", "title": "An owl", "text": LONG, "year": 2020},
    {"id": "untitled", "title": "", "text": LONG[::-1] + ". " + LONG, "year": 2021},
    {"id": "short", "title": "Bees", "text": "make honey", "year": 2021},
    {"id": 4, "title": "Mast", "text": "a storm", "year": 2021},
]
QUERY = "bees and honey"


def statistics():
    config = StatisticsConfig(context_size=4, term_dimensions=65, term_weight=0.5)
    return StatisticsModel(DenseEncoder(tiny_dense_directory()), config)


MODELS = {
    "dense": lambda: DenseEncoder(tiny_dense_directory()),
    "contextual": tiny_model,
    "statistics": statistics,
    "sparse": tiny_splade,
    "sparse-embed": tiny_sparse_embed,
    "words": WordEncoder,
    "bm25": lambda: "bm25",
}
FORMS = [DocumentContext(), DocumentContext(lead=0, mean=0.3), DocumentContext(mean=0, prefix=16), NONE]


def checked(retriever, query=QUERY, **options):
    """The frames of all documents, whose shares add up to what a search says."""
    hits = {hit["id"]: hit["similarity"] for hit in retriever(query, k=10, **options)[0]}
    frames = {document["id"]: retriever.explain(query, document["id"], **options) for document in DOCUMENTS}
    for name, frame in frames.items():
        assert frame.attrs["similarity"] == pytest.approx(hits.get(name, 0.0), abs=1e-6)
        assert frame["share"].sum() == pytest.approx(hits.get(name, 0.0), abs=2e-6)
    return frames


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("passages", [16, "auto", None])
def test_shares_add_up(model, passages):
    frames = checked(Retriever(MODELS[model](), on=["title", "text"], passages=passages).add(DOCUMENTS))
    assert frames["short"].attrs["found_by"] == "document"
    assert passages != 16 or frames["tale"].attrs["found_by"] == "passage"


@pytest.mark.parametrize("form", FORMS)
def test_document_context_is_told_apart(form):
    retriever = Retriever(statistics(), on=["title", "text"], passages=16, document_context=form).add(DOCUMENTS)
    frames = checked(retriever)
    sources = set(frames["tale"]["source"])
    assert sources - {"term"} == {"meaning", *(["title"] if form.lead else []), *(["mean"] if form.mean else [])}
    assert ("beginning" in set(frames["untitled"]["source"])) == bool(form.lead)
    assert set(frames["short"]["source"]) == {"meaning", "term"}


def test_the_mean_found_again_is_that_of_the_document():
    retriever = Retriever(statistics(), on=["title", "text"], passages=16).add(DOCUMENTS)
    why = retriever.explain(QUERY, "tale").groupby("source")["share"].sum()
    collection, encoder = retriever.collection, retriever.encoder
    (seq,) = collection.seqs_of(["tale"])
    text = collection.texts_of([seq])[seq]
    units = Units.of([(text, collection.spans_of([seq])[seq], collection.titles_of({seq: text})[seq])])
    vector = encoder.encode_query([QUERY])[0].astype(float)
    mixed, alone = (encode_passages(encoder, units, form).astype(float) for form in (DocumentContext(), NONE))
    best = int((mixed @ vector).argmax())
    average = alone.mean(axis=0)
    average *= np.linalg.norm(alone[best]) / np.linalg.norm(average)
    (lead,) = encoder.encode_document(["An owl"]).astype(float)
    scale = shortening(DocumentContext()) / np.linalg.norm(alone[best] + 0.2 * lead + 0.2 * average)
    assert why["mean"] == pytest.approx(0.2 * scale * vector @ average, abs=1e-4)
    assert why["title"] == pytest.approx(0.2 * scale * vector @ lead, abs=1e-4)


def test_terms_are_named():
    why = Retriever(statistics(), on=["title", "text"]).add(DOCUMENTS).explain("zebu", "short")
    assert set(why.loc[why["source"] == "term", "term"]) == {"zebu"}
    why = Retriever("bm25").add(DOCUMENTS).explain("honey honey, bees", "short")
    assert dict(zip(why["term"], why["query"], strict=True)) == {"honey": 2.0, "bee": 1.0}
    np.testing.assert_allclose(why["query"] * why["document"], why["share"])


@pytest.mark.parametrize("fusion", ["rrf", Fusion("weighted", (0.7, 0.3)), Fusion(depth=2)])
def test_several_models(fusion):
    models = {"dense": DenseEncoder(tiny_dense_directory()), "bm25": "bm25"}
    retriever = Retriever(models, on=["title", "text"], passages=16, fusion=fusion).add(DOCUMENTS)
    hits = {hit["id"]: hit["similarity"] for hit in retriever(QUERY, k=4)[0]}
    for name in ("short", "tale"):
        why = retriever.explain(QUERY, name)
        assert list(why["source"]) == ["dense", "bm25"]
        assert why["share"].sum() == pytest.approx(max(0.0, hits[name]), abs=2e-6)
    assert retriever.explain(QUERY, "short", filter={"year": 2021})["rank"].notna().any()
    checked(retriever.parts["bm25"])
    checked(retriever.parts["dense"])


def test_what_cannot_be_explained_is_named():
    retriever = Retriever("bm25").add(DOCUMENTS)
    with pytest.raises(InputError, match="id 'nobody' is not in this index"):
        retriever.explain(QUERY, "nobody")
    with pytest.raises(InputError, match="one query, a string"):
        retriever.explain([QUERY], "short")
    with pytest.raises(InputError, match="query 0 is empty"):
        retriever.explain(" ", "short")
    assert retriever.explain("nothing", "short").empty


@pytest.mark.parametrize("known", [np.zeros(3), np.ones(3)])
def test_zero_vectors_have_a_scale(known):
    assert _scale(np.zeros(3), known, 0.0) == 0.0
    assert _scale(np.ones(3), np.zeros(3), 0.0) == 0.0
