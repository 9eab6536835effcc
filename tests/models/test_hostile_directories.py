"""A model directory of an attacker is refused by a named error, or loads; what it names is never run or fetched."""

import builtins
import contextlib
import importlib
import json
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from cderetrieval import CDEError, Retriever, load
from cderetrieval.errors import ModelError
from cderetrieval.models.sentence_transformer import sentence_transformer
from cderetrieval.testing import tiny_dense_directory, tiny_model_directory
from cderetrieval.training.families import family_of
from cderetrieval.training.families.contextual import start_model
from cderetrieval.training.recipes import Recipe

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
hostile_models = importlib.import_module("hostile_models")
sys.path.pop(0)
HOSTILE = hostile_models.HOSTILE


@pytest.fixture(scope="module")
def bases():
    """Good directories of all families, made before anything is watched: the card of a new model asks the hub."""
    return {family: hostile_models.base(family) for family in hostile_models.EVERY}


@pytest.fixture
def marker(bases, tmp_path, monkeypatch):
    """A file that appears when code runs, a question is asked or a network is tried; the hub is not switched off."""
    path = tmp_path / "RAN"

    def ran(*_, **__):
        path.touch()
        raise OSError("tried")

    def answered(*_):
        path.touch()
        return "y"

    monkeypatch.setattr(builtins, "input", answered)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, ran)
    monkeypatch.setattr(socket, "getaddrinfo", ran)
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def use(model):
    encoder = model.in_context(None) if hasattr(model, "in_context") else model
    vectors = encoder.encode_query(["owls hunt at night"])
    values = getattr(vectors, "weights", vectors)
    assert np.isfinite(values if isinstance(values, np.ndarray) else values.toarray()).all()


def attempt(action, marker):
    with contextlib.suppress(CDEError):
        action()
    assert not marker.exists(), "the payload ran"


PREFIX = {"dense": "dense:", "centre": "centre:", "splade": "splade:", "sparse-embed": "sparse-embed:"}


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_no_directory_runs_code_asks_or_reaches_a_network(hostile, tmp_path, marker):
    directory = hostile_models.write(hostile, tmp_path / "m", marker)
    attempt(lambda: use(load(directory, device="cpu")), marker)
    if hostile.family in PREFIX:
        attempt(lambda: use(load(f"{PREFIX[hostile.family]}{directory}", device="cpu")), marker)
    elif hostile.family == "contextual":
        attempt(lambda: sentence_transformer(directory, device="cpu"), marker)
    else:
        attempt(lambda: use(load(f"splade:{directory}", device="cpu")), marker)


def test_there_are_attacks_on_every_family():
    assert len(HOSTILE) > 150
    assert {hostile.family for hostile in HOSTILE} == set(hostile_models.EVERY)
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("family", hostile_models.EVERY)
def test_the_good_directories_load(family, tmp_path, marker):
    hostile_models.copy_good(family, tmp_path / "m")
    use(load(tmp_path / "m", device="cpu"))
    assert not marker.exists()


def test_training_starts_from_a_good_one(tmp_path):
    common = {"name": "x", "data": (str(tmp_path),), "base": tiny_dense_directory(), "max_length": 16}
    assert start_model(Recipe(**common)).config.hidden_size == 32
    for model in ({}, {"pooling": "mean"}):
        recipe = Recipe(**common, architecture="dense", filter="off", model=model)
        assert family_of(recipe).build().get_embedding_dimension() == 32


ROOTS = [hostile for hostile in HOSTILE if hostile.family in ("dense", "contextual")]


@pytest.mark.parametrize("hostile", ROOTS[::3], ids=lambda hostile: hostile.name)
def test_training_does_not_start_from_one(hostile, tmp_path, marker):
    directory = str(hostile_models.write(hostile, tmp_path / "m", marker))
    common = {"name": "x", "data": (str(tmp_path),), "base": directory, "max_length": 16}
    dense = {"architecture": "dense", "filter": "off"}
    attempt(lambda: start_model(Recipe(**common)), marker)
    attempt(lambda: family_of(Recipe(**common, **dense)).build(), marker)
    attempt(lambda: family_of(Recipe(**common, **dense, model={"pooling": "mean"})).build(), marker)


@pytest.mark.parametrize("name", ["model_kwargs_unpickled", "tokenizer_with_code", "module_own_code", "only_pickled"])
def test_an_index_whose_model_became_hostile(name, tmp_path, marker):
    shutil.copytree(tiny_dense_directory(), tmp_path / "m")
    retriever = Retriever(str(tmp_path / "m"), key="id", on=["text"], device="cpu")
    retriever.add([{"id": i, "text": text} for i, text in enumerate(["owls hunt at night", "bees make honey"])])
    retriever.save(tmp_path / "index")
    (hostile,) = [entry for entry in HOSTILE if entry.name == f"dense-{name}"]
    hostile.change(tmp_path / "m", marker)
    attempt(lambda: Retriever.load(tmp_path / "index", device="cpu")(["owls"]), marker)


