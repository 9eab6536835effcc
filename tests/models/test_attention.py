"""Cached attention against what it stands for: joint attention under a mask, and the plain encoder."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModel

from cderetrieval.models.attention import _folded
from cderetrieval.models.backbone import embed_prefix, embed_text
from cderetrieval.models.stages import mean_pool
from cderetrieval.testing import BACKBONES, tiny_model

FAMILIES = list(BACKBONES)
TEXTS = ["owls", "bees make honey in summer, and eat it in winter", "what do deer do at night?"]
CONTEXT = ["on birds of prey", "on insects", "on trees", "on the weather of mountains"]


def batch(model, texts=TEXTS):
    encoded = model.tokenizer(texts, padding=True, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]


def first_stage(model, texts=CONTEXT):
    ids, mask = batch(model, texts)
    return model.first_stage_model(input_ids=ids, attention_mask=mask)


def eager_backbone(model):
    """The second stage's backbone in transformers' own eager attention."""
    values = dict(model.config.backbone)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    extra = {"add_pooling_layer": False} if model.config.family == "bert" else {}
    backbone = AutoModel.from_config(config, attn_implementation="eager", **extra).eval()
    backbone.load_state_dict(model.second_stage_model.backbone.state_dict())
    return backbone


def masks(family, prefix, attention_mask):
    """Additive masks over [context | text]: context reads context, text reads both (ModernBERT: text in its window)."""
    b, t = attention_mask.shape
    seen = torch.zeros(b, 1, prefix + t, prefix + t, dtype=torch.bool)
    seen[..., :prefix] = True
    seen[..., prefix:, prefix:] = attention_mask[:, None, None, :].bool()
    near = torch.ones(prefix + t, prefix + t, dtype=torch.bool)
    place = torch.arange(t)
    near[prefix:, prefix:] = (place[:, None] - place[None]).abs() <= BACKBONES["modernbert"]["local_attention"] // 2
    full, local = (torch.where(m, 0.0, torch.finfo(torch.float32).min) for m in (seen, seen & near))
    return {"full_attention": full, "sliding_attention": local} if family == "modernbert" else full


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_softmax_equals_joint_attention_in_which_context_does_not_read_text(family):
    model = tiny_model(family, cached_form="shared")
    stage = model.second_stage_model
    ids, mask = batch(model)
    with torch.no_grad():
        context = first_stage(model)
        vectors = stage(input_ids=ids, attention_mask=mask, dataset_embeddings=context)
        prefix = stage._prefix(context, False, None)
        embeds = torch.cat(
            [embed_prefix(stage.backbone, prefix).expand(len(ids), -1, -1), embed_text(stage.backbone, ids, False)], 1
        )
        positions = torch.cat([torch.zeros(prefix.shape[1], dtype=torch.long), torch.arange(ids.shape[1])])
        hidden = eager_backbone(model)(
            inputs_embeds=embeds,
            attention_mask=masks(family, prefix.shape[1], mask),
            position_ids=positions.expand(len(ids), -1),
        ).last_hidden_state[:, prefix.shape[1] :]
        pooled = mean_pool(hidden, mask)
        expected = pooled + stage.output_projection(pooled)
    torch.testing.assert_close(vectors, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_closed_gates_the_model_is_the_plain_encoder(family):
    model = tiny_model(family, head="none")
    ids, mask = batch(model)
    with torch.no_grad():
        plain = mean_pool(eager_backbone(model)(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
        opened = model.second_stage_model(ids, mask, dataset_embeddings=first_stage(model))
        model.second_stage_model.gates.zero_()
        closed = model.second_stage_model(ids, mask, dataset_embeddings=first_stage(model))
    torch.testing.assert_close(closed, plain, atol=1e-5, rtol=1e-5)
    assert (opened - plain).abs().max() > 1e-2


def test_folded_attention_equals_attention_with_the_keys_copied_for_each_text():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 5, 8, generator=generator)
    keys, values = torch.randn(2, 4, 7, 8, generator=generator)
    expected = scaled_dot_product_attention(query, keys.expand(3, -1, -1, -1), values.expand(3, -1, -1, -1), scale=0.4)
    torch.testing.assert_close(_folded(query, keys, values, 0.4), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "settings",
    [{"cached_form": "gated"}, {"cached_form": "shared"}, {"attention": "joint", "context_positions": "sequential"}],
    ids=["gated", "shared", "joint"],
)
def test_the_vector_of_a_text_does_not_depend_on_its_batch(family, settings):
    model = tiny_model(family, **settings)
    encoder = model.in_context(model.embed_context(CONTEXT))
    together = torch.tensor(encoder.encode_document([*TEXTS, ""]))
    alone = torch.cat([torch.tensor(encoder.encode_document([text])) for text in [*TEXTS, ""]])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["gated", "shared"])
def test_gradients_flow_through_the_cache_to_the_first_stage(family, form):
    model = tiny_model(family, cached_form=form)
    ids, mask = batch(model)
    model.second_stage_model(ids, mask, dataset_embeddings=first_stage(model)).square().sum().backward()
    names = ["first_stage_model.mlp.0.weight", "second_stage_model.prompt_projection.0.weight"]
    names += ["second_stage_model.gates"] if form == "gated" else []
    words = model.first_stage_model.backbone.get_input_embeddings().weight
    gradients = [dict(model.named_parameters())[name].grad for name in names] + [words.grad]
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    if form == "gated":
        assert (model.second_stage_model.gates.grad != 0).all(), "every head of every layer learns from the context"


@pytest.mark.parametrize("form", ["gated", "shared"])
def test_training_drops_attention_where_the_configuration_says_so(form):
    backbone = {**BACKBONES["bert"], "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.9}
    model = tiny_model(cached_form=form, disable_dropout=False, backbone=backbone)
    ids, mask = batch(model)
    context = first_stage(model).detach()
    with torch.no_grad():
        still = [model.second_stage_model(ids, mask, dataset_embeddings=context) for _ in range(2)]
        model.train()
        moving = [model.second_stage_model(ids, mask, dataset_embeddings=context) for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.allclose(*moving, atol=1e-2)


def test_the_size_of_a_cache_is_that_of_its_keys_and_values():
    model = tiny_model()
    encoder = model.in_context(model.embed_context(CONTEXT))
    layers, vectors, width, bytes_each = 2, len(CONTEXT) + 2, 32, 4
    assert encoder.cache_bytes == 2 * layers * vectors * width * bytes_each
    joint = tiny_model(attention="joint")
    assert joint.in_context(joint.embed_context(CONTEXT)).cache_bytes == 0
