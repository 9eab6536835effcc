"""Bi-encoders that were trained here, as everyone else's."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from cderetrieval import load
from cderetrieval.models.plain import is_plain, plain_model
from cderetrieval.testing import BACKBONES, tiny_model

TEXTS = ["owls hunt at night", "bees", "a longer text about nothing in particular, " * 10]
PLAIN = {"attention": "cached", "context_positions": "separate", "head": "none", "soft_prompt_tokens": 0}


def bi_encoder(**settings):
    model = tiny_model(**{**PLAIN, **settings})
    torch.nn.init.zeros_(model.second_stage_model.gates)
    return model


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize(("pooling", "layers"), [("mean", None), ("mean", 1), ("cls", None)])
def test_vectors_are_those_of_any_context(family, pooling, layers, tmp_path):
    model = bi_encoder(family=family, pooling=pooling, layers=layers)
    assert is_plain(model)
    plain_model(model).save_pretrained(str(tmp_path))
    expected = model.in_context(model.embed_context(["cats", "dogs"])).encode_query(TEXTS)
    encoder = load(tmp_path, device="cpu")
    np.testing.assert_allclose(encoder.encode_query(TEXTS), expected, atol=1e-6)
    elsewhere = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, prompt_name="query")
    np.testing.assert_allclose(elsewhere, expected, atol=1e-6)
    assert encoder.settings.prompts == model.config.prompts
    assert encoder.settings.max_length == model.config.max_length
    # A part that is drawn anew at each loading would give each index a model of its own.
    assert load(tmp_path, device="cpu").fingerprint == encoder.fingerprint


@pytest.mark.parametrize(
    "settings", [{"head": "mlp"}, {"soft_prompt_tokens": 2}, {"skip_instruction": True, "instruction_end_id": 7}]
)
def test_what_has_parts_of_its_own_is_not_plain(settings):
    assert not is_plain(bi_encoder(**settings))


def test_what_reads_its_context_is_not_plain():
    assert not is_plain(tiny_model(**PLAIN))  # its gates are open
    assert not is_plain(tiny_model(**PLAIN, cached_form="shared"))
    assert not is_plain(tiny_model(attention="joint"))
