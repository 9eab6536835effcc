"""The context of a Retriever: where it comes from, what it decides, how it is reported and refreshed."""

import random

import numpy as np
import pytest

from cderetrieval import Context, Retriever
from cderetrieval.errors import ContextError, InputError, ModelError
from cderetrieval.testing import tiny_model

TEXTS = [f"note {i} on {name}" for i in range(5) for name in ("owls", "bees", "deer", "rain")]
DOCUMENTS = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)]
LIST = ["on birds", "on insects", "on weather"]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def vectors(retriever):
    return {
        i: v.tobytes()
        for _, matrix in retriever.collection.iter_vectors()
        for i, v in zip(retriever.collection.live()[1], matrix, strict=True)
    }


def test_the_first_add_samples_the_corpus_whatever_the_order_of_its_rows(model):
    shuffled = [*DOCUMENTS, {"id": "copy", "text": TEXTS[3]}]
    random.Random(0).shuffle(shuffled)
    one, other = Retriever(model).add(DOCUMENTS), Retriever(model).add(iter(shuffled))
    assert one.context == other.context
    assert (one.context.source, len(one.context)) == ("own", model.context_size)
    texts = {row["id"]: row["text"] for row in shuffled}
    assert [texts[i] for i in one.context.ids] == [texts[i] for i in other.context.ids]
    assert one.encoder.fingerprint == other.encoder.fingerprint
    np.testing.assert_allclose(
        one.encoder.encode_query(["owls"]), one.context.encoder(model).encode_query(["owls"]), atol=1e-6
    )
    assert Retriever(model, seed=1).add(DOCUMENTS).context != one.context
    assert len(Retriever(model, context_size=2).add(DOCUMENTS).context) == 2
    assert len(Retriever(model).add(DOCUMENTS[:2]).context) == 2
    assert len(Retriever(tiny_model(exact_context_size=True)).add(DOCUMENTS[:2]).context) == 4


def test_every_later_text_is_embedded_in_the_first_context(model):
    retriever = Retriever(model).add(DOCUMENTS[:10])
    context = retriever.context
    retriever.add(DOCUMENTS[10:])
    assert retriever.context is context
    encoder = context.encoder(model)
    expected = encoder.encode_document(TEXTS)
    actual = np.concatenate([matrix for _, matrix in retriever.collection.iter_vectors()])
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    query = encoder.encode_query(["what of rain?"])[0]
    best = retriever("what of rain?", k=3)[0]
    assert [hit["id"] for hit in best] == [f"d{i}" for i in np.argsort(-(expected @ query))[:3]]
    np.testing.assert_allclose([hit["similarity"] for hit in best], np.sort(expected @ query)[::-1][:3], atol=1e-5)


def test_contexts_that_users_give(model, tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(LIST))
    Context.from_texts(model, LIST).save(tmp_path / "saved.safetensors")
    given = [LIST, tmp_path / "lines.txt", str(tmp_path / "saved.safetensors"), Context.from_texts(model, LIST)]
    made = [Retriever(model, context=spec).add(DOCUMENTS) for spec in given]
    assert len({retriever.context for retriever in made}) == 1
    neutral, null, own = (Retriever(model, context=spec).add(DOCUMENTS) for spec in ("random", None, "own"))
    assert [r.context.source for r in (neutral, null, own, made[0])] == ["random", "null", "own", "texts"]
    fingerprints = {r.encoder.fingerprint for r in (neutral, null, own, made[0])}
    assert len(fingerprints) == 4
    assert len({r("owls", k=1)[0][0]["similarity"] for r in (neutral, null, own, made[0])}) == 4


def test_ready_vectors_need_a_context_that_is_known(model):
    encoder = Context.from_texts(model, LIST).encoder(model)
    ready = encoder.encode_document(TEXTS)
    with pytest.raises(ContextError, match=r"pass it to Retriever\(context="):
        Retriever(model).add(DOCUMENTS, vectors=ready)
    retriever = Retriever(model, context=LIST).add(DOCUMENTS, vectors=ready)
    assert retriever(["owls"]) == Retriever(model, context=LIST).add(DOCUMENTS)(["owls"])


