"""What BERT, NomicBERT and ModernBERT do differently, in one table.

The backbones are transformers' own modules, built from a configuration and never forked. The table says where each
keeps its layers and its attention, and whether `inputs_embeds` gets a token type added that a context vector must not
carry (NomicBERT as cde-small-v1 was trained: the type of token 0 is subtracted first).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from .attention import ATTENTION
from .trusted import model_config


@dataclass(frozen=True)
class Architecture:
    """How to reach the parts of one kind of backbone."""

    layers: Callable[[Any], nn.ModuleList]
    attention: Callable[[Any], nn.Module]
    extra: Mapping[str, Any]


_ARCHITECTURES = {
    "bert": Architecture(
        lambda model: model.encoder.layer, lambda layer: layer.attention.self, {"add_pooling_layer": False}
    ),
    "nomic_bert": Architecture(lambda model: model.layers, lambda layer: layer.self_attn, {}),
    "modernbert": Architecture(lambda model: model.layers, lambda layer: layer.attn, {}),
}


def build_backbone(settings: Mapping[str, Any], layers: int | None, disable_dropout: bool) -> PreTrainedModel:
    """Build an untrained backbone from its configuration."""
    values = model_config(dict(settings), "the configuration of a backbone")
    family = _ARCHITECTURES[values["model_type"]]
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModel.from_config(config, attn_implementation=ATTENTION, trust_remote_code=False, **family.extra)
    if layers is not None:
        del family.layers(model)[layers:]
    for index, layer in enumerate(family.layers(model)):  # NomicBERT's attention does not know its layer
        family.attention(layer).layer_idx = index  # type: ignore[assignment]
    if disable_dropout:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
    return model


def first_layers(model: PreTrainedModel, layers: int | None) -> PreTrainedModel:
    """View a backbone's first layers; the view shares all parameters with `model`."""
    if layers is None:
        return model
    view = copy.copy(model)
    view._modules = dict(model._modules)
    holder = view
    if "encoder" in view._modules:
        holder = copy.copy(view.encoder)
        holder._modules = dict(view.encoder._modules)
        view._modules["encoder"] = holder
    name = "layer" if "layer" in holder._modules else "layers"
    holder._modules[name] = holder._modules[name][:layers]
    return view


def layer_shape(model: PreTrainedModel) -> tuple[int, int]:
    """Number of layers and of heads."""
    family = _ARCHITECTURES[model.config.model_type]
    return len(family.layers(model)), int(model.config.num_attention_heads)


def embed_text(model: PreTrainedModel, input_ids: Tensor, twice: bool) -> Tensor:
    """Text as `inputs_embeds`: word embeddings, or the whole embedding layer that the model will then apply again."""
    if twice:
        output: Tensor = model.embeddings(input_ids=input_ids)
        return output
    words: Tensor = model.get_input_embeddings()(input_ids)
    return words


def embed_prefix(model: PreTrainedModel, prefix: Tensor) -> Tensor:
    """Context and soft prompt as `inputs_embeds`, shape unchanged."""
    if model.config.model_type == "nomic_bert":
        prefix = prefix - model.embeddings.token_type_embeddings.weight[0]
    return prefix
