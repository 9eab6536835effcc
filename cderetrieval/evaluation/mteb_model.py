"""A model behind mteb's encoder and search protocols, over the Retriever that users run.

In retrieval mteb calls `index(corpus)` before it encodes a query, so the context comes from the corpus alone. For other
types of task `prepare(task)` registers what a context may be sampled from; encoding without it is an error. Nothing is
sampled from what is encoded: mteb encodes queries before documents, label names before texts, and one side of a pair
before the other. All texts of a call are encoded at once, sorted by token count.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..context.spec import OWN, ContextLike
from ..errors import ContextError, InputError
from ..models.document_context import AUTO, DocumentContextLike
from ..passages import PassagesLike
from ..retrieval.names import AnyModel, HybridModel, load_model, takes_context
from ..types import ContextualModel, Encoder, is_contextual
from ..vectors import DENSE
from .candidates import rerank
from .metrics import Run
from .mteb_data import TaskCorpus, context_pools, is_retrieval, query_texts
from .search import (
    NO_VECTORS,
    audit,
    cut_of,
    encode_side,
    encoder_in,
    index_corpus,
    model_kind,
    search_blocks,
    texts_of,
)
from .variants import ContextVariant, as_variant

Watch = Callable[[str, str, Iterator[Run]], Iterator[Run]]
OnContext = Callable[[str, str, dict[str, Any]], None]
# mteb's names for kinds of models; BM25 counts as sparse.
MODEL_TYPES = {DENSE: DENSE, HybridModel.kind: "hybrid"}
_SEARCHED = ("Retrieval", "InstructionRetrieval", "InstructionReranking")


class MTEBModel:
    """Adapter of a model in one context for mteb.

    Parameters
    ----------
    model
        A model of any family, its name or directory.
    context
        As in :class:`~cderetrieval.retrieval.retriever.Retriever`, or a variant with size and seed.
    name, revision
        ``organisation/model`` and a revision in mteb's results; None: the model's class and its fingerprint.
    dtype, directory
        Number format of a contextual model's computation, and where a corpus is kept while it is searched.
    candidates
        Name of what chose the documents to rerank, where that is not the task; part of the experiment.
    passages, document_context
        As in a `Retriever`, but for None, the default; retrieval tasks alone have documents to cut.
    watch, on_context
        Called with subset, split and the blocks of their hits, which it passes on; or what their context was made of.

    Attributes
    ----------
    audits
        (task, subset, split) to what its context was made of.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> model = MTEBModel(tiny_model(), "own", name="mine/tiny")  # then mteb.evaluate(model, task)
    >>> model.similarity([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]).tolist()
    [[0.0, 1.0]]
    """

    def __init__(
        self,
        model: AnyModel | str | Path,
        context: ContextLike | ContextVariant = "own",
        *,
        name: str | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        directory: str | Path | None = None,
        candidates: str | None = None,
        passages: PassagesLike = None,
        document_context: DocumentContextLike = AUTO,
        watch: Watch | None = None,
        on_context: OnContext | None = None,
    ) -> None:
        if isinstance(model, str | Path):
            model = load_model(model, dtype=dtype)
        name = type(model).__name__ if name is None else name
        self.model = model
        self.variant = as_variant(model, context, passages=passages, document_context=document_context)
        self.audits: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._dtype, self._directory, self._watch, self._on_context = dtype, directory, watch, on_context
        self._pools: dict[tuple[str, str, str], list[str]] = {}
        self._newest: tuple[int, Encoder] | None = None
        self._corpus: TaskCorpus | None = None
        self._name, self._revision, self._candidates = name, revision or model.fingerprint[:12], candidates

    @functools.cached_property
    def mteb_model_meta(self) -> Any:
        """mteb's description of the model; the context is its experiment, so a plain model has none, as in mteb."""
        from mteb.models import ModelMeta
        from mteb.models.model_meta import ScoringFunction

        model, variant, name = self.model, self.variant, self._name
        experiment: dict[str, Any] = {}
        if takes_context(model):
            size = variant.size or cast(ContextualModel, model).context_size
            experiment = {"context": variant.name, "seed": variant.seed, "size": size}
        if variant.passages is not None:
            experiment |= variant.cut
        if self._candidates is not None:
            experiment["candidates"] = self._candidates
        config = getattr(model, "config", None)
        is_cosine = getattr(getattr(model, "settings", None), "normalize", model_kind(model) == DENSE)
        return ModelMeta.create_empty(
            overwrites={
                "name": name if "/" in name else f"local/{name}",
                "revision": self._revision,
                "embed_dim": getattr(model, "dimension", getattr(config, "hidden_size", None)) or None,
                "max_tokens": getattr(getattr(model, "settings", config), "max_length", None),
                "similarity_fn_name": ScoringFunction("cosine" if is_cosine else "dot"),
                "model_type": [MODEL_TYPES.get(model_kind(model), "sparse")],
                "modalities": ["text"],
                "experiment_kwargs": experiment or None,
            }
        )

    def prepare(self, task: Any) -> None:
        """Register what the contexts of a loaded task may be sampled from."""
        self._pools.clear()
        self._newest = None
        if is_retrieval(task):
            return
        for keys, texts in context_pools(task):
            for subset, split in keys:
                self._pools[task.metadata.name, subset, split] = texts

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **_: Any
    ) -> np.ndarray:
        """Vectors of the texts of a data loader, shape (n, dimension), float32; sparse ones as a full matrix."""
        if (kind := model_kind(self.model)) in NO_VECTORS:
            raise InputError(
                f"{task_metadata.name} compares vectors, and a {kind!r} model has no single vector for a text: evaluate"
                " it on retrieval tasks."
            )
        texts = [text for batch in inputs for text in batch["text"]]
        encoder = self._encoder(task_metadata.name, hf_subset, hf_split)
        vectors = encode_for(encoder, texts, task_metadata, prompt_type)
        return np.asarray(vectors.toarray() if hasattr(vectors, "toarray") else vectors, dtype=np.float32)

    def _encoder(self, task: str, subset: str, split: str) -> Any:
        if not is_contextual(self.model):
            return encoder_in(cast(Encoder, self.model), self.variant, ())[0]
        pool = self._pools.get((task, subset, split))
        if pool is None and self.variant.spec.source != OWN:
            return encoder_in(self.model, self.variant, (), self._dtype)[0]
        if pool is None:
            raise ContextError(
                f"no context is registered for {task}, subset {subset!r}, split {split!r}: call prepare(task) after "
                "task.load_data(), evaluate through cderetrieval.evaluate, or pass MTEBModel(model, 'random'). It is "
                "never sampled from what is encoded."
            )
        if self._newest is None or self._newest[0] != id(pool):
            pairs = ((str(i), text) for i, text in enumerate(pool))
            encoder, context = encoder_in(self.model, self.variant, pairs, self._dtype)
            self._newest = (id(pool), encoder)
            made = audit(context, len(pool))
            for key in (key for key, texts in self._pools.items() if texts is pool):
                self._report(key, made)
        return self._newest[1]

    def _report(self, key: tuple[str, str, str], made: dict[str, Any]) -> None:
        self.audits[key] = made
        if made and self._on_context is not None:
            self._on_context(key[1], key[2], made)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Inner products, by which an index ranks, shape (n, m); vectors of cosine models have length 1."""
        return _matrix(embeddings1) @ _matrix(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Inner product of each pair, shape (n,)."""
        return (_matrix(embeddings1) * _matrix(embeddings2)).sum(dim=1)

    def index(self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **_: Any) -> None:
        """Take the corpus, from which the context is sampled."""
        self._corpus = TaskCorpus(corpus)

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Mapping[str, list[str]] | None = None,
        **_: Any,
    ) -> Run:
        """Hits of each query in the corpus, or among `top_ranked`."""
        if self._corpus is None:
            raise InputError("index(corpus) must come before search(queries).")
        asked = dict(zip(queries["id"], query_texts(queries), strict=True))
        found, cut = Run(), {}
        with contextlib.ExitStack() as stack:
            if top_ranked is None:
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="corpus-", dir=self._directory))
                retriever = index_corpus(self.model, self.variant, self._corpus, self._dtype, directory)
                stack.callback(retriever.close)
                blocks, context = search_blocks(retriever, asked, top_k), retriever.context
                cut = cut_of(retriever, self.variant)
            else:

                def encode(encoder: Encoder, texts: Sequence[str], is_query: bool) -> Any:
                    return encode_for(encoder, texts, task_metadata, "query" if is_query else "document")

                blocks, context = rerank(self.model, self.variant, self._corpus, asked, top_ranked, self._dtype, encode)
            made = audit(context, len(self._corpus), texts_of(self._corpus), asked.values())
            self._report((task_metadata.name, hf_subset, hf_split), {**made, **cut})
            for block in blocks if self._watch is None else self._watch(hf_subset, hf_split, blocks):
                found.update(block)
        return found


