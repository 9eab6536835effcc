"""The training steps of sparsembed, `train_splade` and `train_sparsembed`: one call is one step of the optimizer.

Whole runs, with checkpoints, evaluation and gradient caching, are recipes of :mod:`cderetrieval.training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainingError
from ..models.sparse_embed import all_pairs_scores, pairwise_scores
from .losses import Flops, Ranking
from .model import SparsEmbed, Splade, terms_of

Losses = dict[str, Tensor]


def train_splade(
    model: Splade,
    optimizer: torch.optim.Optimizer,
    anchor: list[str],
    positive: list[str],
    negative: list[str],
    flops_loss_weight: float = 1e-4,
    sparse_loss_weight: float = 1.0,
    in_batch_negatives: bool = False,
    threshold_flops: float = 10,
    **kwargs: Any,
) -> Losses:
    """Train a SPLADE model on one batch of triples; returns the losses without their weights.

    >>> from cderetrieval.sparsembed.model import Splade
    >>> from cderetrieval.testing import tiny_splade
    >>> model = Splade(model=tiny_splade().model)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    >>> sorted(train_splade(model, optimizer, ["owls"], ["owls hunt"], ["bees fly"]))
    ['flops', 'sparse']
    """
    outputs = [model(texts, **kwargs) for texts in (anchor, positive, negative)]
    weights = [output["sparse_activations"] for output in outputs]
    losses = {
        "sparse": _sparse_loss(weights, in_batch_negatives),
        "flops": Flops()(*weights, threshold=threshold_flops),
    }
    return _step(optimizer, losses, {"sparse": sparse_loss_weight, "flops": flops_loss_weight}, weights[0])


def train_sparsembed(
    model: SparsEmbed,
    optimizer: torch.optim.Optimizer,
    anchor: list[str],
    positive: list[str],
    negative: list[str],
    k_tokens: int = 256,
    flops_loss_weight: float = 1e-4,
    sparse_loss_weight: float = 0.1,
    dense_loss_weight: float = 1.0,
    in_batch_negatives: bool = False,
    threshold_flops: float = 10,
) -> Losses:
    """Train a SparseEmbed model on one batch of triples; each text keeps its `k_tokens` heaviest terms."""
    outputs = [model(texts, k_tokens=min(k_tokens, model.dimension)) for texts in (anchor, positive, negative)]
    weights = [output["sparse_activations"] for output in outputs]
    terms = [terms_of(output) for output in outputs]
    dense = all_pairs_scores(terms[0], terms[1]), pairwise_scores(terms[0], terms[2])
    losses = {
        "dense": _rank(*dense, in_batch_negatives),
        "sparse": _sparse_loss(weights, in_batch_negatives),
        "flops": Flops()(*weights, threshold=threshold_flops),
    }
    factors = {"dense": dense_loss_weight, "sparse": sparse_loss_weight, "flops": flops_loss_weight}
    return _step(optimizer, losses, factors, weights[0])


def _sparse_loss(weights: list[Tensor], in_batch_negatives: bool) -> Tensor:
    anchors, positives, negatives = weights
    return _rank(anchors @ positives.T, (anchors * negatives).sum(dim=1), in_batch_negatives)


def _rank(scores: Tensor, negative_scores: Tensor, in_batch_negatives: bool) -> Tensor:
    """Ranking loss of scores with all positives (b, b) and own negatives (b,)."""
    b = len(scores)
    if in_batch_negatives:
        others = scores[~torch.eye(b, dtype=torch.bool, device=scores.device)].view(b, b - 1)
        negative_scores = torch.cat([others, negative_scores[:, None]], dim=1)
    loss: Tensor = Ranking()(scores.diagonal(), negative_scores)
    return loss


def _step(optimizer: torch.optim.Optimizer, losses: Losses, factors: Mapping[str, float], anchors: Tensor) -> Losses:
    """One step of the optimizer on the weighted sum."""
    loss = torch.stack([factors[name] * value for name, value in losses.items()]).sum()
    if not torch.isfinite(loss):
        shown = ", ".join(f"{name} {float(value.detach())}" for name, value in losses.items())
        raise TrainingError(
            f"a loss is not finite ({shown}); nothing was changed. Look at this batch, or take a smaller learning rate."
        )
    if not (anchors > 0).any():
        raise TrainingError(
            "the sparse vectors have collapsed: no anchor of this batch has an active term, and weights of 0 get no "
            "gradient. Start again with a smaller flops_loss_weight, more steps of the FlopsScheduler, or a smaller "
            "learning rate."
        )
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return {name: value.detach() for name, value in losses.items()}
