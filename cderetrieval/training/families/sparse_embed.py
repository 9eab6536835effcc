"""SparseEmbed: SPLADE's trainer and regularisers, and a ranking loss by term embeddings beside the one by weights.

A recipe's `model` may hold ``pooling``, ``embedding_size``, ``k_tokens`` and ``query_k_tokens``, see
:class:`~cderetrieval.models.sparse_embed.SparseEmbed`. Bases are those of SPLADE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...models.sparse_embed import SparseEmbed
from ..recipes import Recipe
from ..sparse_losses import CountedSpladeLoss, PackedTerms, SparseEmbedRanking, regularised
from .splade import SpladeFamily

if TYPE_CHECKING:
    from ..run import Prepared


class SparseEmbedFamily(SpladeFamily):
    """The heaviest terms of a text, each with an embedding."""

    kind = SparseEmbed
    known = ("pooling", "embedding_size", "k_tokens", "query_k_tokens")

    def settings(self, model: Any) -> Mapping[str, Any]:
        """What it is, and its numbers of terms and dimensions."""
        own = {"embedding_size": model.embedding_size, "query_k_tokens": model.query_k_tokens}
        return {**super().settings(model), **own}

    def loss(self, recipe: Recipe, model: Any, prepared: Prepared, device: str | None) -> CountedSpladeLoss:
        """Both rankings and the regularisers."""
        dimension = self.encoder(model).dimension
        ranking = SparseEmbedRanking(
            dimension,
            model.embedding_size,
            scale=recipe.scale,
            symmetric=recipe.symmetric,
            share_negatives=recipe.share_negatives,
            sparse_weight=recipe.sparse_weight,
            distillation=recipe.distillation,
            temperature=recipe.distillation_temperature,
        )
        return regularised(recipe, PackedTerms(model), ranking, dimension)
