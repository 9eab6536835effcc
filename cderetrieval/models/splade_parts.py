"""Where a SPLADE model comes from, and the checks that it must pass: one `build` for directories and ready models.

a directory: saved by SparseEncoder, or a checkpoint of a masked language model
a masked language model and its tokenizer
a SparseEncoder
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import nn

from ..errors import ConfigError, InputError, ModelError
from ..runtime import pick_device
from .loading import loading
from .locate import find
from .splade_model import SpladeModel, check_k_tokens, is_splade, no_head

POOLING = ("max", "sum")
Kind = TypeVar("Kind", bound=SpladeModel)


class Parts(NamedTuple):
    """What a SPLADE model computes with; `static` gives queries without inference, None: as documents."""

    transformer: Any
    pooling: Any
    static: Any


def build(
    kind: type[Kind],
    model_name_or_path: str | Path | None,
    model: Any,
    tokenizer: Any,
    pooling: str | None,
    device: str | None,
    **settings: Any,
) -> Kind:
    """Make a model of a class of ours from any of the three sources.

    Parameters
    ----------
    kind
        `SpladeModel` or a subclass.
    model_name_or_path, model, tokenizer, pooling, device
        As for :class:`~.splade.Splade`.
    settings
        More arguments of `kind`.
    """
    if (model_name_or_path is None) == (model is None):
        raise ConfigError("give model_name_or_path=, or model= with its tokenizer=: one of the two.")
    if pooling is not None and pooling not in POOLING:
        raise ConfigError(f"pooling={pooling!r} is unknown; use 'max' or 'sum'.")
    if not isinstance(model, nn.Module | None):
        raise ConfigError(
            f"model={model!r} is no model. Give a directory or hub name as model_name_or_path=, and as model= a masked "
            "language model or a SparseEncoder."
        )
    if model is None:
        built = _from_directory(kind, str(model_name_or_path), device, settings)
    else:
        place = str(model.device) if device is None else str(pick_device(device))
        if isinstance(model, SparseEncoder):
            built = _from_sparse_encoder(kind, model, place, settings)
        else:
            if tokenizer is None:
                raise ConfigError("a masked language model comes without its tokenizer: give tokenizer= too.")
            modules = [transformer_module(model, tokenizer), SpladePooling()]
            built = kind(modules=modules, device=place, **settings)
    if pooling is not None:
        parts_of(built).pooling.pooling_strategy = pooling
    return built


def _from_directory(kind: type[Kind], name: str, device: str | None, settings: dict[str, Any]) -> Kind:
    directory = find(name)
    return kind.from_directory(directory, device=str(pick_device(device)), **settings)


def _from_sparse_encoder(kind: type[Kind], model: Any, device: str, settings: dict[str, Any]) -> Kind:
    """A model of our class with the same modules; one that is of it already stays."""
    if isinstance(model, kind):
        return model.to(device)
    return kind(
        modules=OrderedDict((name, module) for name, module in model.named_children()),
        prompts=dict(model.prompts),
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        max_active_dims=model.max_active_dims,
        device=device,
        **settings,
    )


def transformer_module(model: Any, tokenizer: Any) -> Transformer:
    """Put a masked language model, as it is and where it is, into a sentence-transformers module.

    The module reads only from a directory, so it is made from a copy on disk and then given the model itself.
    """
    if getattr(model, "base_model", model) is model or model.get_output_embeddings() is None:
        raise no_head("SPLADE", [model])
    with tempfile.TemporaryDirectory(prefix="cderetrieval-") as directory, loading(type(model).__name__):
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        module = Transformer(directory, transformer_task="fill-mask")
    module.model = model
    return module


def parts_of(model: SparseEncoder) -> Parts:
    """Find transformer, pooling and query weights, at the top or behind a router.

    Raises
    ------
    ModelError
        If documents are not embedded by a masked language model and SPLADE pooling.
    """
    modules = list(model.children())
    static = None
    if modules and isinstance(modules[0], Router):
        routes = {name: list(route) for name, route in modules[0].sub_modules.items()}
        queries = routes.get("query", [])
        modules = routes.get("document", [])
        static = queries[0] if len(queries) == 1 and isinstance(queries[0], SparseStaticEmbedding) else None
        if static is None and queries != modules:
            names = ", ".join(type(module).__name__ for module in queries) or "nothing"
            raise ModelError(f"this model routes queries through modules that are not supported: {names}.")
    if not is_splade(modules[:2]):
        raise no_head("SPLADE", modules)
    return Parts(modules[0], modules[1], static)


def check(model: SparseEncoder, parts: Parts) -> int:
    """Check that model, tokenizer and query weights share a vocabulary, and return its size.

    Raises
    ------
    ModelError
        If they do not.
    ConfigError
        If vectors are not compared by their inner product.
    """
    size = int(parts.transformer.model.config.vocab_size)
    tokens = len(parts.transformer.tokenizer)
    if tokens > size:
        raise ModelError(
            f"the tokenizer has {tokens} tokens, the model's vocabulary {size}: they do not belong together. Use the "
            "tokenizer that the model was trained with."
        )
    if parts.static is not None and parts.static.num_dimensions != size:
        raise ModelError(f"queries have weights for {parts.static.num_dimensions} terms, documents for {size}.")
    if model.similarity_fn_name != "dot":
        raise ConfigError(
            f"this model compares vectors by {model.similarity_fn_name!r}, an inverted index by inner product: use "
            "similarity_fn_name='dot'."
        )
    check_k_tokens(model.max_active_dims, size, "max_active_dims")
    parts.pooling.embedding_dimension = size
    return size


def set_max_length(model: SparseEncoder, parts: Parts, max_length: int) -> None:
    """Cut texts at so many tokens; the tokenizers keep it, and are saved with the model."""
    if max_length < 1:
        raise ConfigError(f"max_length={max_length!r} must be at least 1.")
    model.max_seq_length = max_length
    if parts.static is not None:
        parts.static.tokenizer.model_max_length = max_length


def route_queries(model: SparseEncoder, parts: Parts, weights: Mapping[str, float] | None) -> SparseEncoder:
    """A model that shares the modules for documents, and weighs the own tokens of queries."""
    vocabulary = parts.transformer.tokenizer.get_vocab()
    size = int(parts.transformer.model.config.vocab_size)
    if len(vocabulary) != size:
        raise ModelError(
            f"the tokenizer has {len(vocabulary)} tokens, the model's vocabulary {size}: queries without inference "
            "need the same. Call resize_token_embeddings(len(tokenizer)) on the model first."
        )
    if weights is None:
        values = torch.ones(size)
        values[parts.transformer.tokenizer.all_special_ids] = 0.0
    else:
        values = torch.zeros(size)
        for token, weight in weights.items():
            if token not in vocabulary:
                raise InputError(f"weights name the token {token!r}, which is not in the vocabulary.")
            values[vocabulary[token]] = weight
    static = SparseStaticEmbedding(parts.transformer.tokenizer, values, frozen=True)
    router = Router.for_query_document([static], [parts.transformer, parts.pooling])
    return SpladeModel(
        modules=[router],
        prompts=dict(model.prompts),
        similarity_fn_name="dot",
        max_active_dims=model.max_active_dims,
        device=str(model.device),
    )