def encode_for(encoder: Any, texts: Sequence[str], task_metadata: Any, prompt_type: Any = None) -> Any:
    """Vectors of texts under the prompt that fits a task."""
    if not hasattr(encoder, "settings"):
        return encode_side(encoder, texts, prompt_type == "query")
    name = prompt_name(encoder.settings.prompts, task_metadata, prompt_type)
    if name is None:
        encoder = copy.copy(encoder)
        encoder.settings = dataclasses.replace(encoder.settings, prompts={**encoder.settings.prompts, "": ""})
    return encoder.encode(texts, prompt_name=name or "")


def prompt_name(prompts: Mapping[str, str], task_metadata: Any, prompt_type: Any = None) -> str | None:
    """Name of a model's prompt for a task; None where none fits and mteb names no side.

    In mteb's order: task and side, task, type and side, type. Then for tasks that are not searched ``clustering`` or
    ``classification`` (also for reranking, as in mteb's settings for CDE), then the side, which every model has.
    """
    side, kind = getattr(prompt_type, "value", prompt_type), task_metadata.type
    names = [name for part in (task_metadata.name, kind) for name in ((f"{part}-{side}", part) if side else (part,))]
    family = [] if kind in _SEARCHED else ["clustering" if kind == "Clustering" else "classification"]
    return next((name for name in [*names, *family] if name in prompts), side)


def _matrix(vectors: Any) -> Any:
    """Vectors or one vector, of numpy or torch, as a float32 tensor of two dimensions."""
    import torch

    tensor = torch.as_tensor(vectors).float()
    return tensor if tensor.ndim == 2 else tensor.reshape(1, -1)
