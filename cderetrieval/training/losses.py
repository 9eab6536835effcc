"""The contextual contrastive loss, for sentence-transformers' trainer.

Query to document InfoNCE at temperature 1 / scale. Every step embeds its batch in a context that is drawn from the
batch itself: its documents and mined negatives, J of them, one context for queries and documents. What must not count
as a negative is masked: texts that are a known positive of the same query, and false negatives by a surrogate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.distributed as dist
from sentence_transformers.util import all_gather, all_gather_with_grad
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, pad
from torch.nn.parallel import DistributedDataParallel

from ..errors import ConfigError
from .false_negatives import FalseNegativeFilter
from .gradcache import Caching, Texts, average_gradients, contextual_step

if TYPE_CHECKING:
    from ..models.contextual import ContextualTransformer

# A masked score: far below any cosine times any scale, and finite, so that its gradient is 0 and not NaN.
MASKED = -1e10


class ContextualLoss(nn.Module):
    """Contrastive loss of a contextual model whose context is its batch.

    Parameters
    ----------
    model
        A `SentenceTransformer` whose module is a :class:`~cderetrieval.models.sentence_transformer.ContextualModule`.
    scale
        Inverse temperature; 50 is the paper's 0.02.
    context_size
        J, documents of the context; None: the model's; 0: no context, the plain bi-encoder.
    null_probability
        Share of steps whose whole context is the null context.
    symmetric
        Average with the loss from documents to queries.
    share_negatives
        Candidates of all processes are negatives; their gradients flow back to them.
    caching
        Chunks, number format, whether the first stage learns.
    false_negatives
        Leaves out false negatives; needs the row numbers as labels.

    Examples
    --------
    >>> from cderetrieval.models.sentence_transformer import ContextualModule
    >>> from cderetrieval.testing import tiny_model
    >>> from sentence_transformers import SentenceTransformer
    >>> model = SentenceTransformer(modules=[ContextualModule(tiny_model())], device="cpu")
    >>> loss = ContextualLoss(model, context_size=2)
    >>> batch = [model.preprocess(["owls", "bees"]), model.preprocess(["an owl hoots", "a bee hums"])]
    >>> loss(batch).backward()
    >>> sorted(loss.drain())
    ['accuracy', 'context_null', 'loss', 'masked_duplicates', 'masked_false_negatives', 'tokens']
    """

    def __init__(
        self,
        model: Any,
        *,
        scale: float = 50.0,
        context_size: int | None = None,
        null_probability: float = 0.0,
        symmetric: bool = False,
        share_negatives: bool = False,
        caching: Caching | None = None,
        false_negatives: FalseNegativeFilter | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= null_probability <= 1:
            raise ConfigError(f"null_probability={null_probability!r} must lie in [0, 1].")
        if not scale > 0:
            raise ConfigError(f"scale={scale!r} must be above 0; it is the inverse of the temperature.")
        self.model = model
        self.scale = scale
        self.context_size = self.contextual.config.context_size if context_size is None else context_size
        self.null_probability = null_probability
        self.symmetric = symmetric
        self.share_negatives = share_negatives
        self.caching = caching or Caching()
        self.false_negatives = false_negatives
        self._sums: dict[str, float] = {}
        self._steps = 0

    @property
    def contextual(self) -> ContextualTransformer:
        """The contextual model, without what training wraps around it."""
        model = self.model.module if isinstance(self.model, DistributedDataParallel) else self.model
        module = getattr(model, "_orig_mod", model)[0]
        if not hasattr(module, "model"):
            raise ConfigError(f"ContextualLoss trains contextual models, not {type(module).__name__}.")
        return cast("ContextualTransformer", module.model)

    def forward(self, features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Loss of columns of token ids (b, t): queries, documents, then mined negatives.

        A column of negatives has one for each row, or says in ``owner`` (m,) whose they are and in ``position`` (m,)
        which of all mined ones. `labels` (b,) are row numbers; only the filter reads them.
        """
        queries, documents, *negatives = [dict(column) for column in features]
        batch = _Batch(queries, documents, negatives, labels)
        context, null = self._context(batch)
        loss = contextual_step(
            self.contextual,
            [queries, documents, *negatives],
            context,
            lambda vectors: self._contrast(vectors, batch),
            self.caching,
            null=null,
            synchronize=self._synchronize if torch.is_grad_enabled() else None,
        )
        self._count(context_null=float(null), tokens=float(batch.tokens), loss=float(loss.detach()))
        self._steps += 1
        return loss

    def drain(self) -> dict[str, float]:
        """Means over the steps since the last call: loss, accuracy, masked pairs of a query, null contexts, tokens."""
        means = {name: total / max(1, self._steps) for name, total in self._sums.items()}
        self._sums, self._steps = {}, 0
        return means

    def _count(self, **values: float) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _context(self, batch: _Batch) -> tuple[Texts | None, bool]:
        """Token ids of the context documents, and whether the context is null."""
        if self.context_size == 0:
            return None, False
        if self.null_probability and float(torch.rand(1)) < self.null_probability:
            return None, self.contextual.config.null_token
        distinct = np.sort(np.unique(batch.candidate_keys.cpu().numpy(), return_index=True)[1])  # each text once
        chosen = distinct[torch.randperm(len(distinct))[: self.context_size].numpy()]
        return _join([batch.documents, *batch.negatives], chosen.tolist()), False

    def _synchronize(self) -> None:
        wrapped = isinstance(self.model, DistributedDataParallel)
        if wrapped and self.model.require_backward_grad_sync:
            average_gradients(list(self.contextual.parameters()))

    def _contrast(self, vectors: list[Tensor], batch: _Batch) -> Tensor:
        """InfoNCE of the vectors of queries (b, h), documents (b, h) and negatives (m, h)."""
        queries = normalize(vectors[0], dim=1)
        own = normalize(torch.cat(vectors[1:]), dim=1)
        candidates = _Candidates(batch, own, self.share_negatives)
        duplicates = mask = candidates.duplicates()
        if self.false_negatives is not None:
            mask = mask | candidates.false_negatives(self.false_negatives)
        scores = (queries @ candidates.vectors.T * self.scale).masked_fill(mask, MASKED)
        loss = cross_entropy(scores, candidates.positive)
        b = len(queries)
        if self.symmetric:  # from each document to the queries of its own process, under the same mask
            backwards = (own[:b] @ queries.T * self.scale).masked_fill(mask[:, candidates.positive].T, MASKED)
            loss = (loss + cross_entropy(backwards, torch.arange(b, device=scores.device))) / 2
        self._count(
            accuracy=float((scores.argmax(dim=1) == candidates.positive).float().mean()),
            masked_duplicates=float(duplicates.sum()) / b,
            masked_false_negatives=float((mask & ~duplicates).sum()) / b,
        )
        return loss


