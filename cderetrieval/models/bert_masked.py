"""SPLADE on BERT, read from its directory as :mod:`.bert` reads a dense model: the head and a pooling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .bert import SPLADE_POOLING, Bert, described, module_folders, read_sentence, unless_unusual
from .directory import is_regular, read_object
from .trusted import model_config, model_settings

_MODULES = (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"])
_SETTINGS = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")


def read_masked_bert(directory: Path) -> Bert | None:
    """The model of a directory, if it is one of those that are described here."""
    return unless_unusual(_read, directory)


def _read(directory: Path) -> Bert | None:
    config = model_config(read_object(directory / "config.json"), "config.json")
    settings: dict[str, Any] = {}
    sentence: SimpleNamespace | None = SimpleNamespace(limit=None, lower_case=False)
    if any(is_regular(directory / file) for file in _SETTINGS):
        settings = model_settings(read_object(directory / "config_sentence_transformers.json"), "")
        places, sentence = module_folders(directory, _MODULES), read_sentence(directory, masked=True)
        if places is None or settings.get("model_type") != "SparseEncoder":
            return None
        pooling = read_object(places[1] / "config.json")
        if pooling.pop("embedding_dimension", None) not in (None, config["vocab_size"]) or pooling != SPLADE_POOLING:
            return None
    elif config["architectures"] != ["BertForMaskedLM"]:
        return None
    most = settings.pop("max_active_dims", None)
    allowed = most is None or (type(most) is int and 0 < most <= config["vocab_size"])
    dot = settings.get("similarity_fn_name") or "dot"
    if sentence is None or not allowed or dot != "dot" or not config.get("tie_word_embeddings", True):
        return None
    found = described(directory, config, {**settings, "similarity_fn_name": dot}, sentence, "max")
    return found and replace(found, k_tokens=most)
