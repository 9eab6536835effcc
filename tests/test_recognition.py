"""Indexes that know their model by weights that were drawn at random: opened with that model, and with no other."""

import json
import logging

import pytest

from cderetrieval import Context, Retriever, load
from cderetrieval.errors import MismatchError
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.statistics import StatisticsModel
from cderetrieval.testing import tiny_dense_directory, tiny_masked_lm

TEXTS = ["owls", "bees make honey", "deer eat grass in the early morning, when nobody is there to see them"] + [
    f"text number {n}" for n in range(30)
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A checkpoint without weights of a pooler."""
    path = tmp_path_factory.mktemp("mlm")
    model, tokenizer = tiny_masked_lm()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def as_before(model):
    """A model with the fingerprint that earlier versions gave it: of all weights, drawn ones too."""
    dense = model.encoder if isinstance(model, StatisticsModel) else model
    dense.__dict__["fingerprint"] = dense._digest(())
    return model


def old_index(name, path):
    with Retriever(as_before(load(name)), path=path) as retriever:
        retriever.add(TEXTS)
        return retriever.collection.get_setting("fingerprint")


@pytest.mark.parametrize("family", ["dense", "centre"])
def test_an_index_is_opened_again(directory, tmp_path, family):
    name = f"{family}:{directory}"
    with Retriever(name, path=tmp_path / "index") as retriever:
        retriever.add(TEXTS)
        hits = retriever("bees", k=3)
    with Retriever.load(tmp_path / "index") as again:
        assert again("bees", k=3) == hits
        assert len(again.add(["more"])) == len(TEXTS) + 1


@pytest.mark.parametrize("family", ["dense", "centre"])
def test_an_old_index_is_recognised_by_its_vectors(directory, tmp_path, family, caplog):
    name = f"{family}:{directory}"
    stored = old_index(name, tmp_path / "index")
    with caplog.at_level(logging.WARNING), Retriever.load(tmp_path / "index", model=load(name)) as again:
        assert again.encoder.fingerprint != stored
        assert again("bees make honey", k=1)[0][0]["id"] == 1
        assert "an earlier version" in caplog.text
        assert again.collection.get_setting("fingerprint") == stored, "reading changes nothing"
        again.add(["more"])
        renewed = again.collection.get_setting("fingerprint")
        assert renewed == again.encoder.fingerprint
    caplog.clear()
    with caplog.at_level(logging.WARNING), Retriever.load(tmp_path / "index", model=load(name)) as again:
        assert again("more", k=1)[0][0]["id"] == len(TEXTS)
        assert again.encoder.fingerprint == renewed
        assert "earlier" not in caplog.text


def others(directory):
    stronger, shorter, prompted = (load(f"dense:{directory}") for _ in range(3))
    for parameter in stronger.model.parameters():
        parameter.data *= 1.5
    shorter.model.max_seq_length = 8
    return {
        "other weights": stronger,
        "other length": DenseEncoder(shorter.model),
        "other prompt": DenseEncoder(prompted.model, prompts={"document": "passage: "}),
    }


@pytest.mark.parametrize("kind", ["other weights", "other length", "other prompt"])
def test_another_model_is_refused(directory, tmp_path, kind):
    old_index(f"dense:{directory}", tmp_path / "index")
    other = others(directory)[kind]
    assert other.is_known_by_vectors
    with pytest.raises(MismatchError, match="fingerprint"):
        Retriever.load(tmp_path / "index", model=other)


def test_a_model_whose_weights_were_all_read_is_never_asked_for_vectors(directory, tmp_path):
    old_index(f"dense:{directory}", tmp_path / "index")
    load(f"dense:{directory}").model.save_pretrained(str(tmp_path / "saved"))
    saved = load(tmp_path / "saved")
    assert not saved.is_known_by_vectors
    with pytest.raises(MismatchError, match="fingerprint"):
        Retriever.load(tmp_path / "index", model=saved)


@pytest.mark.parametrize("family", ["dense", "centre"])
def test_a_model_that_is_saved_after_it_built_an_index(directory, tmp_path, family):
    model = load(f"{family}:{directory}")
    with Retriever(model, path=tmp_path / "index") as retriever:
        retriever.add(TEXTS)
    (model.encoder if family == "centre" else model).model.save_pretrained(str(tmp_path / "saved"))
    with Retriever.load(tmp_path / "index", model=load(f"{family}:{tmp_path / 'saved'}")) as again:
        assert again("bees make honey", k=1)[0][0]["id"] == 1


def test_an_index_without_documents_has_no_vectors_to_mix(directory, tmp_path):
    name = f"dense:{directory}"
    old_index(name, tmp_path / "index")
    with Retriever.load(tmp_path / "index", model=as_before(load(name))) as again:
        again.remove(list(range(len(TEXTS))))
    with Retriever.load(tmp_path / "index", model=load(name)) as again:
        assert len(again.add(["new"])) == 1


def test_a_context_of_ones_own_is_not_guessed(directory):
    model, other = load(f"centre:{directory}"), load(f"centre:{directory}")
    context = Context.from_texts(model, TEXTS)
    assert context.encoder(other).fingerprint == context.encoder(model).fingerprint


def test_other_settings_of_the_same_weights(tmp_path):
    """An index that an earlier version wrote with unusual settings opens with them, and with no others."""
    load(tiny_dense_directory()).model.save_pretrained(str(tmp_path / "usual"))
    load(tiny_dense_directory()).model.save_pretrained(str(tmp_path / "unusual"))
    path = tmp_path / "unusual" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_attention_heads": 8}))
    old_index(str(tmp_path / "unusual"), tmp_path / "index")
    with Retriever.load(tmp_path / "index", model=str(tmp_path / "unusual")) as again:
        assert again("bees make honey", k=1)[0][0]["id"] == 1
    with Retriever(str(tmp_path / "usual"), path=tmp_path / "other") as retriever:
        retriever.add(TEXTS)
    with pytest.raises(MismatchError, match="fingerprint"):
        Retriever.load(tmp_path / "other", model=load(tmp_path / "unusual"))
