"""From token vectors to one vector (or a few) for a text.

Letters: b batch, t tokens, n parts of a text, h width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens with mask 1: (b, t, h) and (b, t) to (b, h); a text without tokens gives zeros.

    >>> mean_pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[2.]])
    """
    weights = mask.to(hidden.dtype)
    return torch.einsum("bth,bt->bh", hidden, weights) / weights.sum(dim=1, keepdim=True).clamp(min=1.0)


def mean_pool_parts(hidden: Tensor, mask: Tensor, parts: int) -> Tensor:
    """Mean of each of `parts` equal stretches of the sequence: (b, t, h) to (b, n, h)."""
    b, t, h = hidden.shape
    missing = -t % parts
    hidden = torch.nn.functional.pad(hidden, (0, 0, 0, missing))
    weights = torch.nn.functional.pad(mask, (0, missing)).to(hidden.dtype).reshape(b, parts, -1)
    sums = torch.einsum("bnsh,bns->bnh", hidden.reshape(b, parts, -1, h), weights)
    counts = weights.sum(dim=2, keepdim=True)
    whole = hidden.mean(dim=1, keepdim=True).expand(-1, parts, -1)
    return torch.where(counts > 0, sums / counts.clamp(min=1.0), whole)


def mask_instruction(input_ids: Tensor, mask: Tensor, end_id: int) -> Tensor:
    """Clear the mask up to and including the first `end_id` after the first token; (b, t) to (b, t).

    >>> mask_instruction(torch.tensor([[5, 6, 3, 7, 3]]), torch.ones(1, 5, dtype=torch.long), end_id=3)
    tensor([[0, 0, 0, 1, 1]])
    """
    found = input_ids == end_id
    found[:, 0] = False
    started = found.long().cumsum(dim=1)
    after_end = (started > 0) & ~(found & (started == 1))
    return torch.where(found.any(dim=1, keepdim=True), mask * after_end, mask)
