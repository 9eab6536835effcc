"""Two-stage gradient caching: the gradients of a whole batch at the memory of one chunk.

A contrastive loss needs all vectors of a batch at once, but not all activations:

1. context documents through the first stage, chunk by chunk, without a graph; random states are kept
2. texts through the second stage in that context, likewise
3. the loss, and its gradient with respect to every vector
4. each chunk of texts again, with a graph and the same random state; the vector's gradient flows into the second stage
   and adds up in the context
5. the context's gradient flows into the first stage, again chunk by chunk

With ``attention="cached"`` the context's keys and values are computed once, with their graph, between 1 and 2; texts
read detached copies, whose gradients add up in 4. GradCache: Gao et al. 2021, arXiv 2101.06983; in two stages: Morris &
Rush 2024, section 4.3.
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

    Examples
    --------
    >>> Caching(chunk_tokens=2048, dtype="float32").train_first
    True
    """

    chunk_tokens: int | None = 16_384
    first_chunk_tokens: int | None = None
    dtype: str = "auto"
    train_first: bool = True


class StageRunner:
    """Runs texts through one stage in chunks of so many `tokens` (None: whole), of which each text costs `extra`."""

    def __init__(
        self, embed: Callable[[Texts], Tensor], texts: Texts, tokens: int | None, extra: int, dtype: str
    ) -> None:
        self._embed = embed
        self._texts = texts
        self._dtype = dtype
        lengths = [int(length) + extra for length in texts["attention_mask"].sum(dim=1).tolist()]
        self._chunks = [list(range(len(lengths)))] if tokens is None else list(length_batches(lengths, tokens))
        # Tokens of all chunks, padding included; each begins with its longest text.
        self.tokens = 0 if tokens is None else sum(len(rows) * lengths[rows[0]] for rows in self._chunks)
        self._states: list[RandContext] = []

    def _run(self, rows: list[int]) -> Tensor:
        texts = take(self._texts, rows)
        device, tokens = texts["input_ids"].device, texts["input_ids"].shape[1]
        with autocast(device, self._dtype), trained_attention(device, self._dtype, tokens):
            return _at_least_float32(self._embed(texts))

    def forward(self, graph: bool) -> Tensor:
        """All vectors in order: with their graph, or without one and with the random states kept for `backward`."""
        outputs = []
        for rows in self._chunks:
            if not graph:
                self._states.append(RandContext(self._texts["input_ids"]))
            with torch.set_grad_enabled(graph):
                outputs.append(self._run(rows))
        order = torch.tensor([row for rows in self._chunks for row in rows], device=outputs[0].device)
        return torch.cat(outputs)[torch.argsort(order)]

    def backward(self, gradient: Tensor) -> None:
        """Compute each chunk again as it was, and send its share of the gradient through it."""
        for rows, state in zip(self._chunks, self._states, strict=True):
            with torch.enable_grad(), state:
                output = self._run(rows)
            if output.requires_grad:
                torch.autograd.backward(output, gradient[rows])


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def take(texts: Texts, rows: Sequence[int]) -> dict[str, Tensor]:
    """Some rows of a batch of token ids, without the padding that none of them needs."""
    mask = texts["attention_mask"][list(rows)]
    width = max(1, int(mask.sum(dim=1).max()))
    return {"input_ids": texts["input_ids"][list(rows)][:, :width], "attention_mask": mask[:, :width]}