class _Batch:
    """Token ids of one step, whose negatives they are, and which texts are the same."""

    def __init__(
        self, queries: Texts, documents: Texts, negatives: Sequence[dict[str, Tensor]], labels: Tensor | None
    ) -> None:
        self.documents = documents
        self.negatives = negatives
        self.labels = labels
        rows = torch.arange(len(queries["input_ids"]), device=queries["input_ids"].device)
        self.owner = torch.cat([rows, *(column.get("owner", rows) for column in negatives)])
        self.positions = torch.cat([rows[:0], *(column["position"] for column in negatives if "position" in column)])
        self.query_keys = text_keys(queries)
        self.candidate_keys = torch.cat([text_keys(column) for column in (documents, *negatives)])
        self.tokens = sum(int(column["attention_mask"].sum()) for column in (queries, documents, *negatives))

    def __len__(self) -> int:
        return len(self.query_keys)


class _Candidates:
    """Documents and negatives of this process, or of all of them, and what is masked among them."""

    def __init__(self, batch: _Batch, vectors: Tensor, share: bool) -> None:
        self._batch = batch
        self._share = share and dist.is_initialized() and dist.get_world_size() > 1
        self._count, rank = len(vectors), 0
        if self._share:
            rank, largest = dist.get_rank(), torch.tensor(len(vectors), device=vectors.device)
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
            self._count = int(largest)
        self.vectors = self._gather(vectors, with_grad=True)
        # The own rows come at the same place in what every process contributes.
        self.positive = torch.arange(len(batch), device=vectors.device) + rank * self._count
        # Whole numbers: not every backend gathers truth values.
        self._present = self._gather(torch.ones(len(vectors), dtype=torch.int32, device=vectors.device)) > 0

    def _gather(self, tensor: Tensor, with_grad: bool = False) -> Tensor:
        if not self._share:
            return tensor
        missing = self._count - len(tensor)
        padded = pad(tensor, (*[0, 0] * (tensor.dim() - 1), 0, missing))
        return cast(Tensor, all_gather_with_grad(padded) if with_grad else all_gather(padded.contiguous()))

    def duplicates(self) -> Tensor:
        """Candidates whose text is a known positive of the query's text, or that are padding; (b, c)."""
        batch = self._batch
        keys = self._gather(batch.candidate_keys)
        queries, documents = batch.query_keys, batch.candidate_keys[: len(batch)]
        if self._share:
            queries, documents = all_gather(queries), all_gather(documents.contiguous())
        same_query = (batch.query_keys[:, None] == queries).float()
        same_document = (documents[:, None] == keys).float()
        found = (same_query @ same_document > 0) | ~self._present
        return found.scatter(1, self.positive[:, None], False)

    def false_negatives(self, surrogate: FalseNegativeFilter) -> Tensor:
        """Candidates that the surrogate scores at least as high as the positive; (b, c)."""
        batch, device = self._batch, self.vectors.device
        if batch.labels is None:
            raise ConfigError("the filter of false negatives needs row numbers: give the data a column 'label'.")
        negatives = len(batch.candidate_keys) > len(batch)
        if negatives and len(batch.positions) + len(batch) != len(batch.candidate_keys):
            raise ConfigError("the filter of false negatives needs the 'position' of each mined negative.")
        queries, own = surrogate.vectors(batch.labels, batch.positions if negatives else None, device)
        mined = self._gather((torch.arange(len(own), device=device) >= len(batch)).int()) > 0
        rank_of = torch.arange(len(mined), device=device) // self._count
        here = rank_of == (self.positive[0] // self._count)
        kept = mined & here & (self._gather(batch.owner) == torch.arange(len(batch), device=device)[:, None])
        return surrogate.mask(queries, self._gather(own), self.positive, kept)


def text_keys(texts: Texts) -> Tensor:
    """A number for each text, the same in every process for the same tokens; shape (b,), int64."""
    ids = texts["input_ids"].cpu().numpy()
    lengths = texts["attention_mask"].sum(dim=1).tolist()
    keys = [hashlib.blake2b(row[:n].tobytes(), digest_size=8).digest() for row, n in zip(ids, lengths, strict=True)]
    numbers = [int.from_bytes(key, "little", signed=True) for key in keys]
    return torch.tensor(numbers, dtype=torch.int64, device=texts["input_ids"].device)


def _join(columns: Sequence[Texts], positions: Sequence[int]) -> Texts:
    """Some texts of several columns, counted through, as one."""
    width = max(column["input_ids"].shape[1] for column in columns)
    joined = {}
    for name in ("input_ids", "attention_mask"):
        padded = [pad(column[name], (0, width - column[name].shape[1])) for column in columns]
        joined[name] = torch.cat(padded)[list(positions)]
    return joined
