"""Losses of sparse models: sentence-transformers' SPLADE losses, counted, and SparseEmbed's on top of them.

    SPLADE        ranking + lambda_q FLOPS(queries) + lambda_d FLOPS(documents)
    SparseEmbed   ranking of term embeddings + lambda ranking of term weights + the same regularisers

Ranking is the contrastive loss over all documents of the batch and all mined negatives, or the distillation of a
teacher's scores: of margins (Hofstätter et al. 2020, arXiv 2010.02666) or of the distribution over a query's own
documents. FLOPS is sum_j (mean_i w_ij)^2 (Paria et al. 2020, arXiv 2004.05665). Too much weight on it, too early,
drives all term weights to 0, where ReLU passes no gradient: then the model has collapsed, and training stops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from sentence_transformers.sparse_encoder import losses
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.util import all_gather_with_grad
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss, softmax

from ..errors import TrainingError
from ..models.mlm import top_terms
from ..models.sparse_embed import Terms, all_pairs_scores
from .recipes import Recipe

# Mean active terms of a batch below which queries or documents have collapsed.
LEAST_ACTIVE = 1.0


class CountedFlops(losses.FlopsLoss):
    """The FLOPS regulariser of queries or documents, which counts active terms: weights above 0.

    `dimension` is the size of the vocabulary, where vectors hold more behind their term weights; None: they do not.

    >>> flops = CountedFlops("query")
    >>> _ = flops.compute_loss_from_embeddings(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
    >>> flops.active, flops.drain()
    (1.5, tensor([1.0000, 0.5000]))
    """

    def __init__(self, side: str, dimension: int | None = None) -> None:
        super().__init__(model=None)
        self.side = side
        self.active = math.inf
        self._dimension = dimension
        self._total: Tensor | None = None
        self._batches = 0

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        """Regularise vectors, shape (b, v) or wider."""
        weights = embeddings[:, : self._dimension]
        share = (weights.detach() > 0).float().mean(dim=0)
        self.active = float(share.sum())
        self._total = share if self._total is None else self._total + share
        self._batches += 1
        loss: Tensor = super().compute_loss_from_embeddings(weights)
        return loss

    def drain(self) -> Tensor | None:
        """Share of texts in which each term is active, (v,), over the batches since the last call."""
        mean = None if self._total is None else self._total / self._batches
        self._total, self._batches = None, 0
        return mean


class CountedSpladeLoss(losses.SpladeLoss):
    """`SpladeLoss` that says how sparse its model is."""

    def drain(self) -> dict[str, float]:
        """Active terms of a query and a document, and products for each pair, over the steps since the last call."""
        query, document = self.query_regularizer.drain(), self.document_regularizer.drain()
        if query is None or document is None:
            return {}
        return {
            "query_active": float(query.sum()),
            "document_active": float(document.sum()),
            "flops": float(query @ document),
        }

    def check(self, step: int) -> None:
        """Stop a run whose queries or documents had less than one active term on average in the last batch."""
        for counted in (self.document_regularizer, self.query_regularizer):
            if counted.active < LEAST_ACTIVE:
                raise TrainingError(
                    f"the sparse vectors have collapsed: at step {step} a {counted.side} has {counted.active:.2f} "
                    "active terms on average, and weights of 0 get no gradient. Nothing was changed at this step. "
                    "Train again, from the start or with an early checkpoint as base, with a smaller "
                    f"{counted.side}_flops, a longer flops_ramp, or a smaller learning_rate."
                )


class CountedCachedSpladeLoss(losses.CachedSpladeLoss, CountedSpladeLoss):
    """The same with gradient caching."""


def regularised(
    recipe: Recipe, model: nn.Module, ranking: nn.Module, dimension: int | None = None
) -> CountedSpladeLoss:
    """A ranking loss with the recipe's regularisers of the first `dimension` numbers of a vector (None: all)."""
    settings: dict[str, Any] = {
        "document_regularizer_weight": recipe.document_flops,
        "query_regularizer_weight": recipe.query_flops,
        "document_regularizer": CountedFlops("document", dimension),
        "query_regularizer": CountedFlops("query", dimension),
    }
    if recipe.chunk_tokens is None:
        return CountedSpladeLoss(model, ranking, **settings)
    return CountedCachedSpladeLoss(model, ranking, **settings, mini_batch_num_tokens=recipe.chunk_tokens)


def ramp(recipe: Recipe, loss: CountedSpladeLoss) -> SpladeRegularizerWeightSchedulerCallback:
    """The callback that raises the regularisers' weights from 0 with the square of the step."""
    return SpladeRegularizerWeightSchedulerCallback(loss, "quadratic", warmup_ratio=recipe.flops_ramp)


def splade_ranking(recipe: Recipe, model: nn.Module) -> Any:
    """SPLADE's ranking loss, by the recipe's `distillation`."""
    if recipe.distillation == "margin-mse":
        return losses.SparseMarginMSELoss(model)
    if recipe.distillation == "kl":
        return losses.SparseDistillKLDivLoss(model, temperature=recipe.distillation_temperature)
    return losses.SparseMultipleNegativesRankingLoss(
        model, scale=recipe.scale, gather_across_devices=recipe.share_negatives, **recipe.directions()
    )


class PackedTerms(nn.Module):
    """SparseEmbed with its outputs in one row for sentence-transformers' losses: (b, v + k d).

    A row is ``[weights of all terms | embeddings of the k heaviest]``; which terms these are follows from the weights.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: dict[str, Any]) -> dict[str, Tensor]:
        """``{"sentence_embedding"}`` of shape (b, v + k d)."""
        output = self.model(features)
        terms: Terms = output["terms"]
        return {"sentence_embedding": torch.cat([output["sentence_embedding"], terms.embeddings.flatten(1)], dim=1)}


def unpack(packed: Tensor, dimension: int, embedding_size: int) -> Terms:
    """Terms of packed rows (b, v + k d), in the order of the embeddings: by falling weight."""
    k = (packed.shape[1] - dimension) // embedding_size
    weights, ids = top_terms(packed[:, :dimension], k)
    return Terms(ids, weights, packed[:, dimension:].reshape(len(packed), k, embedding_size))


class SparseEmbedRanking(nn.Module):
    """SparseEmbed's ranking loss: by term embeddings (d numbers each of v terms), and by the weights of these terms."""

    def __init__(self, recipe: Recipe, dimension: int, embedding_size: int) -> None:
        super().__init__()
        self._recipe = recipe
        self._shape = dimension, embedding_size

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> dict[str, Tensor]:
        """Both parts of the loss, from packed queries, documents, and mined negatives, (b, v + k d) each.

        For distillation, `labels` are the teacher's scores of each query's documents, shape (b, documents).
        """
        packed, first = list(embeddings[1:]), 0
        if self._recipe.share_negatives and self._recipe.distillation == "none" and dist.is_initialized():
            packed = [all_gather_with_grad(column) for column in packed]
            first = dist.get_rank() * len(embeddings[0])
        queries, *documents = (unpack(column, *self._shape) for column in (embeddings[0], *packed))
        dense = torch.cat([all_pairs_scores(queries, column) for column in documents], dim=1)
        known = self._spread(queries)
        sparse = torch.cat([known @ self._spread(column).T for column in documents], dim=1)
        return {
            "dense_loss": self._rank(dense, labels, first),
            "sparse_loss": self._recipe.sparse_weight * self._rank(sparse, labels, first),
        }

    def _spread(self, terms: Terms) -> Tensor:
        """Weights of the chosen terms as rows of the whole vocabulary."""
        rows = terms.weights.new_zeros(len(terms.ids), self._shape[0])
        return rows.scatter(1, terms.ids, terms.weights)

    def _rank(self, scores: Tensor, labels: Tensor | None, first: int) -> Tensor:
        """Loss of the scores of all queries with all documents, column by column, shape (b, documents of the step)."""
        recipe = self._recipe
        if recipe.distillation == "none" or labels is None:
            return contrast(scores * recipe.scale, recipe.symmetric, first)
        own = own_scores(scores)
        if recipe.distillation == "margin-mse":
            return mse_loss(own[:, :1] - own[:, 1:], labels[:, :1] - labels[:, 1:])
        t = recipe.distillation_temperature
        return t**2 * kl_div(log_softmax(own / t, dim=1), softmax(labels / t, dim=1), reduction="batchmean")


def contrast(scores: Tensor, symmetric: bool = False, first: int = 0) -> Tensor:
    """Cross entropy of scores (b, d), where query i's own document is first + i; or its mean with the other direction.

    >>> round(float(contrast(torch.zeros(2, 3))), 4)
    1.0986
    """
    own = torch.arange(len(scores), device=scores.device)
    loss = cross_entropy(scores, own + first)
    return loss if not symmetric else (loss + cross_entropy(scores[:, first : first + len(scores)].T, own)) / 2


def own_scores(scores: Tensor) -> Tensor:
    """Scores with every query's own document of each column of b documents: (b, n b) to (b, n)."""
    b = len(scores)
    return scores.view(b, -1, b).diagonal(dim1=0, dim2=2).T
