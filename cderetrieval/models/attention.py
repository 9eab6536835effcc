"""Attention to a context that is computed once and shared by every text.

A context of C vectors runs through the second stage alone; each layer's keys and values are kept. A text then attends
to its own tokens and to those keys and values, which no text changes, so their cost is paid once per corpus:

- ``gated``: attention to the text plus tanh(gate) times a separate attention to the context; at gate 0 the model is
  exactly the encoder it started from. Every text of a batch has the same context keys, so batch and length fold into
  one query axis and one fused kernel call serves them all: nothing is copied per text.
- ``shared``: one softmax over both, as joint attention would give if context never read text.

The context and the target attend as in Transformer Neural Processes (Nguyen & Grover 2022). The function enters
transformers' own modules through `AttentionInterface`; the state of a pass travels as the keyword `context`.

Letters: b batch, h heads, t text tokens, c context vectors, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "cderetrieval_context"


@dataclass
class ContextCache:
    """Keys and values of a context, layer by layer."""

    # One tensor of shape (h, c, d) for each layer.
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Memory of the cache in bytes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


@dataclass
class ContextPass:
    """What one forward pass does with a cache: fill it, or read it."""

    # The cache.
    cache: ContextCache
    # True while the context itself runs.
    recording: bool = False
    # Shape (layers, h); None for the one-softmax form.
    gates: Tensor | None = None


def context_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    context: ContextPass | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend to the text, and to the context where there is one. Returns (b, t, h, d)."""
    if context is not None and context.recording:
        context.cache.keys.append(key[0])
        context.cache.values.append(value[0])
    if context is None or context.recording:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=False, **kwargs
        )
        return plain
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    context_keys = context.cache.keys[layer].to(query.dtype)
    context_values = context.cache.values[layer].to(query.dtype)
    if context.gates is None:
        attended = _one_softmax(query, key, value, attention_mask, context_keys, context_values, scaling, dropout)
    else:
        attended = scaled_dot_product_attention(query, key, value, attention_mask, dropout_p=dropout, scale=scaling)
        # The gate scales the few context values, not the many answers: one pass over a batch's activations less.
        gate = torch.tanh(context.gates[layer]).to(query.dtype)
        gated_values = gate[:, None, None] * context_values
        attended = attended + _folded(query, context_keys, gated_values, scaling, dropout)
    return attended.transpose(1, 2).contiguous(), None


def _folded(query: Tensor, keys: Tensor, values: Tensor, scaling: float | None, dropout: float = 0.0) -> Tensor:
    """Attention of (b, h, t, d) queries to (h, c, d) keys that all texts share, as one sequence of b*t queries."""
    b, h, t, d = query.shape
    folded = query.transpose(0, 1).reshape(1, h, b * t, d)
    attended = scaled_dot_product_attention(folded, keys[None], values[None], dropout_p=dropout, scale=scaling)
    return attended.reshape(h, b, t, d).transpose(0, 1)


def _one_softmax(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    context_keys: Tensor,
    context_values: Tensor,
    scaling: float | None,
    dropout: float = 0.0,
) -> Tensor:
    """One softmax over text and context keys; the scores against the context are again one product for all texts."""
    b, h, t, d = query.shape
    scale = d**-0.5 if scaling is None else scaling
    to_text = query @ key.transpose(-1, -2) * scale
    if attention_mask is not None:
        to_text = to_text.masked_fill(~attention_mask, float("-inf"))
    folded = query.transpose(0, 1).reshape(h, b * t, d)
    to_context = (folded @ context_keys.transpose(-1, -2) * scale).reshape(h, b, t, -1).transpose(0, 1)
    weights = torch.nn.functional.dropout(torch.cat([to_context, to_text], dim=-1).softmax(dim=-1), dropout)
    of_context, of_text = weights.split([context_keys.shape[1], key.shape[2]], dim=-1)
    from_context = of_context.transpose(0, 1).reshape(h, b * t, -1) @ context_values
    attended: Tensor = of_text @ value + from_context.reshape(h, b, t, d).transpose(0, 1)
    return attended


AttentionInterface.register(ATTENTION, context_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
