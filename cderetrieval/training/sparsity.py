"""How sparse a model in training is, counted where its regulariser sees the vectors anyway; and when it has collapsed.

    regulariser         sum_j (mean_i w_ij)^2            of queries and of documents, each with a weight of its own
    active dimensions   terms of a text with a weight above 0
    flops               sum_j p_j(query) p_j(document)   products for each document that a query is scored with

Too much weight on a regulariser, too early, drives all term weights to 0, and as ReLU passes no gradient there, none
comes back: texts with less than one active term on average have collapsed.

FLOPS: Paria et al. 2020, arXiv 2004.05665.
"""

from __future__ import annotations

import torch
from sentence_transformers.sparse_encoder.losses import FlopsLoss
from torch import Tensor

from ..errors import TrainingError

SIDES = ("query", "document")
# Mean active terms of a batch below which a side has collapsed.
LEAST_ACTIVE = 1.0


class Sparsity:
    """Counts active dimensions and FLOPS of queries and documents.

    Examples
    --------
    >>> sparsity = Sparsity()
    >>> sparsity.count("query", torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
    >>> sparsity.count("document", torch.tensor([[0.0, 3.0], [0.0, 1.0]]))
    >>> sparsity.check(step=1)
    >>> sparsity.drain()
    {'query_active': 1.5, 'document_active': 1.0, 'flops': 0.5}
    """

    def __init__(self) -> None:
        self._shares: dict[str, Tensor] = {}
        self._batches = dict.fromkeys(SIDES, 0)
        self._last: dict[str, float] = {}

    @torch.no_grad()
    def count(self, side: str, weights: Tensor) -> None:
        """Count the term weights of a batch, shape (b, v), of ``"query"`` or ``"document"``."""
        share = (weights > 0).float().mean(dim=0)
        self._last[side] = float(share.sum())
        self._shares[side] = self._shares[side] + share if side in self._shares else share
        self._batches[side] += 1

    def drain(self) -> dict[str, float]:
        """Active dimensions of each side and FLOPS, over the batches since the last call."""
        shares = {side: self._shares[side] / self._batches[side] for side in SIDES if side in self._shares}
        found = {f"{side}_active": float(share.sum()) for side, share in shares.items()}
        if len(shares) == len(SIDES):
            found["flops"] = float(shares["query"] @ shares["document"])
        self._shares, self._batches = {}, dict.fromkeys(SIDES, 0)
        return found

    def check(self, step: int) -> None:
        """Stop a run that has collapsed.

        Raises
        ------
        TrainingError
            If the queries or the documents of the last batch have less than one active term on average.
        """
        for side, active in self._last.items():
            if active < LEAST_ACTIVE:
                raise TrainingError(
                    f"the sparse vectors have collapsed: at step {step} a {side} has {active:.2f} active terms on "
                    "average, and weights of 0 get no gradient. Nothing was changed at this step. Train again, from "
                    f"the start or with an early checkpoint as base, with a smaller {side}_flops, a longer flops_ramp, "
                    "or a smaller learning_rate."
                )


class CountedFlops(FlopsLoss):
    """The FLOPS regulariser of one side, which counts what it sees.

    Parameters
    ----------
    sparsity
        Where to count.
    side
        ``"query"`` or ``"document"``.
    dimension
        Size of the vocabulary, where vectors hold more behind their term weights; None: they do not.
    """

    def __init__(self, sparsity: Sparsity, side: str, dimension: int | None = None) -> None:
        super().__init__(model=None)
        self._sparsity = sparsity
        self._side = side
        self._dimension = dimension

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        """Regularise vectors, shape (b, v) or wider."""
        weights = embeddings[:, : self._dimension]
        self._sparsity.count(self._side, weights)
        loss: Tensor = super().compute_loss_from_embeddings(weights)
        return loss
