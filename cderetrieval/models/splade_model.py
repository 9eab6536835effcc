"""SPLADE as sentence-transformers has it, computed with less.

    w_j = max_i log(1 + ReLU(logit_ij))     or, as in the first SPLADE, the sum over positions i of real tokens

The maximum is taken before log(1 + ReLU), which is monotone: the same result, from one pass over the logits and not
four, and a training step keeps the positions of the maxima and not the logits. The head of the masked language model
sees no padding (:mod:`.mlm`). Modules, settings and files are sentence-transformers' own, so a saved model is a plain
SparseEncoder to everyone else.

SPLADE: Formal et al. 2021, arXiv 2107.05720; max pooling: v2, arXiv 2109.10086; a second log(1 + x), "log1p_relu":
arXiv 2504.14839.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor, nn

from ..errors import ConfigError, ModelError
from .directory import SAFE, opened
from .mlm import logits_of_texts, token_states


def check_k_tokens(k: int | None, dimension: int, name: str = "k_tokens") -> None:
    """Refuse a number of terms that no text can have."""
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= dimension):
        raise ConfigError(
            f"{name}={k!r} must be a whole number from 1 to {dimension}, the size of the vocabulary; None: all terms."
        )


def is_splade(modules: Sequence[nn.Module]) -> bool:
    """Whether modules are a masked language model and the pooling of its logits."""
    kinds = [type(module) for module in modules]
    return len(kinds) == 2 and issubclass(kinds[0], Transformer) and issubclass(kinds[1], SpladePooling)


def no_head(family: str, modules: Sequence[nn.Module]) -> ModelError:
    """What to say of a model whose modules are others."""
    found = ", ".join(type(module).__name__ for module in modules) or "nothing"
    return ModelError(
        f"{family} needs a masked language model with its head (AutoModelForMaskedLM) and SPLADE pooling; this model "
        f"has {found}. Use a SPLADE model or a masked language model, or load this one as a dense model."
    )


def activate(logits: Tensor, pooling: Any) -> Tensor:
    """log(1 + ReLU(logits)), once or twice, in float32."""
    weights = torch.log1p(torch.relu(logits.float()))
    return torch.log1p(weights) if pooling.activation_function == "log1p_relu" else weights


def pool(logits: Tensor, pooling: Any) -> Tensor:
    """Logits of one text's tokens (n, v) to its term weights (v)."""
    if pooling.pooling_strategy == "sum":
        return activate(logits, pooling).sum(dim=0)
    # `max` keeps positions for the backward pass, `amax` would keep the logits.
    peaks = logits.max(dim=0).values if logits.requires_grad else logits.amax(dim=0)
    return activate(peaks, pooling)


def term_weights(transformer: Any, pooling: Any, features: dict[str, Tensor]) -> Tensor:
    """Term weights of a batch, shape (b, v), float32."""
    rows, lengths = token_states(transformer.model, features)
    texts = logits_of_texts(transformer.model, rows, lengths)
    return torch.stack([pool(logits, pooling) for _, logits in texts])


class SpladeModel(SparseEncoder):
    """A `SparseEncoder` whose masked language model and pooling run as one.

    It takes the arguments of `SparseEncoder`, trains with its trainer and losses, and saves what it would save. Models
    of other modules (a router, inputs flattened for flash attention) run as they do there.
    """

    @classmethod
    def from_directory(cls, directory: Path, **settings: Any) -> Self:
        """Read a directory; its settings are checked first, and only safetensors are read."""
        with opened(directory) as view:
            return cls(str(view), **SAFE, **settings)

    def forward(self, input: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Features of a batch, with ``"sentence_embedding"``: term weights (b, v)."""
        modules = list(self.children())
        if not is_splade(modules) or "cu_seq_lens_q" in input:
            return super().forward(input, **kwargs)
        input["sentence_embedding"] = term_weights(modules[0], modules[1], input)
        return input
