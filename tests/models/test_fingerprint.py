"""A fingerprint is of what determines a vector: weights that nobody reads, and that each loading draws, are no part."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, MPNetConfig, MPNetForMaskedLM, RobertaConfig, RobertaForMaskedLM

from cderetrieval import load
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.testing import (
    BACKBONES,
    tiny_dense_directory,
    tiny_masked_lm,
    tiny_model,
    tiny_sparse_embed,
    tiny_splade,
    tiny_tokenizer,
)

SHAPE = {key: value for key, value in BACKBONES["bert"].items() if key != "model_type"}
# As every release so far has computed them.
KNOWN = {
    "contextual": ("0ddb23470cb4dbfa", tiny_model),
    "dense": ("e5740c89db0e9a1b", lambda: load(tiny_dense_directory())),
    "centre": ("7432f7d42557eab4", lambda: load("centre:" + tiny_dense_directory())),
    "splade": ("32a0b19ece9f3e9b", tiny_splade),
    "sparse-embed": ("a8b1b6bb5d11d830", tiny_sparse_embed),
}


def masked_lm():
    return tiny_masked_lm()


def without_pooler():
    torch.manual_seed(0)
    return BertModel(BertConfig(**SHAPE), add_pooling_layer=False), tiny_tokenizer()


def roberta():
    torch.manual_seed(0)
    return RobertaForMaskedLM(RobertaConfig(**{**SHAPE, "pad_token_id": 0})), tiny_tokenizer()


def mpnet():
    torch.manual_seed(0)
    return MPNetForMaskedLM(MPNetConfig(**{**SHAPE, "pad_token_id": 0})), tiny_tokenizer()


@pytest.fixture(params=[masked_lm, without_pooler, roberta, mpnet])
def directory(request, tmp_path):
    """A checkpoint without weights of a pooler."""
    model, tokenizer = request.param()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", KNOWN)
def test_what_was_stable_stays(name):
    known, make = KNOWN[name]
    assert make().fingerprint.startswith(known)


def test_the_installed_minilm_keeps_its_pooler():
    from cderetrieval.models.locate import installed_minilm

    if installed_minilm() is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed")
    assert load("all-MiniLM-L6-v2").fingerprint.startswith("4904ce0cee1f6d37")
    assert load().fingerprint.startswith("acf90410fb9add6f")


def test_every_loading_has_one_fingerprint(directory):
    one, other = load(f"dense:{directory}"), load(f"dense:{directory}")
    assert one.is_known_by_vectors
    assert one.fingerprint == other.fingerprint
    assert np.array_equal(one.encode_document(["owls hunt"]), other.encode_document(["owls hunt"]))
    assert load(f"centre:{directory}").fingerprint == load(f"centre:{directory}").fingerprint
    given = SentenceTransformer(str(directory), device="cpu")
    assert DenseEncoder(copy.deepcopy(given)).fingerprint == DenseEncoder(given).fingerprint
    assert len(one.other_fingerprints) == 1
    assert one.other_fingerprints != other.other_fingerprints


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_half_a_pooler_is_none(part, tmp_path):
    shutil.copytree(tiny_dense_directory(), tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    del tensors[f"pooler.dense.{part}"]
    save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    assert len({load(tmp_path / "m", device="cpu").fingerprint for _ in range(3)}) == 1


def test_the_pooling_over_such_a_model_makes_no_difference(directory):
    def build():
        modules = [Transformer(str(directory), max_seq_length=32), Pooling(32, "cls")]
        return DenseEncoder(SentenceTransformer(modules=modules, device="cpu"))

    assert build().fingerprint == build().fingerprint != load(f"dense:{directory}").fingerprint


def test_weights_that_are_read_still_count(directory):
    one, other = load(f"dense:{directory}"), load(f"dense:{directory}")
    with torch.no_grad():
        next(iter(other.model.parameters())).add_(1)
    assert one.fingerprint != other.fingerprint


def test_a_saved_model_knows_what_it_was_called_before(directory, tmp_path):
    one = load(f"dense:{directory}")
    one.model.save_pretrained(str(tmp_path / "saved"))
    saved = load(tmp_path / "saved")
    assert not saved.is_known_by_vectors
    assert saved.fingerprint == load(tmp_path / "saved").fingerprint == one.other_fingerprints[0]
    assert saved.other_fingerprints == (one.fingerprint,)


def test_what_only_training_reads_makes_no_difference(tmp_path):
    def changed(**values):
        load(tiny_dense_directory()).model.save_pretrained(str(tmp_path))
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return load(tmp_path).fingerprint

    expected = load(tiny_dense_directory()).fingerprint
    for values in (
        {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5},
        {"initializer_range": 0.5},
        {"_attn_implementation": "eager"},
        {"use_cache": False, "note": "mine"},
    ):
        assert changed(**values) == expected, values
    (tmp_path / "README.md").write_text("a card")
    assert load(tmp_path).fingerprint == expected


def test_settings_that_no_tensor_shows_count(tmp_path):
    load(tiny_dense_directory()).model.save_pretrained(str(tmp_path))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    found = [load(tmp_path)]
    for values in (
        {"num_attention_heads": 8},
        {"num_attention_heads": 2},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 0.1},
    ):
        path.write_text(json.dumps({**config, **values}))
        found.append(load(tmp_path))
    assert len({encoder.fingerprint for encoder in found}) == len(found)
    assert [encoder.is_known_by_vectors for encoder in found] == [False] + 4 * [True]
    splade = tiny_splade()
    before = splade.fingerprint
    splade.model[0].model.config.num_attention_heads = 8
    other = type(splade)(model=splade.model)
    assert other.fingerprint != before
