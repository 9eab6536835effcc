"""Contexts: made from what users say, saved, and refused by any other model."""

import dataclasses
import json

import numpy as np
import pytest

from cderetrieval import Context
from cderetrieval.context.context import neutral_sentences, read_texts
from cderetrieval.context.spec import ContextSpec
from cderetrieval.errors import ContextError, InputError, StoreError
from cderetrieval.files import write_tensors
from cderetrieval.testing import tiny_model


def make_context(model, spec, **options):
    return ContextSpec.parse(spec).make(model, **options)


TEXTS = ["on birds of prey", "on insects", "on trees"]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def exact():
    return tiny_model(exact_context_size=True)


def test_a_list_of_texts(model):
    context = make_context(model, [*TEXTS, TEXTS[0]])
    assert len(context) == 3, "duplicates count once"
    assert context.embeddings.shape == (3, 32)
    assert context.describe()["source"] == "texts"
    many = [f"document {i}" for i in range(50)]
    assert len(make_context(model, many)) == model.context_size
    assert len(make_context(model, many, size=7)) == 7
    assert make_context(model, many, seed=1) != make_context(model, many)
    assert make_context(model, many[::-1]) == make_context(model, many)
    np.testing.assert_array_equal(make_context(model, iter(many)).embeddings, make_context(model, many).embeddings)


def test_random_null_and_ready_contexts(model):
    random = make_context(model, "random", size=9)
    assert (random.source, len(random)) == ("random", 9)
    sentences = neutral_sentences()
    assert len(sentences) == len(set(sentences)) == 512
    null = make_context(model, None)
    assert (null.source, len(null), null.embeddings) == ("null", 0, None)
    assert make_context(model, random) is random
    assert make_context(model, null) is null
    assert len({random, null, make_context(model, TEXTS)}) == 3


def test_files(model, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join([TEXTS[0], "", TEXTS[1], "  ", TEXTS[2]]) + "\r\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"text": "on birds of prey"}\n\n{"title": "on", "text": "insects"}\n{"title": null, "text": "on trees"}'
    )
    for path in (lines, str(rows)):
        context = make_context(model, path)
        assert context.source == "file"
        assert context == make_context(model, TEXTS)
    split = tmp_path / "split.jsonl"
    split.write_text(json.dumps({"text": "one\u2028document\x0c\x85"}, ensure_ascii=False), encoding="utf-8")
    assert read_texts(split) == ["one\u2028document"]
    make_context(model, TEXTS).save(tmp_path / "saved.safetensors")
    assert make_context(model, tmp_path / "saved.safetensors") == make_context(model, TEXTS)


def test_what_is_no_context_is_named(model, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n\n{"title": "no text"}')
    with pytest.raises(ContextError, match=r"bad\.jsonl line 3: expected a JSON object with 'text'"):
        make_context(model, bad)
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9")
    with pytest.raises(ContextError, match=r"latin\.txt cannot be read"):
        make_context(model, latin)
    for spec in ("nowhere.txt", "a sentence where a list of them is meant " * 20):
        with pytest.raises(ContextError, match="neither 'own', 'random', 'null' nor a file"):
            make_context(model, spec)
    for spec in (7, {"text": "a"}, b"bytes"):
        with pytest.raises(ContextError, match=f"context= is {type(spec).__name__}"):
            make_context(model, spec)
    for texts, message in [([], "at least one"), (["a", " "], "text 1 is empty"), (["a", 7], "text 1 is int")]:
        with pytest.raises(InputError, match=message):
            make_context(model, texts)
    with pytest.raises(InputError, match="not one string"):
        Context.from_texts(model, "one string")


def test_a_small_corpus_is_repeated_only_where_the_weights_need_exactly_so_many(model, exact):
    assert len(make_context(model, TEXTS)) == 3
    repeated = Context.from_texts(exact, TEXTS, ids=["a", "b", "c"])
    assert repeated.ids == ("a", "b", "c", "a")
    np.testing.assert_allclose(repeated.embeddings[3], repeated.embeddings[0], atol=1e-6)
    assert len(make_context(exact, TEXTS[:1])) == 4


@pytest.mark.parametrize("spec", [TEXTS, None])
def test_a_saved_context_is_the_same_context(spec, model, tmp_path):
    context = make_context(model, spec)
    path = tmp_path / "context.safetensors"
    context.save(path)
    again = Context.load(path)
    assert again == context
    assert again.describe() == context.describe()
    encoders = [c.encoder(model) for c in (context, again)]
    assert encoders[0].fingerprint == encoders[1].fingerprint
    np.testing.assert_array_equal(*(encoder.encode_query(TEXTS) for encoder in encoders))


def test_ids_come_back_as_they_went_in(model, tmp_path):
    ids = (1, "1", 1.5)
    Context.from_texts(model, TEXTS, ids=ids).save(tmp_path / "context.safetensors")
    again = Context.load(tmp_path / "context.safetensors")
    assert again.ids == ids
    assert [type(i) for i in again.ids] == [int, str, float]


def test_every_damage_of_a_file_is_noticed(model, tmp_path):
    path = tmp_path / "context.safetensors"
    make_context(model, TEXTS).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, len(whole), 40), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged)
        # A flip in the header can also turn it into a file of something else, or of a later format.
        with pytest.raises((StoreError, ContextError)):
            Context.load(path)
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"context\.safetensors"):
            Context.load(path)
    path.unlink()
    with pytest.raises(StoreError, match="does not exist"):
        Context.load(path)


def test_other_files_and_other_models_are_refused(model, tmp_path):
    path = tmp_path / "context.safetensors"
    write_tensors(path, {"embeddings": np.zeros((3, 32), np.float32)})
    with pytest.raises(ContextError, match="is not a context"):
        Context.load(path)
    context = make_context(tiny_model(seed=1), TEXTS)
    context.save(path)
    for spec in (context, path):
        with pytest.raises(ContextError, match="was made by model"):
            make_context(model, spec)
    with pytest.raises(ContextError, match="format 2; upgrade"):
        Context.restore({**context.describe(), "format": 2}, context.arrays())


@pytest.mark.parametrize("name", ["ids", "source", "seed", "model", "text_digest", "format"])
@pytest.mark.parametrize("value", [None, 7.5, {"a": 1}])
def test_a_description_that_no_context_has_is_refused(name, value):
    context = Context.from_texts(tiny_model(), ["owls", "bees"])
    with pytest.raises(ContextError, match=f"'{name}' of this context"):
        Context.restore({**context.describe(), name: value}, context.arrays())
    without = {key: kept for key, kept in context.describe().items() if key != name}
    if name != "format":  # contexts of the first version have none
        with pytest.raises(ContextError, match=f"'{name}' of this context"):
            Context.restore(without, context.arrays())


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_embeddings_that_are_no_numbers_are_refused(wrong, tmp_path):
    context = Context.from_texts(tiny_model(), ["owls", "bees"])
    embeddings = context.embeddings.copy()
    embeddings[1, 3] = wrong
    dataclasses.replace(context, embeddings=embeddings).save(tmp_path / "context.safetensors")
    with pytest.raises(ContextError, match="embeddings of this context are no finite numbers"):
        Context.load(tmp_path / "context.safetensors")
