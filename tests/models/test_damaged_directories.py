"""A damaged model directory ends in a named error, or loads and gives finite vectors: nothing raw, and no wait."""

import importlib
import json
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cderetrieval import CDEError, load
from cderetrieval.errors import ModelError, WeightsError
from cderetrieval.models.fits import check_counts, stored_shapes

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
damage = importlib.import_module("damage")
hostile_models = importlib.import_module("hostile_models")
sys.path.pop(0)

FAMILIES = ("dense", "centre", "splade", "sparse-embed", "masked-lm", "contextual", "routed")
CASES = 40
TEXTS = ["owls hunt at night", "bees! " * 100, ""]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A good directory of each family, and one of a router with weights for queries."""
    place = tmp_path_factory.mktemp("good")
    for family in hostile_models.EVERY:
        hostile_models.copy_good(family, place / family)
    load(place / "splade", device="cpu").inference_free().save_pretrained(place / "routed")
    return place


@pytest.fixture
def memory():
    """At most 16 GB of addresses: who asks for more fails at once and does not fill the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def vectors(directory):
    model = load(directory, device="cpu")
    encoder = model.in_context(None) if hasattr(model, "in_context") else model
    for encode in (encoder.encode_query, encoder.encode_document):
        found = encode(TEXTS)
        values = getattr(found, "weights", found)
        yield values if isinstance(values, np.ndarray) else values.toarray()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_any_damage_is_named_or_harmless(family, bases, tmp_path, memory):
    refused = 0
    for seed in range(CASES):
        rng = np.random.default_rng([seed, FAMILIES.index(family)])
        shutil.copytree(bases / family, tmp_path / str(seed))
        what = damage.damage_directory(tmp_path / str(seed), rng)
        start = time.perf_counter()
        try:
            assert all(np.isfinite(matrix).all() for matrix in vectors(tmp_path / str(seed))), what
        except CDEError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, {what}") from error
        assert time.perf_counter() - start < 10, what
    assert refused > CASES / 4


NUMBERS = [10**6, 10**9, 2**63, 10**400, -1, 1e300, "7", None, [], True]
KEYS = ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings", "intermediate_size")


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize("family", ["dense", "masked-lm", "contextual"])
def test_sizes_that_no_machine_has(family, value, bases, tmp_path, memory):
    for key in KEYS:
        directory = tmp_path / key
        shutil.copytree(bases / family, directory)
        config = json.loads((directory / "config.json").read_text())
        (config["settings"]["backbone"] if family == "contextual" else config)[key] = value
        (directory / "config.json").write_text(json.dumps(config))
        start = time.perf_counter()
        with pytest.raises(CDEError):
            list(vectors(directory))
        assert time.perf_counter() - start < 10


@pytest.mark.parametrize("family", ["dense", "centre", "splade", "contextual"])
def test_tensors_that_are_missing_are_listed(family, bases, tmp_path):
    for name in ("missing", "unexpected", "renamed"):
        directory = tmp_path / name
        shutil.copytree(bases / family, directory)
        tensors = load_file(directory / "model.safetensors")
        key = next(name for name in sorted(tensors) if "layer.1" in name and name.endswith("weight"))
        if name == "unexpected":
            tensors[key.replace("layer.1", "layer.9")] = torch.zeros(2)
        else:
            value = tensors.pop(key)
            tensors |= {} if name == "missing" else {key.replace("layer.1", "layer.7"): value}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=r"layer\.[179]"):
            load(directory, device="cpu")


def test_a_pooler_may_be_missing(bases, tmp_path):
    shutil.copytree(bases / "dense", tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    for ours, theirs in zip(vectors(tmp_path / "m"), vectors(bases / "dense"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_fewer_layers_than_the_weights_have_are_refused(bases, tmp_path):
    shutil.copytree(bases / "dense", tmp_path / "m")
    hostile_models.edit(tmp_path / "m" / "config.json", num_hidden_layers=1)
    with pytest.raises(WeightsError, match=r"unexpected: encoder\.layer\.1\."):
        load(tmp_path / "m", device="cpu")


def test_the_file_and_the_remedy_are_named(bases, tmp_path):
    for family, file in [
        ("dense", "config.json"),
        ("dense", "modules.json"),
        ("dense", "sentence_bert_config.json"),
        ("dense", "config_sentence_transformers.json"),
        ("dense", "1_Pooling/config.json"),
        ("splade", "1_SpladePooling/config.json"),
        ("sparse-embed", "2_SparseEmbed/config.json"),
        ("sparse-embed", "2_SparseEmbed/model.safetensors"),
        ("contextual", "config.json"),
        ("contextual", "model.safetensors"),
        ("contextual", "tokenizer_config.json"),
        ("centre", "statistics.json"),
    ]:
        directory = tmp_path / family / file.replace("/", "-")
        shutil.copytree(bases / family, directory)
        (directory / file).write_bytes(b"{")
        with pytest.raises(CDEError, match=r"damaged|not valid JSON") as caught:
            load(directory, device="cpu")
        assert str(directory / file) in str(caught.value), file
        assert "again" in str(caught.value), file


@pytest.mark.parametrize("family", ["dense", "centre", "splade", "routed", "contextual"])
@pytest.mark.parametrize("prompt", [-1, True, ["a"], {"a": "b"}], ids=str)
def test_prompts_are_texts(family, prompt, bases, tmp_path):
    shutil.copytree(bases / family, tmp_path / "m")
    path = tmp_path / "m" / ("config.json" if family == "contextual" else "config_sentence_transformers.json")
    config = json.loads(path.read_text())
    (config["settings"] if family == "contextual" else config)["prompts"] = {"query": "", "document": prompt}
    path.write_text(json.dumps(config))
    with pytest.raises(CDEError):
        list(vectors(tmp_path / "m"))


@pytest.mark.parametrize("key", ["k_tokens", "query_k_tokens", "embedding_size"])
@pytest.mark.parametrize("value", ["", None, 0, -1, [], 0.5], ids=str)
def test_numbers_of_terms_are_numbers(key, value, bases, tmp_path):
    shutil.copytree(bases / "sparse-embed", tmp_path / "m")
    hostile_models.edit(tmp_path / "m" / "2_SparseEmbed" / "config.json", **{key: value})
    with pytest.raises(CDEError, match="2_SparseEmbed"):
        list(vectors(tmp_path / "m"))


def test_a_fingerprint_takes_any_name_of_a_module(bases, tmp_path):
    shutil.copytree(bases / "dense", tmp_path / "m")
    modules = json.loads((tmp_path / "m" / "modules.json").read_text())
    modules[0]["name"] = "\ud800"
    (tmp_path / "m" / "modules.json").write_text(json.dumps(modules))
    assert load(tmp_path / "m", device="cpu").fingerprint


def test_headers_of_weights(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2, 3)}, file)
    assert stored_shapes(file) == {"a": [2, 3]}
    for data in (b"", b"\xff" * 8, (2).to_bytes(8, "little") + b"[]", (9).to_bytes(8, "little") + b'{"a": [1]}'):
        file.write_bytes(data)
        with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
            stored_shapes(file)


def test_counts_are_bounded_by_the_tensors():
    check_counts({"num_hidden_layers": 2_000, "rope_theta": 1e6, "max_position_embeddings": 131_072}, 10, "config.json")
    for values in ({"num_hidden_layers": 2_001}, {"a": [{"n_layer": 10**6}]}, {"b": float("nan")}, {"c": 2**40}):
        with pytest.raises(ModelError, match=r"config\.json: \w+=.* is out of range"):
            check_counts(values, 10, "config.json")
