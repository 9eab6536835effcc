"""The losses of sparsembed, with gradients everywhere: `Flops`, `FlopsScheduler`, `Ranking`.

sparsembed clips its ranking loss to [0, 1], which removes the gradient above 1, and pulls FLOPS towards a threshold
from both sides. Here the ranking loss is the papers' cross entropy, and FLOPS are only pushed down to the threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..errors import ConfigError


class Flops(nn.Module):
    """FLOPS of queries plus FLOPS of documents, as far as each is above a threshold.

    >>> queries, documents = torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 2.0]])
    >>> Flops()(queries, documents, documents, threshold=0.0)
    tensor(21.)
    >>> Flops()(queries, documents, documents)
    tensor(6.)
    """

    def forward(
        self,
        anchor_activations: Tensor,
        positive_activations: Tensor,
        negative_activations: Tensor,
        threshold: float = 10.0,
    ) -> Tensor:
        """FLOPS above the threshold of term weights of shape (b, vocabulary)."""
        sides = (anchor_activations, torch.cat([positive_activations, negative_activations]))
        flops = torch.stack([(weights.mean(dim=0) ** 2).sum() for weights in sides])
        return torch.relu(flops - threshold).sum()


class FlopsScheduler:
    """Weight of the FLOPS loss, which rises from 0 with the square of the step and then stays.

    >>> scheduler = FlopsScheduler(weight=1.0, steps=2)
    >>> weights = []
    >>> for _ in range(4):
    ...     weights.append(scheduler.get())
    ...     scheduler.step()
    >>> weights
    [0.0, 0.25, 1.0, 1.0]
    """

    def __init__(self, weight: float = 3e-5, steps: int = 10_000) -> None:
        if steps < 1:
            raise ConfigError(f"steps={steps!r} must be at least 1.")
        self.weight = weight
        self.steps = steps
        self._done = 0

    def step(self) -> None:
        """Count a step."""
        self._done += 1

    def get(self) -> float:
        """Weight for the next step."""
        return self.weight * min(1.0, self._done / self.steps) ** 2


class Ranking(nn.Module):
    """Cross entropy of each anchor's positive against its negatives.

    >>> equal = Ranking()(torch.tensor([3.0]), torch.tensor([3.0]))
    >>> beaten = Ranking()(torch.tensor([0.0]), torch.tensor([5.0]))
    >>> round(float(equal), 4), round(float(beaten), 4)
    (0.6931, 5.0067)
    """

    def forward(self, positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
        """Mean loss of scores (b,) against negative scores (b,) or (b, n)."""
        scores = torch.cat([positive_scores[:, None], negative_scores.reshape(len(positive_scores), -1)], dim=1)
        return cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
