"""BERT's forward pass in torch: the operations of transformers' `BertModel`, in the same order, so to the same bit.

Importing that class takes three times as long as importing torch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .bert import Bert


class TorchBert:
    """The vectors of a :class:`~.bert.Bert`, computed by torch on the processor in float32."""

    def __init__(self, bert: Bert) -> None:
        self._bert = bert
        self._tensors = {name: torch.from_numpy(array) for name, array in bert.tensors.items()}

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Token ids and mask (b, t) to vectors (b, h), not yet of length 1."""
        with torch.inference_mode():
            kept = torch.from_numpy(mask)
            states = self._states(torch.from_numpy(ids), kept)
            if self._bert.pooling == "cls":
                vectors = states[:, 0]
            else:
                weights = kept.unsqueeze(-1).to(states.dtype)
                vectors = (states * weights).sum(dim=1) / torch.clamp(weights.sum(dim=1), min=1e-9)
            for _ in range(self._bert.lengths):
                vectors = functional.normalize(vectors, dim=-1)
            return vectors.numpy()

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        config, tensors, name = self._bert.config, self._tensors, "embeddings.{}_embeddings.weight".format
        heads = (*ids.shape, config.num_attention_heads, -1)
        seen = None if mask.all() else mask.bool()[:, None, None, :].expand(-1, -1, ids.shape[1], -1)
        states = functional.embedding(ids, tensors[name("word")])
        states = states + functional.embedding(torch.zeros_like(ids), tensors[name("token_type")])
        states = states + tensors[name("position")][None, : ids.shape[1]]
        states = self._norm(states, "embeddings")
        for layer in range(config.num_hidden_layers):
            place = f"encoder.layer.{layer}"
            parts = [f"{place}.attention.self.{part}" for part in ("query", "key", "value")]
            query, key, value = (self._linear(states, part).view(heads).transpose(1, 2) for part in parts)
            found = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
            found = found.transpose(1, 2).contiguous().reshape(states.shape)
            output = f"{place}.attention.output"
            states = self._norm(self._linear(found, f"{output}.dense") + states, output)
            inner = functional.gelu(self._linear(states, f"{place}.intermediate.dense"))
            states = self._norm(self._linear(inner, f"{place}.output.dense") + states, f"{place}.output")
        return states

    def _linear(self, states: Tensor, name: str) -> Tensor:
        return functional.linear(states, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _norm(self, states: Tensor, place: str) -> Tensor:
        weight, bias = (self._tensors[f"{place}.LayerNorm.{name}"] for name in ("weight", "bias"))
        return functional.layer_norm(states, weight.shape, weight, bias, self._bert.config.layer_norm_eps)