def test_a_first_add_that_fails_decides_nothing(model):
    retriever = Retriever(model)
    with pytest.raises(InputError):
        retriever.add([*DOCUMENTS[:8], {"id": "x", "text": ""}])
    assert retriever.context is None
    assert len(retriever) == 0
    with pytest.raises(ContextError, match="sampled by the first add"):
        _ = retriever.encoder
    assert retriever.add(DOCUMENTS).context == Retriever(model).add(DOCUMENTS).context
    with pytest.raises(ContextError, match="was made by model"):
        Retriever(model, context=Context.from_texts(tiny_model(seed=1), LIST)).add(DOCUMENTS)
    with pytest.raises(ContextError, match="neither 'own'"):
        Retriever(model, context="nowhere.txt").add(DOCUMENTS)


def test_the_report(model):
    retriever = Retriever(model).add(DOCUMENTS)
    report = retriever.context_report()
    assert (report["source"], report["documents"], report["seed"]) == ("own", 4, 0)
    assert set(report["ids"]) <= {row["id"] for row in DOCUMENTS}
    assert report["cache_bytes"] == retriever.encoder.cache_bytes > 0
    assert report["digest"] == retriever.context.digest
    assert not report["drift"].stale
    assert Retriever(model, context=LIST).add(DOCUMENTS).context_report()["drift"] is None
    retriever.remove(row["id"] for row in DOCUMENTS)
    assert retriever.context_report()["drift"] is None


def test_a_corpus_that_was_replaced_is_reported_as_stale():
    model = tiny_model(context_size=64)
    old = [{"id": i, "text": f"owls {i}"} for i in range(150)]
    new = [{"id": i, "text": f"({i}) [{i}] = {{{i}}}; // {i} + {i}"} for i in range(150)]
    retriever = Retriever(model).add(old)
    assert not retriever.context_report()["drift"].stale
    retriever.add(new)
    assert retriever.context_report()["drift"].stale
    assert not retriever.refresh().context_report()["drift"].stale


def test_a_small_corpus_that_was_repeated_is_not_stale():
    model = tiny_model(context_size=64, exact_context_size=True)
    retriever = Retriever(model).add(DOCUMENTS)
    assert len(retriever.context) == 64
    assert not retriever.context_report()["drift"].stale


def test_refresh_embeds_every_document_in_the_new_context(model):
    retriever = Retriever(model).add(DOCUMENTS[:8]).add(DOCUMENTS[8:]).remove("d3")
    before, generation = vectors(retriever), retriever.collection.generation
    old = retriever.context
    retriever.refresh()
    fresh = Retriever(model).add([row for row in DOCUMENTS if row["id"] != "d3"])
    assert retriever.context == fresh.context != old
    assert vectors(retriever) == vectors(fresh)
    assert all(vectors(retriever)[i] != before[i] for i in before)
    assert retriever(["owls", "rain"], k=30) == fresh(["owls", "rain"], k=30)
    assert retriever.collection.generation == generation + 1, "one commit"
    for spec, source in [("random", "random"), (None, "null"), (LIST, "texts")]:
        assert retriever.refresh(spec).context.source == source
        assert retriever.add(DOCUMENTS[:1]).context.source == source
    assert retriever(["owls"]) == Retriever(model, context=LIST).add(
        [*(r for r in DOCUMENTS[1:] if r["id"] != "d3"), DOCUMENTS[0]]
    )(["owls"])


def test_a_refresh_that_fails_leaves_everything_as_it_was(monkeypatch):
    model = tiny_model()
    retriever = Retriever(model).add(DOCUMENTS)
    before = retriever.context, retriever.collection.generation, retriever(["owls"], k=30)
    for spec in (Context.from_texts(tiny_model(seed=1), LIST), "nowhere.txt", []):
        with pytest.raises((ContextError, InputError)):
            retriever.refresh(spec)
        assert (retriever.context, retriever.collection.generation, retriever(["owls"], k=30)) == before

    from cderetrieval.models.contextual import ContextualEncoder

    def fail(self, texts, **_):
        raise ModelError("not finite for text 0")

    with monkeypatch.context() as patch:
        patch.setattr(ContextualEncoder, "encode_document", fail)
        with pytest.raises(ModelError, match="documents 0 to 19"):
            retriever.refresh("random")
    assert (retriever.context, retriever.collection.generation, retriever(["owls"], k=30)) == before
    assert len(retriever.add([{"id": "new", "text": "more rain"}])) == 21
    with pytest.raises(InputError, match="empty: add documents first"):
        Retriever(model).refresh()