class StepContext:
    """The context of one step, from its documents to what texts read, and the gradient's way back."""

    def __init__(self, model: ContextualTransformer, documents: Texts | None, null: bool, caching: Caching) -> None:
        self._model = model
        self._null = null
        self._caching = caching
        self._runner: StageRunner | None = None
        self._vectors = 0
        self._recorded: ContextCache | None = None
        self.cache: ContextCache | None = None
        self.embeddings: Tensor | None = None
        if documents is not None and not null:
            # A document of several vectors is cut along its padded length: it must run alone.
            several = model.config.tokens_per_document > 1
            tokens = 1 if several else caching.first_chunk_tokens or caching.chunk_tokens
            embed: Callable[[Texts], Tensor] = lambda part: model.first_stage_model(**part)  # noqa: E731
            self._runner = StageRunner(embed, documents, tokens, 0, caching.dtype)
            self._vectors = len(documents["input_ids"]) * model.config.tokens_per_document

    def fits_beside(self, tokens: int) -> bool:
        """Whether the first stage, and so many tokens of the second, are no more than one chunk."""
        own, limit = 0 if self._runner is None else self._runner.tokens, self._caching.chunk_tokens
        return limit is None or own <= min(limit - tokens, self._caching.first_chunk_tokens or limit)

    def prepare(self, graph: bool) -> None:
        """Compute the context, as a part of the step's one graph or cut off from its own."""
        train = self._caching.train_first
        if self._runner is not None:
            self.embeddings = self._runner.forward(graph and train)
            if not graph:
                self.embeddings.requires_grad_(train)
        if self._model.config.attention == "cached":
            with torch.enable_grad(), autocast(self._model.device, self._caching.dtype):
                recorded = self._model.second_stage_model.context_cache(self.embeddings, self._null)
            self._recorded, self.cache = (None, recorded) if graph else (recorded, _leaves(recorded))

    def embed(self, texts: Texts) -> Tensor:
        """Run texts through the second stage in this context."""
        output: Tensor = self._model.second_stage_model(
            **texts,
            dataset_embeddings=None if self.cache is not None else self.embeddings,
            null_dataset_embedding=self._null,
            context_cache=self.cache,
        )
        return output

    def runners(self, columns: Sequence[Texts]) -> list[StageRunner]:
        """One for each column of texts."""
        chunk, dtype = self._caching.chunk_tokens, self._caching.dtype
        return [StageRunner(self.embed, texts, chunk, self._tokens(), dtype) for texts in columns]

    def _tokens(self) -> int:
        """Context vectors and soft prompt that joint attention runs again with every text."""
        config = self._model.config
        if config.attention == "cached":
            return 0
        count = config.context_tokens if self._null else min(config.context_tokens, self._vectors)
        return count + config.soft_prompt_tokens

    def backward(self) -> None:
        """Send what added up in the context into the second stage, where it is cached, and then into the first."""
        if self._recorded is not None and self.cache is not None:
            tensors = (*self._recorded.keys, *self._recorded.values)
            leaves = (*self.cache.keys, *self.cache.values)
            pairs = [
                (tensor, leaf.grad.to(tensor.dtype))
                for tensor, leaf in zip(tensors, leaves, strict=True)
                if leaf.grad is not None and tensor.requires_grad
            ]
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
    """Loss of columns of texts (queries, documents, ...) in a context of documents, or in the null context.

    Its ``backward()`` leaves the gradients of both stages in the parameters and then calls `synchronize`.
    `loss_function` takes the vectors (b, h) of each column.
    """
    shared = StepContext(model, context, null, caching)
    runners = shared.runners(columns)
    tokens = sum(runner.tokens for runner in runners)
    graph = torch.is_grad_enabled() and (caching.chunk_tokens is None or tokens <= caching.chunk_tokens)
    whole = graph and shared.fits_beside(tokens)
    shared.prepare(whole)
    vectors = [runner.forward(graph) for runner in runners]
    if not torch.is_grad_enabled():
        return loss_function(vectors)
    if not graph:
        vectors = [vector.requires_grad_() for vector in vectors]
    loss = loss_function(vectors)
    if not graph:
        torch.autograd.backward(loss)
    detached = loss.detach().requires_grad_()

    def backward(factor: Tensor) -> None:
        """The backward pass of the loss that is returned, scaled by whoever calls it."""
        if graph:
            torch.autograd.backward(loss, factor)
        else:
            for runner, vector in zip(runners, vectors, strict=True):
                if vector.grad is not None:
                    runner.backward(vector.grad * factor)
        if not whole:
            shared.backward()
        if synchronize is not None:
            synchronize()

    detached.register_hook(backward)
    return detached


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of all processes; a parameter that only some of them used counts as 0 in the others.

    Once a step: the stages run without `DistributedDataParallel`, whose hooks expect each parameter once per backward
    pass.
    """
    import torch.distributed as dist

    trained = [parameter for parameter in parameters if parameter.requires_grad]
    used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
    used = used.to(trained[0].device)
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    trained = [parameter for parameter, flag in zip(trained, used.tolist(), strict=True) if flag]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    works = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
    for gradient, work in zip(gradients, works, strict=True):
        work.wait()
        gradient /= dist.get_world_size()
