"""The two stages: any context, every switch, saving and loading, fingerprints."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cderetrieval import load
from cderetrieval.errors import ConfigError, InputError, StoreError
from cderetrieval.models.contextual import ContextualTransformer
from cderetrieval.testing import BACKBONES, tiny_model

TEXTS = ["owls hunt at night", "bees", "the river floods its banks in spring"]
CONTEXT = ["on birds of prey", "on insects", "on trees", "on the weather of mountains"]
JOINT = {"attention": "joint", "context_positions": "unrotated"}
BOTH = pytest.mark.parametrize("settings", [{}, {"cached_form": "shared"}, JOINT], ids=["gated", "shared", "joint"])


def encode(model, context=CONTEXT, texts=TEXTS):
    return model.in_context(model.embed_context(context) if context else None).encode_document(texts)


@BOTH
@pytest.mark.parametrize("soft_prompt_tokens", [0, 2])
def test_any_number_of_context_documents(settings, soft_prompt_tokens):
    model = tiny_model(**settings, soft_prompt_tokens=soft_prompt_tokens, null_token=False)
    none = model.in_context(np.empty((0, 32), dtype=np.float32)).encode_document(TEXTS)
    np.testing.assert_array_equal(none, model.in_context(None).encode_document(TEXTS))
    one, all_four = encode(model, CONTEXT[:1]), encode(model)
    too_many = encode(model, [*CONTEXT, "a fifth, past the model's four"])
    assert np.abs(too_many - all_four).max() > 1e-6
    for a, b in [(none, one), (one, all_four)]:
        assert np.abs(a - b).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(all_four, axis=1), 1, atol=1e-6)


@BOTH
def test_the_null_context_is_the_null_token_in_every_place(settings):
    model = tiny_model(**settings)
    null = model.second_stage_model.sequence_dropout_null_embedding.detach()
    np.testing.assert_allclose(
        model.in_context(None).encode_query(TEXTS),
        model.in_context(null.expand(model.context_size, -1)).encode_query(TEXTS),
        atol=1e-6,
    )
    assert np.abs(model.in_context(None).encode_query(TEXTS) - encode(model)).max() > 1e-3
    without = tiny_model(**settings, null_token=False)
    ids = torch.tensor([[1, 7, 2]])
    with pytest.raises(InputError, match="no null token"):
        without.second_stage_model(ids, torch.ones_like(ids), null_dataset_embedding=True)


@pytest.mark.parametrize(("settings", "per_text"), [(JOINT, True), ({}, False), ({"cached_form": "shared"}, False)])
def test_sequence_dropout_draws_per_text_where_joint_and_once_where_cached(settings, per_text):
    model = tiny_model(**settings, sequence_dropout=0.5, context_size=32)
    ids = torch.tensor([[1, 7, 9, 11, 2]] * 2)
    context = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))

    def vectors():
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(1)
            pair = model.second_stage_model(ids, torch.ones_like(ids), dataset_embeddings=context)
            other = model.second_stage_model(ids, torch.ones_like(ids), dataset_embeddings=context)
        return pair, other

    (a, b), (c, _) = vectors()
    assert torch.equal(a, b)
    assert torch.equal(a, c), "evaluation drops nothing"
    model.train()
    (a, b), (c, _) = vectors()
    assert torch.allclose(a, b, atol=1e-6) is not per_text
    assert not torch.allclose(a, c, atol=1e-4), "each pass draws anew"


@BOTH
def test_a_document_may_have_several_vectors(settings):
    model = tiny_model(**settings, tokens_per_document=3)
    context = model.embed_context(CONTEXT)
    assert context.shape == (4, 3, 32)
    # Every vector is read: changing the last one of the last document changes the answers.
    changed = context.copy()
    changed[-1, -1] *= -1
    vectors = model.in_context(context).encode_document(TEXTS)
    assert np.abs(vectors - model.in_context(changed).encode_document(TEXTS)).max() > 1e-4
    alone = np.stack([model.embed_context([text])[0] for text in CONTEXT])
    np.testing.assert_allclose(context, alone, atol=1e-5)


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("settings", [{"first_stage": "tied", "first_stage_layers": 1}, {"tie_token_embeddings": True}])
def test_shared_weights_are_shared_saved_once_and_loaded_again(family, settings, tmp_path):
    model = tiny_model(family, **settings)
    first, second = model.first_stage_model.backbone, model.second_stage_model.backbone
    words = second.get_input_embeddings().weight
    assert first.get_input_embeddings().weight is words
    apart = sum(p.numel() for p in tiny_model(family).parameters())
    assert sum(p.numel() for p in model.parameters()) < apart
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert sum(name.endswith(("word_embeddings.weight", "tok_embeddings.weight")) for name in saved) == 1
    again = load(tmp_path)
    np.testing.assert_array_equal(encode(again), encode(model))
    with torch.no_grad():
        again.second_stage_model.backbone.get_input_embeddings().weight.zero_()
    assert (again.first_stage_model.backbone.get_input_embeddings().weight == 0).all()


def test_a_tied_first_stage_uses_fewer_layers():
    settings = {"first_stage": "tied", "first_stage_head": "none", "soft_prompt_tokens": 0}
    short, long = tiny_model(first_stage_layers=1, **settings), tiny_model(**settings)
    assert set(short.state_dict()) == set(long.state_dict())
    assert np.abs(short.embed_context(CONTEXT) - long.embed_context(CONTEXT)).max() > 1e-3
    np.testing.assert_array_equal(short.in_context(None).encode_query(TEXTS), long.in_context(None).encode_query(TEXTS))


@pytest.mark.parametrize("family", BACKBONES)
def test_backbones_can_be_cut_to_their_first_layers(family):
    model = tiny_model(family, layers=1, first_stage_layers=2)
    layers = [name for name in model.state_dict() if ".1." in name and ("layer.1." in name or "layers.1." in name)]
    assert layers
    assert all(name.startswith("first_stage_model") for name in layers)
    assert encode(model).shape == (3, 32)


@BOTH
@pytest.mark.parametrize("head", ["none", "mlp", "residual"])
def test_heads(settings, head):
    model = tiny_model(**settings, head=head)
    bare = tiny_model(**settings, head="none")
    bare.load_state_dict({name: t for name, t in model.state_dict().items() if "output_projection" not in name})
    ids = torch.tensor([[1, 7, 9, 11, 2]])
    context = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        actual, pooled = (
            m.second_stage_model(ids, torch.ones_like(ids), dataset_embeddings=context) for m in (model, bare)
        )
        if head != "none":
            projected = model.second_stage_model.output_projection(pooled)
            pooled = projected + pooled if head == "residual" else projected
    torch.testing.assert_close(actual, pooled)


@pytest.mark.parametrize(
    "settings", [{}, JOINT, {**JOINT, "pool_over": "all"}], ids=["cached", "joint", "joint, all tokens"]
)
def test_what_is_pooled(settings):
    model = tiny_model(head="none", **settings)
    ids = torch.tensor([[1, 7, 40, 11, 12, 2]])
    mask = torch.ones_like(ids)
    context = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))

    def pooled(**change):
        model.second_stage_model.config = model.config.replace(**change)
        return model.second_stage_model(ids, mask, dataset_embeddings=context, output_hidden_states=True)

    with torch.no_grad():
        out = pooled(pooling="cls")
        torch.testing.assert_close(out["pooled"], out["hidden_states"][:, 0])
        out = pooled()
        mean = out["hidden_states"].mean(dim=1)
        assert torch.allclose(out["pooled"], mean, atol=1e-5) is (model.config.pool_over == "text")
        if model.config.pool_over == "text":
            out = pooled(skip_instruction=True, instruction_end_id=40)
            torch.testing.assert_close(out["pooled"], out["hidden_states"][:, 3:].mean(dim=1))
            out = pooled(skip_instruction=True, instruction_end_id=99)
            torch.testing.assert_close(out["pooled"], mean)


def test_a_context_of_the_wrong_shape_is_refused():
    model = tiny_model()
    for wrong in (np.zeros((4, 31), np.float32), np.zeros(32, np.float32)):
        with pytest.raises(InputError, match=r"shape .* expected floats of shape \(documents, 32\)"):
            model.in_context(wrong)
    with pytest.raises(InputError, match="one context for all texts"):
        model.in_context(np.zeros((2, 4, 32), np.float32))
    with pytest.raises(InputError, match="cannot be cached"):
        tiny_model(**JOINT).second_stage_model.context_cache()


def test_too_many_positions_for_bert_are_named():
    model = tiny_model(**JOINT, context_size=100)
    with pytest.raises(InputError, match="need 166 positions; this BERT has 128"):
        encode(model, [f"document {i}" for i in range(100)], ["x " * 500])


@BOTH
@pytest.mark.parametrize("family", BACKBONES)
def test_a_saved_model_is_the_same_model(family, settings, tmp_path):
    model = tiny_model(family, **settings)
    model.save_pretrained(tmp_path)
    again = ContextualTransformer.from_pretrained(str(tmp_path))
    assert again.config == model.config
    assert again.fingerprint == model.fingerprint
    assert encode(again).tobytes() == encode(model).tobytes()


def test_the_model_card_says_what_it_is(tmp_path):
    tiny_model().save_pretrained(
        tmp_path, name="owls-v1", base_model="a/b", training_data=["NQ"], recipe="Two epochs.", results={"nDCG@10": 0.5}
    )
    card = (tmp_path / "README.md").read_text()
    for part in ("# owls-v1", "base_model: a/b", "cached, gated", "- NQ", "Two epochs.", "| nDCG@10 | 0.5000 |"):
        assert part in card


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda config: {**config, "format": 99}, StoreError),
        (lambda config: {"model_type": "cderetrieval"}, ConfigError),
        (lambda config: {**config, "settings": {**config["settings"], "pooling": "max"}}, ConfigError),
    ],
)
def test_a_configuration_that_cannot_be_read_is_an_error(change, error, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(error):
        load(tmp_path)


def test_the_fingerprint_names_all_that_determines_a_vector():
    def fingerprint(seed=0, **settings):
        return tiny_model(seed=seed, **settings).fingerprint

    same = tiny_model()
    before = same.fingerprint
    assert fingerprint() == before
    del same.__dict__["fingerprint"]
    encode(same, texts=["x " * 1000, "short"])  # leaves truncation and padding in the tokenizer
    assert same.fingerprint == before
    prompts = {"query": "q: ", "document": "d: "}
    others = [
        fingerprint(seed=1),
        fingerprint(prompts=prompts),
        fingerprint(max_length=32),
        tiny_model("modernbert").fingerprint,
    ]
    assert len({before, *others}) == 5
    contexts = [same.in_context(same.embed_context(texts)) for texts in (CONTEXT, CONTEXT[::-1])]
    assert len({before, same.in_context(None).fingerprint, *(encoder.fingerprint for encoder in contexts)}) == 4


def test_prompts_are_put_before_texts():
    model = tiny_model(prompts={"query": "q: ", "document": "d: ", "clustering": "c: "})
    bare = tiny_model(prompts={})
    encoder, plain = model.in_context(None), bare.in_context(None)
    np.testing.assert_array_equal(encoder.encode_query(["owls"]), plain.encode_query(["q: owls"]))
    np.testing.assert_array_equal(encoder.encode_document(["owls"]), plain.encode_document(["d: owls"]))
    np.testing.assert_array_equal(encoder.encode(["owls"], prompt_name="clustering"), plain.encode_query(["c: owls"]))
    np.testing.assert_array_equal(model.embed_context(["owls"]), bare.embed_context(["d: owls"]))
    with pytest.raises(InputError, match="prompt_name='poetry' is unknown; this model has clustering, document, query"):
        encoder.encode(["owls"], prompt_name="poetry")


def test_bfloat16_is_close_to_float32(caplog):
    caplog.set_level(logging.ERROR)
    for settings in ({}, {"cached_form": "shared"}, JOINT):
        model = tiny_model(**settings)
        context = model.embed_context(CONTEXT)
        full, half = (model.in_context(context, dtype=dtype).encode_query(TEXTS) for dtype in ("float32", "bfloat16"))
        assert half.dtype == np.float32
        assert 0 < np.abs(full - half).max() < 0.1
        assert ((full * half).sum(axis=1) > 0.99).all()
