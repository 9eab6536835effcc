"""Losses of sparse models: sentence-transformers' SPLADE losses, counted, and SparseEmbed's on top of them.

    SPLADE        ranking + lambda_q FLOPS(queries) + lambda_d FLOPS(documents)
    SparseEmbed   ranking of term embeddings + lambda ranking of term weights + the same regularisers

Ranking is the contrastive loss over all documents of the batch and all mined negatives, or the distillation of a
teacher's scores: of margins (Hofstätter et al. 2020, arXiv 2010.02666) or of the distribution over a query's own
documents.

SparseEmbed's vectors do not fit one tensor of equal columns. For the losses of sentence-transformers they are packed
into one row each, ``[weights of all terms | embeddings of the k heaviest]``; which terms these are follows from the
weights. So gradient caching and regularisers serve both models unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from sentence_transformers.sparse_encoder import losses
from sentence_transformers.sparse_encoder.callbacks.splade_callbacks import SpladeRegularizerWeightSchedulerCallback
from sentence_transformers.util import all_gather_with_grad
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss, softmax

from ..models.mlm import top_terms
from ..models.sparse_embed import Terms, all_pairs_scores
from .recipes import Recipe
from .sparsity import CountedFlops, Sparsity


class CountedSpladeLoss(losses.SpladeLoss):
    """`SpladeLoss` that says how sparse its model is."""

    sparsity: Sparsity

    def drain(self) -> dict[str, float]:
        """What was counted since the last call."""
        return self.sparsity.drain()

    def check(self, step: int) -> None:
        """Stop a run that has collapsed."""
        self.sparsity.check(step)


class CountedCachedSpladeLoss(losses.CachedSpladeLoss, CountedSpladeLoss):
    """The same with gradient caching."""


def regularised(
    recipe: Recipe, model: nn.Module, ranking: nn.Module, dimension: int | None = None
) -> CountedSpladeLoss:
    """A ranking loss with the recipe's regularisers, gradient-cached where the recipe has chunks.

    Parameters
    ----------
    recipe
        Says weights and chunks.
    model
        Features to ``{"sentence_embedding"}``.
    ranking
        Has ``compute_loss_from_embeddings(vectors of each column, labels)``.
    dimension
        Size of the vocabulary, where vectors hold more than term weights.
    """
    sparsity = Sparsity()
    settings: dict[str, Any] = {
        "document_regularizer_weight": recipe.document_flops,
        "query_regularizer_weight": recipe.query_flops,
        "document_regularizer": CountedFlops(sparsity, "document", dimension),
        "query_regularizer": CountedFlops(sparsity, "query", dimension),
    }
    if recipe.chunk_tokens is None:
        loss = CountedSpladeLoss(model, ranking, **settings)
    else:
        loss = CountedCachedSpladeLoss(model, ranking, **settings, mini_batch_num_tokens=recipe.chunk_tokens)
    loss.sparsity = sparsity
    return loss


def ramp(recipe: Recipe, loss: CountedSpladeLoss) -> SpladeRegularizerWeightSchedulerCallback:
    """The callback that raises the regularisers' weights from 0 with the square of the step."""
    return SpladeRegularizerWeightSchedulerCallback(loss, "quadratic", warmup_ratio=recipe.flops_ramp)


def splade_ranking(recipe: Recipe, model: nn.Module) -> nn.Module:
    """SPLADE's ranking loss, by the recipe's `distillation`."""
    if recipe.distillation == "margin-mse":
        return losses.SparseMarginMSELoss(model)
    if recipe.distillation == "kl":
        return losses.SparseDistillKLDivLoss(model, temperature=recipe.distillation_temperature)
    return losses.SparseMultipleNegativesRankingLoss(
        model, scale=recipe.scale, gather_across_devices=recipe.share_negatives, **recipe.directions()
    )


