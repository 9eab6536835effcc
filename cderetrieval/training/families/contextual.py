"""Contextual models, and the bi-encoder that they are compared with.

Training starts from pretrained backbones in both stages, and everything else is new: heads, soft prompts, null tokens
are drawn under the recipe's seed. The gates of a gated cached model start at zero, so that it starts as exactly its
backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer

from ...errors import ConfigError, ModelError
from ...files import reading
from ...models.backbone import layer_shape
from ...models.config import FAMILIES, ContextualConfig
from ...models.contextual import ContextualTransformer
from ...models.dense import DenseEncoder
from ...models.directory import AGAIN, config_of, load_tokenizer
from ...models.fits import check_counts, check_size
from ...models.locate import find, is_contextual
from ...models.plain import is_plain, plain_model
from ...models.published import KNOWN_BACKBONES, backbone_settings, native_names
from ...models.sentence_transformer import ContextualModule
from ...models.weights import load_tensors, read_checkpoint
from ..collator import PairCollator
from ..gradcache import Caching
from ..losses import ContextualLoss
from ..recipes import Recipe
from .base import Family, switch_on, write_model

if TYPE_CHECKING:
    from torch import Tensor

    from ..prepare import Prepared

# A plain encoder, whatever context it is given: no context in training, so its gates stay at zero.
WITHOUT_CONTEXT = {"cached_form": "gated", "soft_prompt_tokens": 0, "null_token": False, "sequence_dropout": 0.0}
_OF_CONTEXT = ("gates", "sequence_dropout_null_embedding", "prompt_projection")
# What masked-language-model and sentence-transformers checkpoints put around the backbone.
_PREFIXES = ("bert.", "model.")
_OTHERS = ("cls.", "head.", "decoder.", "pooler.", "classifier.")


class ContextualFamily(Family):
    """Contextual models: a context of the batch, a loss with its own two-stage gradient cache and masks."""

    casts = False

    def build(self) -> SentenceTransformer:
        """A contextual model, as the one module of a `SentenceTransformer`."""
        recipe = self.recipe
        contextual = start_model(recipe)
        if recipe.statistics and not is_plain(contextual):
            raise ConfigError(
                "statistics are for vectors of a backbone alone: set head='none', soft_prompt_tokens=0 and "
                "skip_instruction=False in the recipe's model, or leave them out."
            )
        if recipe.first_stage == "frozen":
            contextual.first_stage_model.requires_grad_(False)
        backbones = [contextual.second_stage_model.backbone]
        if contextual.config.first_stage == "own":
            backbones.append(contextual.first_stage_model.backbone)
        switch_on(recipe, backbones)
        return SentenceTransformer(
            modules=[ContextualModule(contextual)],
            device="cpu",
            prompts=dict(contextual.config.prompts),
            similarity_fn_name="cosine",
        )

    def settings(self, model: SentenceTransformer) -> Mapping[str, Any]:
        """The model's configuration."""
        return dict(model[0].config.to_dict())

    def loss(self, model: SentenceTransformer, prepared: Prepared) -> ContextualLoss:
        """The contextual loss, with the recipe's filter of false negatives."""
        recipe = self.recipe
        return ContextualLoss(
            model,
            scale=recipe.scale,
            context_size=0 if recipe.architecture == "biencoder" else recipe.context_size,
            null_probability=recipe.null_probability,
            symmetric=recipe.symmetric,
            share_negatives=recipe.share_negatives,
            caching=Caching(
                recipe.chunk_tokens, recipe.first_chunk_tokens, recipe.dtype, train_first=recipe.first_stage != "frozen"
            ),
            false_negatives=prepared.false_negatives,
        )

    def encoder(self, model: SentenceTransformer) -> ContextualTransformer:
        """The contextual model."""
        contextual: ContextualTransformer = model[0].model
        contextual.__dict__.pop("fingerprint", None)  # the weights have changed since it was computed
        return contextual

    def collator(self, model: SentenceTransformer, prepared: Prepared) -> PairCollator:
        """Columns as the contextual loss takes them."""
        return PairCollator(model.preprocess, prepared.pairs, dict(model.prompts), contextual=True)

    def save(self, model: SentenceTransformer, path: str, card: Mapping[str, Any]) -> None:
        """Write the contextual model with its card."""
        model[0].model.save_pretrained(path, **card)

    def finish(self, model: SentenceTransformer, path: str, card: Mapping[str, Any]) -> None:
        """Write a bi-encoder as a plain model, unless it has a head; others as :meth:`save` does."""
        contextual = self.encoder(model)
        if self.recipe.architecture == "biencoder" and is_plain(contextual):
            plain = plain_model(contextual)
            write_model(plain, DenseEncoder(plain), path, card)
        else:
            self.save(model, path, card)


