"""Dense models: sentence-transformers' contrastive loss, as multi-qa and the all-* models were trained.

A recipe's `model` may hold ``pooling`` ("mean", "cls", "lasttoken") and ``normalize``: then the base is taken as a bare
backbone. Without them the base is used as it is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from sentence_transformers.util import cos_sim, dot_score

from ...errors import ConfigError
from ...models.dense import DenseEncoder
from ...models.directory import HUB, SAFE, opened
from ...models.locate import find, is_contextual
from ...models.statistics import StatisticsModel
from .base import Family, known_settings, switch_on

if TYPE_CHECKING:
    from ..prepare import Prepared


class DenseFamily(Family):
    """One vector for each text, compared by cosine or inner product."""

    def build(self) -> SentenceTransformer:
        """Any sentence-transformers model, or a backbone with the recipe's pooling."""
        recipe = self.recipe
        directory = find(recipe.base)
        if is_contextual(directory):
            raise ConfigError(f"{recipe.base} is a contextual model: architecture='dense' would ignore its context.")
        settings = known_settings(recipe, ("pooling", "normalize"))
        with opened(directory) as view:
            model = _model(str(view), settings)
        if not isinstance(model[0], Transformer):
            raise ConfigError(
                f"{recipe.base} is made of {type(model[0]).__name__}: only transformers are trained here."
            )
        if (statistics := recipe.statistics_config()) is not None:
            StatisticsModel(DenseEncoder(model), statistics)  # refuses what cannot have them before it is trained
        model.max_seq_length = recipe.max_length
        switch_on(recipe, [module.model for module in model if isinstance(module, Transformer)])
        return model

    def settings(self, model: SentenceTransformer) -> Mapping[str, Any]:
        """Modules and lengths."""
        return {
            "modules": [type(module).__name__ for module in model],
            "dimension": model.get_embedding_dimension(),
            "max_length": model.max_seq_length,
            "similarity": model.similarity_fn_name,
        }

    def loss(self, model: SentenceTransformer, prepared: Prepared) -> Any:
        """The contrastive loss over all documents of the batch, gradient-cached where the recipe has chunks."""
        recipe = self.recipe
        settings = {
            "scale": recipe.scale,
            "similarity_fct": dot_score if model.similarity_fn_name == "dot" else cos_sim,
            "gather_across_devices": recipe.share_negatives,
            **recipe.directions(),
        }
        if recipe.chunk_tokens is None:
            return MultipleNegativesRankingLoss(model, **settings)
        return CachedMultipleNegativesRankingLoss(model, mini_batch_num_tokens=recipe.chunk_tokens, **settings)

    def encoder(self, model: SentenceTransformer) -> DenseEncoder:
        """The model as an encoder."""
        return DenseEncoder(model)


def _model(directory: str, settings: Mapping[str, Any]) -> SentenceTransformer:
    if not settings:
        return SentenceTransformer(directory, device="cpu", **SAFE)
    transformer = Transformer(
        directory, model_kwargs={**SAFE["model_kwargs"], **HUB}, processor_kwargs={**HUB}, config_kwargs={**HUB}
    )
    try:
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode=settings.get("pooling", "mean"))
    except ValueError as error:
        raise ConfigError(f"recipe: model.pooling={settings['pooling']!r} is unknown ({error}).") from error
    modules = [transformer, pooling, *([Normalize()] if settings.get("normalize") else [])]
    return SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="cosine")