class PackedTerms(nn.Module):
    """SparseEmbed with its two outputs packed into one.

    Parameters
    ----------
    model
        A :class:`~cderetrieval.models.sparse_embed.SparseEmbedModel`.
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
    return Terms(ids, weights, packed[:, dimension:].unflatten(1, (k, embedding_size)))


class SparseEmbedRanking(nn.Module):
    """SparseEmbed's ranking loss: by term embeddings, and, with a weight, by the weights of the same terms.

    Parameters
    ----------
    dimension, embedding_size
        Of the vocabulary and of a term's embedding.
    scale, symmetric, share_negatives
        Of the contrastive loss.
    sparse_weight
        Of the loss by term weights.
    distillation, temperature
        ``"none"``, ``"margin-mse"`` or ``"kl"``.
    """

    def __init__(
        self,
        dimension: int,
        embedding_size: int,
        *,
        scale: float = 1.0,
        symmetric: bool = False,
        share_negatives: bool = False,
        sparse_weight: float = 0.1,
        distillation: str = "none",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self._shape = dimension, embedding_size
        self.scale = scale
        self.symmetric = symmetric
        self.share_negatives = share_negatives
        self.sparse_weight = sparse_weight
        self.distillation = distillation
        self.temperature = temperature

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> dict[str, Tensor]:
        """Both parts of the loss.

        Parameters
        ----------
        embeddings
            Packed queries and documents, (b, ...) each; then mined negatives, of which distillation needs (b, ...).
        labels
            For distillation the teacher's scores of each query's documents, shape (b, documents).
        """
        packed, first = list(embeddings[1:]), 0
        if self.share_negatives and self.distillation == "none" and dist.is_initialized():
            packed = [all_gather_with_grad(column) for column in packed]
            first = dist.get_rank() * len(embeddings[0])
        queries, *documents = (unpack(column, *self._shape) for column in (embeddings[0], *packed))
        dense = torch.cat([all_pairs_scores(queries, column) for column in documents], dim=1)
        known = self._spread(queries)
        sparse = torch.cat([known @ self._spread(column).T for column in documents], dim=1)
        return {
            "dense_loss": self._rank(dense, labels, first),
            "sparse_loss": self.sparse_weight * self._rank(sparse, labels, first),
        }

    def _spread(self, terms: Terms) -> Tensor:
        """Weights of the chosen terms as rows of the whole vocabulary."""
        rows = terms.weights.new_zeros(len(terms.ids), self._shape[0])
        return rows.scatter(1, terms.ids, terms.weights)

    def _rank(self, scores: Tensor, labels: Tensor | None, first: int) -> Tensor:
        """Loss of the scores of all queries with all documents, column by column, shape (b, documents of the step)."""
        if self.distillation == "none" or labels is None:
            return contrast(scores * self.scale, self.symmetric, first)
        own = own_scores(scores)
        if self.distillation == "margin-mse":
            return mse_loss(own[:, :1] - own[:, 1:], labels[:, :1] - labels[:, 1:])
        t = self.temperature
        return t**2 * kl_div(log_softmax(own / t, dim=1), softmax(labels / t, dim=1), reduction="batchmean")


def contrast(scores: Tensor, symmetric: bool = False, first: int = 0) -> Tensor:
    """Cross entropy of each query over all documents; or the mean with that of its own document over the queries.

    Parameters
    ----------
    scores
        Of queries with documents, shape (b, d).
    symmetric
        Whether to take the mean.
    first
        Place of the first query's own document; those of the others follow.

    Examples
    --------
    >>> round(float(contrast(torch.zeros(2, 3))), 4)
    1.0986
    """
    own = torch.arange(len(scores), device=scores.device)
    loss = cross_entropy(scores, own + first)
    return loss if not symmetric else (loss + cross_entropy(scores[:, first : first + len(scores)].T, own)) / 2


def own_scores(scores: Tensor) -> Tensor:
    """Of columns of b documents each, every query's own: (b, n b) to (b, n)."""
    b = len(scores)
    return scores.unflatten(1, (-1, b)).diagonal(dim1=0, dim2=2).T