def start_model(recipe: Recipe) -> ContextualTransformer:
    """Build the model that training starts from, on the CPU."""
    directory = find(recipe.base)
    with reading(directory, error=ModelError, remedy=AGAIN):
        if is_contextual(directory):
            model = ContextualTransformer.from_pretrained(str(directory), device="cpu")
            return _adapted(model, recipe)
        return _from_backbone(directory, recipe)


def _adapted(model: ContextualTransformer, recipe: Recipe) -> ContextualTransformer:
    """A contextual model continues as it is, except for what training may change."""
    if recipe.architecture not in ("biencoder", model.config.attention):
        raise ConfigError(
            f"architecture={recipe.architecture!r}, but {recipe.base} was made with {model.config.attention!r}."
        )
    changes: dict[str, Any] = {**recipe.model, "max_length": recipe.max_length, "context_size": recipe.context_size}
    if recipe.sequence_dropout:
        changes["sequence_dropout"] = recipe.sequence_dropout
    tensors = model.state_dict()
    if recipe.architecture == "biencoder":
        if model.config.attention != "cached":
            raise ConfigError(f"architecture='biencoder' cannot start from {recipe.base}: give a backbone as base.")
        changes |= WITHOUT_CONTEXT
        tensors = {k: v for k, v in tensors.items() if not any(part in k for part in _OF_CONTEXT)}
        tensors["second_stage_model.gates"] = torch.zeros(layer_shape(model.second_stage_model.backbone))
    adapted = ContextualTransformer(model.config.replace(**changes), model.tokenizer)
    load_tensors(adapted, tensors, recipe.base)
    return adapted


def _from_backbone(directory: Path, recipe: Recipe) -> ContextualTransformer:
    settings = _settings(directory, recipe.base)
    tokenizer = load_tokenizer(directory)
    loaded = read_checkpoint(directory)
    where = str(directory / "config.json")
    check_counts(settings, len(loaded), where)
    config = model_config(recipe, settings, tokenizer)
    check_size(lambda: ContextualTransformer(config), sum(tensor.numel() for tensor in loaded.values()), where)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = ContextualTransformer(config, tokenizer)
    tensors = backbone_tensors(loaded)
    _load(model.second_stage_model.backbone, tensors, recipe.base)
    if config.first_stage == "own":
        _load(model.first_stage_model.backbone, tensors, recipe.base)
    return model


def _settings(directory: Path, name: str) -> dict[str, Any]:
    settings = dict(backbone_settings(name) if name in KNOWN_BACKBONES else config_of(directory))
    if settings.get("model_type") not in FAMILIES:
        raise ModelError(
            f"base={name!r} is a {settings.get('model_type')!r} model; contextual models are built on "
            f"{', '.join(FAMILIES)}, or start from a contextual model."
        )
    return {key: value for key, value in settings.items() if key not in ("architectures", "_name_or_path")}


def model_config(recipe: Recipe, backbone: dict[str, Any], tokenizer: Any = None) -> ContextualConfig:
    """Settings of the model that a recipe trains, from transformers' configuration of its backbone.

    The tokenizer finds the end of an instruction, where the recipe skips it.
    """
    cached = recipe.architecture != "joint"
    values: dict[str, Any] = {
        "backbone": backbone,
        "attention": "cached" if cached else "joint",
        "first_stage": "tied" if recipe.first_stage == "tied" else "own",
        "context_size": recipe.context_size,
        "sequence_dropout": recipe.sequence_dropout,
        "null_token": recipe.sequence_dropout > 0 or recipe.null_probability > 0,
        "max_length": recipe.max_length,
        "logit_scale": recipe.scale,
        **({"context_positions": "separate"} if cached else {}),
        **recipe.model,
    }
    if recipe.architecture == "biencoder":
        values |= {**WITHOUT_CONTEXT, "first_stage": "tied"}
        values |= {"first_stage_head": "none", "first_stage_layers": None, "context_positions": "separate"}
        values |= {"text_embedding": "once", "exact_context_size": False}
    if values.get("skip_instruction") and values.get("instruction_end_id") is None and tokenizer is not None:
        values["instruction_end_id"] = tokenizer.encode(": ", add_special_tokens=False)[0]
    return ContextualConfig.from_dict(values)


def backbone_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a checkpoint under the names of transformers' bare backbone, without heads."""
    stage = "second_stage_model.backbone."
    found = {}
    for name, tensor in tensors.items():
        bare = next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
        if not bare.startswith(_OTHERS) and bare != "embeddings.position_ids":
            found[stage + bare] = tensor
    return {name.removeprefix(stage): tensor for name, tensor in native_names(found).items()}


def _load(backbone: Any, tensors: dict[str, Tensor], source: str) -> None:
    """Load pretrained weights; a backbone with fewer layers leaves out the others."""
    expected = backbone.state_dict()
    layers = ("layers.", "encoder.layer.")
    load_tensors(backbone, {k: v for k, v in tensors.items() if k in expected or not k.startswith(layers)}, source)
