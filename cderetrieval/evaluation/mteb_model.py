"""A model behind mteb's encoder and search protocols, over the Retriever that users run.

mteb calls `index(corpus)` before any query is encoded, so retrieval takes its context there, from the corpus alone. For
every other task type the harness calls `prepare(task)` first, which registers what a context may be sampled from
(`mteb_context`); an `encode` without a registered context is an error. Nothing is ever sampled from what is being
encoded: mteb encodes queries before documents, label names before texts, and one side of a pair before the other.

All texts of a call are collected and then encoded once, sorted by token count.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding import is_contextual
from ..errors import ContextError, InputError
from ..fusion.model import AnyModel, HybridModel, takes_context
from ..types import Encoder
from ..vectors import DENSE
from .candidates import NO_VECTORS, encode_side, encoder_in, model_kind, rerank
from .forms import Run
from .inject import TaskCorpus, query_texts
from .mteb_context import context_pools, is_retrieval
from .retrieval import audit, described, index_corpus, search_blocks, texts_of
from .setting import ContextSetting

logger = logging.getLogger(__name__)

# Given subset, split and the blocks of hits; passes the blocks on.
Watch = Callable[[str, str, Iterator[Run]], Iterator[Run]]
# Given subset, split, and what their context was made of.
OnContext = Callable[[str, str, dict[str, Any]], None]
# What mteb calls each kind of model; it counts words among the sparse ones.
MODEL_TYPES = {DENSE: DENSE, HybridModel.kind: "hybrid"}
_SEARCHED = ("Retrieval", "InstructionRetrieval", "InstructionReranking")


class MTEBModel:
    """Adapter of a model in one context setting.

    Parameters
    ----------
    model
        A model of any family.
    setting
        Where contexts come from.
    name
        In mteb's results, ``organisation/model``.
    revision
        The same; the model's fingerprint is a good one.
    dtype
        Number format of a contextual model's computation.
    directory
        Where a corpus lies while it is searched; None: the system's temporary directory.
    candidates
        What chose the documents that are reranked, in place of a full search; part of the experiment's name.
    on_context
        Called with subset, split and what their context was made of.
    watch
        Sees the hits of each subset and split go by, before mteb scores them.

    Attributes
    ----------
    audits
        (task, subset, split) to what its context was made of.
    """

    def __init__(
        self,
        model: AnyModel,
        setting: ContextSetting,
        *,
        name: str,
        revision: str | None = None,
        dtype: str = "auto",
        directory: str | Path | None = None,
        candidates: str | None = None,
        watch: Watch | None = None,
        on_context: OnContext | None = None,
    ) -> None:
        self.model = model
        self.setting = setting
        self.audits: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._dtype, self._directory, self._watch, self._on_context = dtype, directory, watch, on_context
        self._pools: dict[tuple[str, str, str], list[str]] = {}
        self._newest: tuple[int, Encoder] | None = None
        self._corpus: TaskCorpus | None = None
        self._meta = model_meta(model, setting, name, revision or model.fingerprint[:12], candidates)

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes beside results; the context setting is its experiment."""
        return self._meta

    def prepare(self, task: Any) -> None:
        """Register what the contexts of a task may be sampled from; its data must be loaded."""
        self._pools.clear()
        self._newest = None
        if is_retrieval(task):
            return
        for keys, texts in context_pools(task):
            for subset, split in keys:
                self._pools[task.metadata.name, subset, split] = texts

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **_: Any,
    ) -> np.ndarray:
        """Vectors of the texts of a data loader, shape (n, dimension), float32.

        Sparse ones are given as a full matrix, as mteb's own sparse models give theirs: its evaluators take no other.

        Raises
        ------
        ContextError
            If no context was registered for this task, subset and split.
        InputError
            If the model has no vectors whose inner products rank.
        """
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
            return self.model
        pool = self._pools.get((task, subset, split))
        if pool is None:
            raise ContextError(
                f"no context is registered for {task}, subset {subset!r}, split {split!r}: call prepare(task) after "
                "task.load_data(), or evaluate through cderetrieval.evaluate. It is never sampled from what is encoded."
            )
        if self._newest is None or self._newest[0] != id(pool):
            encoder, context = encoder_in(
                self.model, self.setting, ((str(i), text) for i, text in enumerate(pool)), self._dtype
            )
            self._newest = (id(pool), encoder)
            made = {**described(context), "pool": len(pool)}
            for key in (key for key, texts in self._pools.items() if texts is pool):
                self._note(key, made)
        return self._newest[1]

    def _note(self, key: tuple[str, str, str], made: dict[str, Any]) -> None:
        self.audits[key] = made
        if made and self._on_context is not None:
            self._on_context(key[1], key[2], made)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Inner products, what an index ranks by, shape (n, m); vectors of cosine models have length 1."""
        left, right = _matrix(embeddings1), _matrix(embeddings2)
        return left @ right.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Inner product of each pair, shape (n,)."""
        return (_matrix(embeddings1) * _matrix(embeddings2)).sum(dim=1)

    def index(self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **_: Any) -> None:
        """Take the corpus; it is what the context is sampled from."""
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
        """Hits of each query: over the corpus, or among `top_ranked`."""
        if self._corpus is None:
            raise InputError("index(corpus) must come before search(queries).")
        asked = dict(zip(queries["id"], query_texts(queries), strict=True))
        task = (task_metadata.name, hf_subset, hf_split)
        found: Run = {}
        with contextlib.ExitStack() as stack:
            blocks = self._blocks(asked, top_k, top_ranked, task_metadata, task, stack)
            for block in blocks if self._watch is None else self._watch(hf_subset, hf_split, blocks):
                found.update(block)
        return found

    def _blocks(
        self,
        asked: dict[str, str],
        k: int,
        top_ranked: Mapping[str, list[str]] | None,
        metadata: Any,
        task: tuple[str, str, str],
        stack: contextlib.ExitStack,
    ) -> Iterator[Run]:
        assert self._corpus is not None
        if top_ranked is not None:

            def encode(encoder: Encoder, texts: Sequence[str], is_query: bool) -> Any:
                return encode_for(encoder, texts, metadata, "query" if is_query else "document")

            corpus = self._corpus
            blocks, context = rerank(
                self.model, self.setting, lambda: texts_of(corpus), asked, top_ranked, self._dtype, encode
            )
        else:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="corpus-", dir=self._directory))
            retriever = index_corpus(self.model, self.setting, self._corpus, self._dtype, directory)
            stack.callback(retriever.close)
            context = retriever.context
            blocks = search_blocks(retriever, asked, k)
        self._note(task, audit(context, self._corpus, asked.values()))
        yield from blocks


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

    The order is mteb's: task and side, task, type and side, type. Then query and document for what is searched, and
    for the other types the families of the published models, ``clustering`` and ``classification`` (so for
    reranking, as in mteb's settings for CDE), then the side, which every model has, with a prompt or without.
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


def model_meta(model: Any, setting: ContextSetting, name: str, revision: str, candidates: str | None = None) -> Any:
    """mteb's description of a model; a plain one has no experiment, so that its results stand where mteb's own do."""
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction

    experiment: dict[str, Any] = {}
    if takes_context(model):
        experiment = {"context": setting.name, "seed": setting.seed, "size": setting.size or model.context_size}
    if candidates is not None:
        experiment["candidates"] = candidates
    config = getattr(model, "config", None)
    is_cosine = getattr(getattr(model, "settings", None), "normalize", model_kind(model) == DENSE)
    return ModelMeta.create_empty(
        overwrites={
            "name": name if "/" in name else f"local/{name}",
            "revision": revision,
            "embed_dim": getattr(model, "dimension", getattr(config, "hidden_size", None)) or None,
            "max_tokens": getattr(getattr(model, "settings", config), "max_length", None),
            "similarity_fn_name": ScoringFunction("cosine" if is_cosine else "dot"),
            "model_type": [MODEL_TYPES.get(model_kind(model), "sparse")],
            "modalities": ["text"],
            "experiment_kwargs": experiment or None,
        }
    )
