"""Contextual models, and the bi-encoder that they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentence_transformers import SentenceTransformer

from ...errors import ConfigError
from ...models.dense import DenseEncoder
from ...models.plain import is_plain, plain_model
from ...models.sentence_transformer import ContextualModule
from ..collator import PairCollator
from ..false_negatives import FalseNegativeFilter
from ..gradcache import Caching
from ..losses import ContextualLoss
from ..recipes import Recipe
from ..start import start_model
from ..surrogate import FreshVectors, load_surrogate
from ..trainer import DenseTrainer
from .base import Family, switch_on, write_model

if TYPE_CHECKING:
    from ...models.contextual import ContextualTransformer
    from ..data import PairData
    from ..prepare import Prepared


class ContextualFamily(Family):
    """Contextual models: a context of the batch, a loss with its own two-stage gradient cache and masks."""

    trainer = DenseTrainer
    casts = False

    def build(self, recipe: Recipe) -> SentenceTransformer:
        """A contextual model, as the one module of a `SentenceTransformer`."""
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

    def loss(
        self, recipe: Recipe, model: SentenceTransformer, prepared: Prepared, device: str | None
    ) -> ContextualLoss:
        """The contextual loss, with the recipe's filter of false negatives."""
        found = None
        if recipe.filter == "stored" and prepared.vectors is not None:
            found = FalseNegativeFilter(prepared.vectors, recipe.filter_margin)
        elif recipe.filter == "fresh":
            surrogate = load_surrogate(recipe.surrogate, max_length=recipe.surrogate_length, device=device)
            found = FalseNegativeFilter(FreshVectors(prepared.data, surrogate), recipe.filter_margin)
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
            false_negatives=found,
        )

    def encoder(self, model: SentenceTransformer) -> ContextualTransformer:
        """The contextual model."""
        contextual: ContextualTransformer = model[0].model
        contextual.__dict__.pop("fingerprint", None)  # the weights have changed since it was computed
        return contextual

    def collator(self, recipe: Recipe, model: SentenceTransformer, data: PairData) -> PairCollator:
        """Columns as the contextual loss takes them."""
        del recipe
        return PairCollator(model.preprocess, data, dict(model.prompts), contextual=True)

    def save(self, model: SentenceTransformer, path: str, card: Mapping[str, Any]) -> None:
        """Write the contextual model with its card."""
        model[0].model.save_pretrained(path, **card)

    def finish(self, recipe: Recipe, model: SentenceTransformer, path: str, card: Mapping[str, Any]) -> None:
        """Write a bi-encoder as a plain model, unless it has a head; others as :meth:`save` does."""
        contextual = self.encoder(model)
        if recipe.architecture == "biencoder" and is_plain(contextual):
            plain = plain_model(contextual)
            write_model(plain, DenseEncoder(plain), path, card)
        else:
            self.save(model, path, card)
