"""SPLADE and SparseEmbed: sentence-transformers' sparse trainer and losses on a masked language model.

A recipe's `model` may hold, for SPLADE, ``pooling`` ("max", "sum"), ``k_tokens``, the most terms of a text once it is
trained, and ``inference_free``: queries are looked up, only documents are learned (SPLADE-doc); for SparseEmbed,
``pooling``, ``embedding_size``, ``k_tokens`` and ``query_k_tokens``. The base is a SPLADE model or a masked language
model; ``"all-MiniLM-L6-v2"``, which is neither, gets its word embeddings as output layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...models.locate import ALIASES
from ...models.mlm import masked_lm
from ...models.sparse_embed import SparseEmbed
from ...models.splade import Splade
from ..sparse_losses import CountedSpladeLoss, PackedTerms, SparseEmbedRanking, ramp, regularised, splade_ranking
from .base import Family, known_settings, switch_on

if TYPE_CHECKING:
    from ..prepare import Prepared

MINILM = "all-MiniLM-L6-v2"


class SpladeFamily(Family):
    """Weights over the vocabulary."""

    sparse = True
    kind: ClassVar[type[Splade]] = Splade
    known: tuple[str, ...] = ("pooling", "k_tokens", "inference_free")

    def build(self) -> Any:
        """A `SparseEncoder` on the CPU."""
        recipe = self.recipe
        settings = {**known_settings(recipe, self.known), "max_length": recipe.max_length, "device": "cpu"}
        inference_free = settings.pop("inference_free", False)
        if recipe.base in (MINILM, ALIASES[MINILM]):
            mlm, tokenizer = masked_lm()
            encoder = self.kind(model=mlm, tokenizer=tokenizer, **settings)
        else:
            encoder = self.kind(recipe.base, **settings)
        switch_on(recipe, [encoder.transformer.model])
        return encoder.inference_free().model if inference_free else encoder.model

    def settings(self, model: Any) -> Mapping[str, Any]:
        """What it is, and its numbers of terms."""
        encoder = self.encoder(model)
        return {
            "kind": encoder.kind,
            "dimension": encoder.dimension,
            "max_length": encoder.settings.max_length,
            "pooling": encoder.pooling.pooling_strategy,
            "modules": [type(module).__name__ for module in model],
            "k_tokens": encoder.k_tokens,
        }

    def loss(self, model: Any, prepared: Prepared) -> CountedSpladeLoss:
        """Ranking and regularisers."""
        return regularised(self.recipe, model, splade_ranking(self.recipe, model))

    def callbacks(self, loss: Any) -> list[Any]:
        """The ramp of the regularisers' weights."""
        return [ramp(self.recipe, loss)]

    def encoder(self, model: Any) -> Splade:
        """The model as an encoder."""
        return self.kind(model=model)


class SparseEmbedFamily(SpladeFamily):
    """The heaviest terms of a text, each with an embedding."""

    kind = SparseEmbed
    known = ("pooling", "embedding_size", "k_tokens", "query_k_tokens")

    def settings(self, model: Any) -> Mapping[str, Any]:
        """What it is, and its numbers of terms and dimensions."""
        own = {"embedding_size": model.embedding_size, "query_k_tokens": model.query_k_tokens}
        return {**super().settings(model), **own}

    def loss(self, model: Any, prepared: Prepared) -> CountedSpladeLoss:
        """Both rankings and the regularisers."""
        dimension = self.encoder(model).dimension
        ranking = SparseEmbedRanking(self.recipe, dimension, model.embedding_size)
        return regularised(self.recipe, PackedTerms(model), ranking, dimension)
