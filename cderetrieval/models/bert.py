"""BERT under a pooling, read from its directory without torch, transformers and sentence-transformers.

These take seconds to import, and nothing of them is needed to compute a vector. What is read here is described in full:
:func:`read_bert` knows the usual values of every setting, the names and shapes of every tensor. A directory that holds
anything else is left to sentence-transformers, which reads it, or to the checks before it, which say what is wrong.
With ``masked`` it reads the same with the head of a masked language model: the directory of a `SparseEncoder`, or of
transformers' `BertForMaskedLM` alone, which is pooled by its maximum.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..files import PASSED_ON, read_json, read_tensors
from .directory import is_regular, load_tokenizer, read_object
from .trusted import model_config, model_settings, sentence_config
from .word_pieces import WordPieces, read_word_pieces

# Settings on which no vector depends, however they are set.
_WITHOUT_EFFECT = {
    *("_name_or_path", "architectures", "attention_probs_dropout_prob", "bos_token_id", "classifier_dropout"),
    *("eos_token_id", "gradient_checkpointing", "hidden_dropout_prob", "id2label", "initializer_range", "label2id"),
    *("tie_word_embeddings", "transformers_version", "use_cache", "pad_token_id"),
}
# Values of others.
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "add_cross_attention": (False,),
    "is_decoder": (False,),
    "_attn_implementation": ("sdpa",),
    "dtype": ("float32",),
    "torch_dtype": ("float32",),
}
_SIZES = (
    *("hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers"),
    *("type_vocab_size", "vocab_size"),
)
_SETTINGS = {"prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type"}
_MODULES = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
_LEGACY = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_MASKED_MODULES = (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"])
_SETTINGS_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
POOLER = ("pooler.dense.weight", "pooler.dense.bias")
# The head of a masked language model; its matrix is that of the word embeddings.
HEAD, HEAD_BIAS = "cls.predictions.transform", "cls.predictions.bias"
_SPLADE = {"pooling_strategy": "max", "activation_function": "relu"}


@dataclass(frozen=True, eq=False)
class Bert:
    """Settings and weights of a model, by the names that transformers gives them in its `BertModel`.

    `pooling` is "mean" or "cls", of the states of tokens, or "max", of the logits of a head; then `k_tokens` is the
    most terms of a text. `pooler` are tensors that no vector depends on; `is_drawn` says that the file has none.
    """

    directory: Path
    config: SimpleNamespace
    tensors: Mapping[str, np.ndarray]
    pooler: Mapping[str, np.ndarray]
    is_drawn: bool
    tokenizer: WordPieces
    max_length: int
    prompts: Mapping[str, str]
    similarity_fn_name: str
    pooling: str
    normalizes: bool = False
    k_tokens: int | None = None

    @property
    def is_masked(self) -> bool:
        """Whether it has the head of a masked language model."""
        return self.pooling == "max"

    @property
    def lengths(self) -> int:
        """How often sentence-transformers and this package divide a vector by its length, which makes it 1."""
        return self.normalizes + (self.similarity_fn_name == "cosine")

    def module_names(self) -> list[str]:
        """What sentence-transformers shows of the modules of this model, which is part of its fingerprint."""
        kind, config = "BertForMaskedLM" if self.is_masked else "BertModel", self.config
        names = [f"Transformer({ {**_transformer(self.is_masked), 'architecture': kind} })"]
        if self.is_masked:
            return [*names, f"SpladePooling({ {**_SPLADE, 'embedding_dimension': config.vocab_size} })"]
        pooling = {"embedding_dimension": config.hidden_size, "pooling_mode": self.pooling, "include_prompt": True}
        output = "sentence_embedding"
        normalize = [f"Normalize({ {'module_input_name': output, 'module_output_name': output} })"]
        return [*names, f"Pooling({pooling})", *(normalize if self.normalizes else [])]

    def named_tensors(self) -> dict[str, np.ndarray]:
        """All tensors, by their names in the modules of sentence-transformers."""
        found, inner = {**self.tensors, **self.pooler}, "bert." if self.is_masked else ""
        return {f"0.model.{'' if name.startswith('cls.') else inner}{name}": found[name] for name in found}

    def changed(self, tensors: Mapping[str, np.ndarray]) -> Bert:
        """The same model with other values of some tensors."""
        return replace(self, tensors={**self.tensors, **tensors})


def _transformer(masked: bool) -> dict[str, Any]:
    """What sentence-transformers writes of a transformer without, or with, the head of a masked language model."""
    output = "logits" if masked else "last_hidden_state"
    return {
        "transformer_task": "fill-mask" if masked else "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": output}},
        "module_output_name": "token_embeddings",
    }


def read_bert(directory: Path, *, masked: bool = False) -> Bert | None:
    """The model of a directory, if it is one of those that are described here; None also for what cannot be read."""
    try:
        return _read_masked(directory) if masked else _read(directory)
    except PASSED_ON:
        raise
    except BaseException:  # the library that reads it now will meet the same error
        return None


def _read(directory: Path) -> Bert | None:
    config = model_config(read_object(directory / "config.json"), "config.json")
    settings = model_settings(read_object(directory / "config_sentence_transformers.json"), "")
    places, sentence = _folders(directory, _MODULES), _sentence(directory, masked=False)
    if places is None or sentence is None or settings.get("similarity_fn_name") not in (None, "cosine", "dot"):
        return None
    pooling = _pooling(read_object(places[1] / "config.json"), config["hidden_size"])
    if pooling is None or settings.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        return None
    found = _described(directory, config, settings, sentence, pooling)
    if found is None:
        return None
    pooler = {name: found.tensors[name] for name in POOLER if name in found.tensors}
    tensors = {name: tensor for name, tensor in found.tensors.items() if name not in pooler}
    is_drawn = sentence.has_pooler and not pooler
    if is_drawn:  # as transformers does
        width = config["hidden_size"]
        weight = np.random.default_rng().normal(scale=0.02, size=(width, width)).astype(np.float32)
        pooler = dict(zip(POOLER, (weight, np.zeros(width, dtype=np.float32)), strict=True))
    pooler = pooler if sentence.has_pooler else {}
    return replace(found, tensors=tensors, pooler=pooler, is_drawn=is_drawn, normalizes=len(places) == 3)


def _described(
    directory: Path, config: dict[str, Any], settings: dict[str, Any], sentence: SimpleNamespace, pooling: str
) -> Bert | None:
    """The model of these settings, if its architecture, tensors and tokenizer are usual too."""
    adapted = is_regular(directory / "adapter_config.json") or any(directory.glob("sentence_[!b]*_config.json"))
    if adapted or not (_is_bert(config) and _is_plain(settings)):
        return None
    tensors = _tensors(directory / "model.safetensors", config, masked=pooling == "max")
    full = partial(load_tokenizer, directory, by_config=True)
    tokenizer = read_word_pieces(directory, full, lower_case=sentence.lower_case)
    positions = config["max_position_embeddings"]
    if not tensors or tokenizer is None or len(tokenizer) > config["vocab_size"]:
        return None
    limit = min(tokenizer.model_max_length, positions) if sentence.limit is None else sentence.limit
    if type(limit) is not int or not 2 < limit <= positions:
        return None
    return Bert(
        directory=directory,
        config=SimpleNamespace(**config),
        tensors=tensors,
        pooler={},
        is_drawn=False,
        tokenizer=tokenizer,
        max_length=limit,
        prompts=settings.get("prompts") or {},
        similarity_fn_name=settings.get("similarity_fn_name") or "cosine",
        pooling=pooling,
    )


def _sentence(directory: Path, *, masked: bool) -> SimpleNamespace | None:
    """What sentence_bert_config.json says of length, case and pooler, if it says nothing else."""
    values = sentence_config(read_object(directory / "sentence_bert_config.json"), "")
    limit, lower_case = values.pop("max_seq_length", None), values.pop("do_lower_case", False)
    arguments = values.pop("model_args", None) or {}
    has_pooler = arguments.pop("add_pooling_layer", True)
    usual = _transformer(masked)
    unusual = arguments or any(value and value != usual.get(name) for name, value in values.items())
    if unusual or not {lower_case, has_pooler} <= {True, False}:
        return None
    return SimpleNamespace(limit=limit, lower_case=lower_case, has_pooler=has_pooler)


def _read_masked(directory: Path) -> Bert | None:
    config = model_config(read_object(directory / "config.json"), "config.json")
    settings: dict[str, Any] = {}
    sentence: SimpleNamespace | None = SimpleNamespace(limit=None, lower_case=False)
    if any(is_regular(directory / file) for file in _SETTINGS_FILES):
        settings = model_settings(read_object(directory / "config_sentence_transformers.json"), "")
        places, sentence = _folders(directory, _MASKED_MODULES), _sentence(directory, masked=True)
        if places is None or settings.get("model_type") != "SparseEncoder":
            return None
        pooling = read_object(places[1] / "config.json")
        if pooling.pop("embedding_dimension", None) not in (None, config["vocab_size"]) or pooling != _SPLADE:
            return None
    elif config["architectures"] != ["BertForMaskedLM"]:
        return None
    most = settings.pop("max_active_dims", None)
    allowed = most is None or (type(most) is int and 0 < most <= config["vocab_size"])
    dot = settings.get("similarity_fn_name") or "dot"
    if sentence is None or not allowed or dot != "dot" or not config.get("tie_word_embeddings", True):
        return None
    found = _described(directory, config, {**settings, "similarity_fn_name": dot}, sentence, "max")
    return found and replace(found, k_tokens=most)


def _folders(directory: Path, known: Collection[list[str]]) -> list[Path] | None:
    """The folders of the modules, if their names are known ones."""
    modules = read_json(directory / "modules.json", list) if is_regular(directory / "modules.json") else []
    names = [str(module["type"]).rpartition(".")[2] for module in modules]
    if names not in known or modules[0]["path"]:
        return None
    if not all(re.fullmatch(r"\d_\w+", module["path"]) for module in modules[1:]):
        return None
    named = [module["type"].startswith("sentence_transformers.") for module in modules]
    places = [directory / module["path"] for module in modules]
    inside = [place.resolve().is_relative_to(directory.resolve()) for place in places]
    return places if all(named) and all(inside) else None


def _is_bert(config: Mapping[str, Any]) -> bool:
    others = {name: value for name, value in config.items() if name not in _WITHOUT_EFFECT and name not in _SIZES}
    epsilon = others.pop("layer_norm_eps")
    sizes = [config[name] for name in _SIZES]
    return (
        {"model_type", "hidden_act"} <= {*others}
        and all(value in _USUAL.get(name, ()) for name, value in others.items())
        and all(type(size) is int and size > 0 for size in sizes)
        and config["hidden_size"] % config["num_attention_heads"] == 0
        and isinstance(epsilon, float)
        and 0 < epsilon < 1
    )


def _is_plain(settings: Mapping[str, Any]) -> bool:
    prompts = settings.get("prompts") or {}
    return (
        {*settings} <= _SETTINGS
        and settings.get("truncate_dim") is None
        and settings.get("default_prompt_name") is None
        and all(isinstance(text, str) for text in prompts.values())
    )


def _pooling(values: dict[str, Any], width: int) -> str | None:
    """The pooling of a module's settings, of all releases."""
    size = values.pop("embedding_dimension", None) or values.pop("word_embedding_dimension", None)
    mode, whole = values.pop("pooling_mode", None), values.pop("include_prompt", True)
    if mode is None:
        chosen = [name for name, value in values.items() if value]
        mode = _LEGACY.get(chosen[0]) if len(chosen) == 1 else None
        values = {name: value for name, value in values.items() if not name.startswith("pooling_mode_")}
    return mode if mode in ("mean", "cls") and size == width and whole is True and not values else None


