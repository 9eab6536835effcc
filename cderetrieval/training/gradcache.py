"""Two-stage gradient caching: the gradients of a whole batch at the memory of one chunk.

A contrastive loss needs all vectors of a batch at once, but not all activations:

1. context documents through the first stage, chunk by chunk, without a graph; random states are kept
2. texts through the second stage in that context, likewise
3. the loss, and its gradient with respect to every vector
4. each chunk of texts again, with a graph and the same random state; the vector's gradient flows into the second stage
   and adds up in the context
5. the context's gradient flows into the first stage, again chunk by chunk

With ``attention="cached"`` the context's keys and values are computed once, with their graph, between 1 and 2. Texts
read detached copies, whose gradients add up in 4, and one backward pass carries the sum to the context.
GradCache: Gao et al. 2021, arXiv 2101.06983; in two stages: Morris & Rush 2024, section 4.3.

Several processes average their gradients once, at the end: the stages are called without `DistributedDataParallel`,
whose hooks expect each parameter once per backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from sentence_transformers.sentence_transformer.losses.cached_multiple_negatives_ranking import RandContext
from torch import Tensor, nn

from ..models.attention import ContextCache
from ..runtime import autocast, length_batches, trained_attention

if TYPE_CHECKING:
    from ..models.contextual import ContextualTransformer

Texts = Mapping[str, Tensor]
LossFunction = Callable[[list[Tensor]], Tensor]

# Gradients are averaged in pieces of at most so many numbers.
BUCKET = 2**24


@dataclass(frozen=True)
class Caching:
    """How a step is computed.

    Parameters
    ----------
    chunk_tokens
        Tokens of a chunk of texts, padding and joint context included; None: no caching, one graph for everything.
    first_chunk_tokens
        The same for context documents in the first stage; None: `chunk_tokens`.
    dtype
        Number format, see :func:`~cderetrieval.runtime.autocast`; gradients are float32 always.
    train_first
        Whether gradients flow into the first stage.
    """

    chunk_tokens: int | None = 16_384
    first_chunk_tokens: int | None = None
    dtype: str = "auto"
    train_first: bool = True

    @property
    def first_tokens(self) -> int | None:
        """Tokens of a chunk of context documents."""
        return self.first_chunk_tokens or self.chunk_tokens


@dataclass
class _Pass:
    """Rows of one chunk, and the random state in which it ran."""

    rows: list[int]
    state: RandContext


class _Runner:
    """Runs texts through one stage, whole or in chunks, forgetting or keeping the graph."""

    def __init__(
        self, embed: Callable[[Texts], Tensor], texts: Texts, tokens: int | None, extra: int, dtype: str
    ) -> None:
        self._embed = embed
        self._texts = texts
        self._dtype = dtype
        self._device = texts["input_ids"].device
        lengths = texts["attention_mask"].sum(dim=1).tolist()
        self._rows = [list(range(len(lengths)))] if tokens is None else _chunks(lengths, tokens, extra)
        self._passes: list[_Pass] = []

    def _run(self, rows: list[int]) -> Tensor:
        texts = take(self._texts, rows)
        tokens = texts["input_ids"].shape[1]
        with autocast(self._device, self._dtype), trained_attention(self._device, self._dtype, tokens):
            return _at_least_float32(self._embed(texts))

    def forward(self) -> Tensor:
        """All vectors in order, without a graph; random states are kept."""
        outputs = []
        with torch.no_grad():
            for rows in self._rows:
                self._passes.append(_Pass(rows, RandContext(self._texts["input_ids"])))
                outputs.append(self._run(rows))
        return _in_order(outputs, self._rows)

    def forward_with_graph(self) -> Tensor:
        """All vectors in order, with their graph."""
        return _in_order([self._run(rows) for rows in self._rows], self._rows)

    def backward(self, gradient: Tensor) -> None:
        """Compute each chunk again as it was, and send its share of the gradient through it."""
        for chunk in self._passes:
            with torch.enable_grad(), chunk.state:
                output = self._run(chunk.rows)
            if output.requires_grad:
                output.backward(gradient[chunk.rows])


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _chunks(lengths: Sequence[int], tokens: int, extra: int) -> list[list[int]]:
    return list(length_batches([length + extra for length in lengths], tokens))


def _in_order(outputs: list[Tensor], rows: list[list[int]]) -> Tensor:
    order = torch.tensor([row for chunk in rows for row in chunk], device=outputs[0].device)
    return torch.cat(outputs)[torch.argsort(order)]


def take(texts: Texts, rows: Sequence[int]) -> dict[str, Tensor]:
    """Some rows of a batch of token ids, without the padding that none of them needs."""
    mask = texts["attention_mask"][list(rows)]
    width = max(1, int(mask.sum(dim=1).max()))
    return {"input_ids": texts["input_ids"][list(rows)][:, :width], "attention_mask": mask[:, :width]}


class _Context:
    """The context of one step, from its documents to what texts read, and the gradient's way back."""

    def __init__(self, model: ContextualTransformer, documents: Texts | None, null: bool, caching: Caching) -> None:
        config = model.config
        self._model = model
        self._null = null
        self._runner: _Runner | None = None
        self._recorded: ContextCache | None = None
        self.cache: ContextCache | None = None
        self.embeddings: Tensor | None = None
        if documents is not None and not null:
            # A document of several vectors is cut along its padded length: it must run alone.
            tokens = 1 if config.tokens_per_document > 1 else caching.first_tokens
            self._runner = _Runner(lambda part: model.first_stage_model(**part), documents, tokens, 0, caching.dtype)
        self._caching = caching

    def prepare(self) -> None:
        """Compute the context, cut off from its graph."""
        if self._runner is not None:
            self.embeddings = self._runner.forward().requires_grad_(self._caching.train_first)
        if self._model.config.attention == "cached":
            with torch.enable_grad():
                self._recorded = self._record()
            self.cache = _leaves(self._recorded)

    def prepare_with_graph(self) -> None:
        """Compute the context as a part of the step's one graph."""
        if self._runner is not None:
            if self._caching.train_first:
                self.embeddings = self._runner.forward_with_graph()
            else:
                self.embeddings = self._runner.forward()
        if self._model.config.attention == "cached":
            self.cache = self._record()

    def _record(self) -> ContextCache:
        with autocast(self._model.device, self._caching.dtype):
            return self._model.second_stage_model.context_cache(self.embeddings, self._null)

    def embed(self, texts: Texts) -> Tensor:
        """Run texts through the second stage in this context."""
        output: Tensor = self._model.second_stage_model(
            **texts,
            dataset_embeddings=None if self.cache is not None else self.embeddings,
            null_dataset_embedding=self._null,
            context_cache=self.cache,
        )
        return output

    @property
    def tokens(self) -> int:
        """Context vectors and soft prompt that joint attention runs again with every text."""
        config = self._model.config
        if config.attention == "cached":
            return 0
        count = config.context_tokens if self._null else 0
        if self.embeddings is not None:
            count = min(config.context_tokens, self.embeddings.shape[:-1].numel())
        return count + config.soft_prompt_tokens

    def backward(self) -> None:
        """Send what added up in the context into the second stage, where it is cached, and then into the first."""
        if self._recorded is not None and self.cache is not None:
            tensors = (*self._recorded.keys, *self._recorded.values)
            leaves = (*self.cache.keys, *self.cache.values)
            pairs = [
                (t, leaf.grad.to(t.dtype)) for t, leaf in zip(tensors, leaves, strict=True) if leaf.grad is not None
            ]
            pairs = [(tensor, gradient) for tensor, gradient in pairs if tensor.requires_grad]
            if pairs:
                torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])
        if self._runner is not None and self.embeddings is not None and self.embeddings.grad is not None:
            self._runner.backward(self.embeddings.grad)


