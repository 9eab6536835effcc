"""The two-stage contextual encoder.

    context documents --M1--> J vectors --.
                                           M2 --> one vector per text
    text ---------------------------------'

M1 is a bi-encoder; its J outputs stand for the corpus. M2 reads [J vectors | soft prompt | text] and pools over the
text. With ``attention="joint"`` that is one sequence, run again for every text: 512 context vectors cost a 16-token
query about 37 times a plain encoder. With ``attention="cached"`` the context runs once, texts read its keys and values.
Morris & Rush 2024, arXiv 2410.02525.

Letters: b batch, t text tokens, j context vectors, n parts of a text, p soft prompt tokens, h width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import InputError
from .attention import ContextCache, ContextPass
from .backbone import build_backbone, embed_prefix, embed_text, first_layers, layer_shape
from .config import ContextualConfig


def _mlp(width: int, activation: nn.Module, out: int | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), activation, nn.Linear(width, out or width))


class FirstStage(nn.Module):
    """M1: a context document to the vector that stands for it."""

    def __init__(self, config: ContextualConfig, shared: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.config = config
        if shared is None:
            settings = config.first_stage_backbone or config.backbone
            self.embedder = build_backbone(settings, config.first_stage_layers, config.disable_dropout)
            width = self.embedder.config.hidden_size
        else:
            # A tuple hides the shared backbone from `parameters()` and `state_dict()`, where M2 already lists it.
            self._shared = (first_layers(shared, config.first_stage_layers),)
            width = shared.config.hidden_size
        self.mlp = _mlp(width, nn.GELU(), config.hidden_size) if config.first_stage_head == "mlp" else nn.Identity()

    @property
    def backbone(self) -> PreTrainedModel:
        """The backbone, own or shared."""
        return self.embedder if hasattr(self, "embedder") else self._shared[0]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Embed context documents."""
        del token_type_ids
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        parts = self.config.tokens_per_document
        pooled = mean_pool(hidden, attention_mask) if parts == 1 else mean_pool_parts(hidden, attention_mask, parts)
        output: Tensor = self.mlp(pooled)
        return {"hidden_states": hidden, "pooled": output} if output_hidden_states else output