def _shapes(config: Mapping[str, Any], masked: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of a BERT but its pooler, with the head of a masked language model or without."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    for name, size in (
        ("word", "vocab_size"),
        ("position", "max_position_embeddings"),
        ("token_type", "type_vocab_size"),
    ):
        yield f"embeddings.{name}_embeddings.weight", (config[size], width)
    linear = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width)}
    linear["output.dense"] = (width, inner)
    norms = ["embeddings.LayerNorm"]
    for layer in range(config["num_hidden_layers"]):
        place = f"encoder.layer.{layer}"
        norms += [f"{place}.attention.output.LayerNorm", f"{place}.output.LayerNorm"]
        for name, shape in linear.items():
            yield f"{place}.{name}.weight", shape
            yield f"{place}.{name}.bias", shape[:1]
    if masked:
        yield f"{HEAD}.dense.weight", (width, width)
        yield f"{HEAD}.dense.bias", (width,)
        yield HEAD_BIAS, (config["vocab_size"],)
        norms.append(f"{HEAD}.LayerNorm")
    for name in norms:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)


def _tensors(path: Path, config: Mapping[str, Any], *, masked: bool) -> dict[str, np.ndarray]:
    """The weights, if they are all there, and all of them float32."""
    if not is_regular(path):
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        names = {_name(name, masked): name for name in file.keys()}  # noqa: SIM118
        names.pop("embeddings.position_ids", None)
        found = {name: file.get_slice(stored) for name, stored in names.items()}
        if config["num_hidden_layers"] > len(found) or any(part.get_dtype() != "F32" for part in found.values()):
            return {}
        width, wanted = config["hidden_size"], dict(_shapes(config, masked))
        if not masked and (POOLER[0] in found or POOLER[1] in found):
            wanted |= dict(zip(POOLER, ((width, width), (width,)), strict=True))
        if {name: tuple(part.get_shape()) for name, part in found.items()} != wanted:
            return {}
    tensors, _ = read_tensors(path)
    return {name: tensors[stored] for name, stored in names.items()}


def _name(stored: str, masked: bool) -> str:
    """The name of a tensor in a `BertModel`, and today's; what is outside of one keeps a name that no tensor has."""
    if masked and not stored.startswith(("bert.", "cls.")):
        return f"?.{stored}"
    name = stored.removeprefix("bert.") if masked else stored
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