def _leaves(cache: ContextCache) -> ContextCache:
    """Detached float32 copies: over many chunks, gradients that add up in bfloat16 lose what is small."""
    return ContextCache(
        [_at_least_float32(key.detach()).requires_grad_() for key in cache.keys],
        [_at_least_float32(value.detach()).requires_grad_() for value in cache.values],
    )


def contextual_step(
    model: ContextualTransformer,
    columns: Sequence[Texts],
    context: Texts | None,
    loss_function: LossFunction,
    caching: Caching,
    *,
    null: bool = False,
    synchronize: Callable[[], None] | None = None,
) -> Tensor:
    """Loss of a batch; its ``backward()`` leaves the gradients of both stages in the parameters.

    Parameters
    ----------
    model
        A :class:`~cderetrieval.models.contextual.ContextualTransformer`.
    columns
        Token ids and masks (b, t) of queries, documents, and so on.
    context
        Token ids and mask of the context documents; None: no context.
    loss_function
        The vectors of each column, (b, h) float32, to a scalar.
    caching
        Chunks, number format, whether the first stage learns.
    null
        Use the null context.
    synchronize
        Called when all gradients of this process are there.

    Returns
    -------
    Tensor
        The loss, a scalar.
    """
    shared = _Context(model, context, null, caching)
    if not torch.is_grad_enabled():
        shared.prepare()
        return loss_function([runner.forward() for runner in _runners(shared, columns, caching)])
    if caching.chunk_tokens is None:
        shared.prepare_with_graph()
        whole = loss_function([runner.forward_with_graph() for runner in _runners(shared, columns, caching)])
        return _deferred(whole, lambda factor: whole.backward(factor), synchronize)
    shared.prepare()
    runners = _runners(shared, columns, caching)
    vectors = [runner.forward().requires_grad_() for runner in runners]
    loss = loss_function(vectors)
    loss.backward()

    def backward(factor: Tensor) -> None:
        for runner, vector in zip(runners, vectors, strict=True):
            if vector.grad is not None:
                runner.backward(vector.grad * factor)
        shared.backward()

    return _deferred(loss, backward, synchronize)


def _runners(context: _Context, columns: Sequence[Texts], caching: Caching) -> list[_Runner]:
    return [_Runner(context.embed, texts, caching.chunk_tokens, context.tokens, caching.dtype) for texts in columns]


def _deferred(loss: Tensor, backward: Callable[[Tensor], None], synchronize: Callable[[], None] | None) -> Tensor:
    """Detach the loss; its own backward pass, scaled by whoever calls it, runs `backward` and then `synchronize`."""
    detached = loss.detach().requires_grad_()

    def hook(factor: Tensor) -> None:
        backward(factor)
        if synchronize is not None:
            synchronize()

    detached.register_hook(hook)
    return detached


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of all processes; a parameter that only some of them used counts as 0 in the others."""
    import torch.distributed as dist

    trained = [parameter for parameter in parameters if parameter.requires_grad]
    used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
    used = used.to(trained[0].device)
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    trained = [parameter for parameter, flag in zip(trained, used.tolist(), strict=True) if flag]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets(trained):
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    buckets: list[list[nn.Parameter]] = []
    filled = BUCKET
    for parameter in parameters:
        new = filled + parameter.numel() > BUCKET or buckets[-1][0].dtype != parameter.dtype
        if new:
            buckets.append([])
            filled = 0
        buckets[-1].append(parameter)
        filled += parameter.numel()
    return buckets