class SecondStage(nn.Module):
    """M2: a text, in its context, to one vector."""

    def __init__(self, config: ContextualConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.layers, config.disable_dropout)
        width = config.hidden_size
        if config.soft_prompt_tokens:
            self.prompt_projection = _mlp(width, nn.ReLU(), width * config.soft_prompt_tokens)
        if config.null_token:
            self.sequence_dropout_null_embedding = nn.Parameter(torch.randn(width) * 0.01)
        if config.head != "none":
            self.output_projection = _mlp(width, nn.ReLU())
        if config.attention == "cached" and config.cached_form == "gated":
            self.gates = nn.Parameter(torch.zeros(layer_shape(self.backbone)))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        dataset_embeddings: Tensor | Any | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        null_dataset_embedding: bool = False,
        context_cache: ContextCache | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Embed texts in a context."""
        del token_type_ids
        if context_cache is None:
            prefix = self._prefix(dataset_embeddings, null_dataset_embedding, input_ids)
            context_cache = self._record(prefix) if self.config.attention == "cached" else None
        if context_cache is None:
            hidden, mask = self._joint(input_ids, attention_mask, prefix)
        else:
            hidden, mask = self._cached(input_ids, attention_mask, context_cache)
        pooled = self._pool(hidden, mask, input_ids)
        if self.config.head == "residual":
            pooled = pooled + self.output_projection(pooled)
        elif self.config.head == "mlp":
            pooled = self.output_projection(pooled)
        if not output_hidden_states:
            return pooled
        return {"hidden_states": hidden[:, -input_ids.shape[1] :], "pooled": pooled}

    def context_cache(
        self, dataset_embeddings: Tensor | Any | None = None, null_dataset_embedding: bool = False
    ) -> ContextCache:
        """Keys and values of a context, computed once for all texts; only for ``attention="cached"``."""
        if self.config.attention != "cached":
            raise InputError("this model has attention='joint': its context cannot be cached, texts change it.")
        return self._record(self._prefix(dataset_embeddings, null_dataset_embedding, None))

    def _prefix(self, dataset_embeddings: Any, null: bool, input_ids: Tensor | None) -> Tensor:
        """[context | soft prompt] of shape (1 or b, j + p, h)."""
        weight = self.backbone.get_input_embeddings().weight
        context = self._context(dataset_embeddings, weight)
        if null:
            if not self.config.null_token:
                raise InputError(
                    "this model has no null token; give context documents, or its authors' random strings."
                )
            count = context.shape[1] or self.config.context_tokens
            context = self.sequence_dropout_null_embedding.expand(context.shape[0], count, -1)
        elif self.training and self.config.sequence_dropout > 0:
            # In a cached context all texts share one draw; in a joint one each text has its own.
            shared = self.config.attention == "cached" or input_ids is None
            rows = 1 if shared else input_ids.shape[0]  # type: ignore[union-attr]
            context = context.expand(rows, -1, -1)
            dropped = torch.rand(context.shape[:2], device=context.device) < self.config.sequence_dropout
            context = torch.where(dropped[..., None], self.sequence_dropout_null_embedding, context)
        if not self.config.soft_prompt_tokens:
            return context
        ones = torch.ones(1, weight.shape[1], device=weight.device, dtype=context.dtype)
        prompt = self.prompt_projection(ones).reshape(1, self.config.soft_prompt_tokens, -1)
        return torch.cat([context, prompt.to(context.dtype).expand(context.shape[0], -1, -1)], dim=1)

    def _context(self, dataset_embeddings: Any, weight: Tensor) -> Tensor:
        """Context vectors as (1 or b, j, h), the first `context_tokens` of them."""
        width = weight.shape[1]
        if dataset_embeddings is None:
            return weight.new_zeros(1, 0, width)
        context = torch.as_tensor(dataset_embeddings).to(weight.device)
        if not context.is_floating_point() or context.shape[-1] != width or context.dim() not in (2, 3):
            raise InputError(
                f"dataset_embeddings has shape {tuple(context.shape)} and type {context.dtype}; "
                f"expected floats of shape (documents, {width}), the output of first_stage_model."
            )
        if context.dim() == 2 or self.config.tokens_per_document > 1:
            context = context.reshape(1, -1, width)
        # The published models read the first J; others take as many as they are given.
        return context[:, : self.config.context_tokens] if self.config.exact_context_size else context

    def _joint(self, input_ids: Tensor, attention_mask: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """Run [prefix | text] as one sequence."""
        b, t = input_ids.shape
        text = embed_text(self.backbone, input_ids, twice=self.config.text_embedding == "twice")
        prefix = embed_prefix(self.backbone, prefix).to(text.dtype).expand(b, -1, -1)
        mask = torch.cat([attention_mask.new_ones(b, prefix.shape[1]), attention_mask], dim=1)
        positions = self._positions(prefix.shape[1], t, input_ids.device)
        hidden = self.backbone(
            inputs_embeds=torch.cat([prefix, text], dim=1), attention_mask=mask, position_ids=positions[None]
        ).last_hidden_state
        if self.config.pool_over == "all":
            return hidden, mask
        return hidden[:, prefix.shape[1] :], attention_mask

    def _positions(self, prefix: int, text: int, device: torch.device) -> Tensor:
        """Position of each vector of [context | soft prompt | text], shape (prefix + text,)."""
        kind = self.config.context_positions
        if kind == "separate":
            return torch.cat([torch.zeros(prefix, dtype=torch.long, device=device), torch.arange(text, device=device)])
        positions = torch.arange(prefix + text, device=device)
        if kind == "unrotated":
            positions[: prefix - self.config.soft_prompt_tokens] = 0
        limit = getattr(self.backbone.embeddings, "position_embeddings", None)
        if limit is not None and len(positions) > limit.num_embeddings:
            raise InputError(
                f"{prefix} context vectors and {text} tokens need {len(positions)} positions; this BERT has "
                f"{limit.num_embeddings}. Use a smaller context or shorter texts."
            )
        return positions

    def _record(self, prefix: Tensor) -> ContextCache:
        """Run the context alone and keep each layer's keys and values."""
        if prefix.shape[0] != 1:
            raise InputError("attention='cached' takes one context for all texts, of shape (documents, width).")
        cache = ContextCache()
        if prefix.shape[1] == 0:
            return cache
        embeds = embed_prefix(self.backbone, prefix).to(self.backbone.get_input_embeddings().weight.dtype)
        positions = torch.zeros(prefix.shape[:2], dtype=torch.long, device=prefix.device)
        # No mask in any layer: a context has no order, so ModernBERT's local windows would cut it at random.
        modern = self.config.family == "modernbert"
        mask = {"full_attention": None, "sliding_attention": None} if modern else None
        self.backbone(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            context=ContextPass(cache, recording=True),
        )
        return cache

    def _cached(self, input_ids: Tensor, attention_mask: Tensor, cache: ContextCache) -> tuple[Tensor, Tensor]:
        """Run texts that read the cache; with an empty cache this is the plain encoder."""
        reads = ContextPass(cache, gates=getattr(self, "gates", None)) if cache.keys else None
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask, context=reads).last_hidden_state
        return hidden, attention_mask

    def _pool(self, hidden: Tensor, mask: Tensor, input_ids: Tensor) -> Tensor:
        if self.config.pooling == "cls":
            return hidden[:, -input_ids.shape[1]]
        if self.config.skip_instruction:
            assert self.config.instruction_end_id is not None
            tail = mask_instruction(input_ids, mask[:, -input_ids.shape[1] :], self.config.instruction_end_id)
            mask = torch.cat([mask[:, : -input_ids.shape[1]], tail], dim=1)
        return mean_pool(hidden, mask)


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens with mask 1: (b, t, h) and (b, t) to (b, h); a text without tokens gives zeros."""
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