def test_what_is_refused_is_named(tmp_path, marker):
    def refused(name, match):
        (hostile,) = [entry for entry in HOSTILE if entry.name == name]
        directory = hostile_models.write(hostile, tmp_path / name, marker)
        with pytest.raises(ModelError, match=match):
            load(directory, device="cpu")

    refused("dense-model_kwargs_unpickled", r"sentence_bert_config\.json, model_kwargs: .*weights.only is not allowed")
    refused("dense-only_pickled", r"no model\.safetensors\. Pickled weights \(pytorch_model\.bin\) are not read")
    refused("dense-module_pickled_dense", r"9_Module holds no model\.safetensors")
    refused("dense-module_own_code", r"modules\.json: the module 'payload\.Payload' is not allowed")
    refused("dense-tokenizer_on_the_hub", r"tokenizer_name_or_path is not allowed")
    refused("dense-an_adapter", r"is an adapter \(PEFT\)")
    refused("contextual-tokenizer_with_code", r"tokenizer_class='Payload' is not allowed")


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False}),
        ("sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": True, "model_args": {}}),
        ("sentence_bert_config.json", {"max_seq_length": 48, "tokenizer_args": {}, "config_args": {}}),
        ("sentence_bert_config.json", {"max_seq_length": 48, "model_args": {"add_pooling_layer": False}}),
        ("sentence_bert_config.json", {"max_seq_length": 48, "tokenizer_name_or_path": None}),
        ("tokenizer_config.json", {"name_or_path": "a/b", "special_tokens_map_file": "/home/x/map.json"}),
        ("tokenizer_config.json", {"tokenizer_file": None, "auto_map": {"AutoTokenizer": ["a.B", None]}}),
        ("tokenizer_config.json", {"never_split": None, "do_basic_tokenize": True, "chat_template": "{{ x }}"}),
        ("config.json", {"auto_map": {"AutoModel": "a/b--modeling.Model"}, "_name_or_path": "a/b"}),
        ("config.json", {"torch_dtype": "float32", "position_embedding_type": "absolute", "id2label": {"0": "A"}}),
        ("config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.0.0"}, "prompts": {}}),
        ("data_config.json", [{"name": "a.jsonl.gz"}]),
        ("generation_config.json", {"max_length": 20}),
    ],
)
def test_ordinary_settings_stay_allowed(file, values, tmp_path, marker):
    shutil.copytree(tiny_dense_directory(), tmp_path / "m")
    path = tmp_path / "m" / file
    before = json.loads(path.read_text()) if path.exists() and file != "sentence_bert_config.json" else {}
    path.write_text(json.dumps({**before, **values} if isinstance(values, dict) else values))
    texts = ["owls hunt at night", "bees make honey"]
    expected = load(tiny_dense_directory(), device="cpu").encode_document(texts)
    np.testing.assert_array_equal(load(tmp_path / "m", device="cpu").encode_document(texts), expected)
    assert not marker.exists()


def test_pickles_beside_safetensors_are_left_alone(tmp_path, marker):
    shutil.copytree(tiny_dense_directory(), tmp_path / "m")
    hostile_models.pickled(tmp_path / "m" / "pytorch_model.bin", marker)
    (tmp_path / "m" / "model.py").write_text("raise SystemExit")
    ours, expected = load(tmp_path / "m", device="cpu"), load(tiny_dense_directory(), device="cpu")
    assert ours.fingerprint == expected.fingerprint
    assert not marker.exists()


def test_a_contextual_directory_names_no_place_of_its_own(tmp_path):
    shutil.copytree(tiny_model_directory(), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"{")
    with pytest.raises(ModelError) as caught:
        load(tmp_path / "m", device="cpu")
    assert str(tmp_path / "m") in str(caught.value)


def test_two_modules_of_one_folder_are_refused(tmp_path):
    """The settings of the second would be put in the place of the first's, which were checked."""
    shutil.copytree(tiny_dense_directory(), tmp_path / "m")
    listed = json.loads((tmp_path / "m" / "modules.json").read_text())
    for path in ("", "./", "."):
        more = {"idx": 9, "name": "9", "path": path, "type": "sentence_transformers.models.Pooling"}
        (tmp_path / "m" / "modules.json").write_text(json.dumps([*listed, more]))
        with pytest.raises(ModelError, match="of two modules is not allowed"):
            load(tmp_path / "m", device="cpu")
