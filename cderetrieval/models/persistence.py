"""A contextual model as a directory: settings, weights, tokenizer, model card, and what sentence-transformers reads.

config.json                        model_type "cderetrieval", the settings
model.safetensors                  weights, each shared tensor once
tokenizer.json ...                 the tokenizer
modules.json, config_sentence_transformers.json
README.md                          model card
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import __version__
from ..errors import ConfigError, StoreError
from ..files import as_path, atomic_write, write_json
from .card import model_card
from .config import ContextualConfig
from .directory import is_regular, load_tokenizer
from .fits import check_counts
from .weights import read_checkpoint

FORMAT = 1
MODULE = "cderetrieval.models.sentence_transformer.ContextualModule"


def write(
    path: str | Path, config: ContextualConfig, tokenizer: Any, tensors: Mapping[str, Tensor], **card: Any
) -> None:
    """Write a model into a directory; `card` holds fields of :func:`~.card.model_card`."""
    from safetensors.torch import save_file

    directory = as_path(path)
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_write(directory / "model.safetensors") as temporary:
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={"format": "pt"})
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    header = {"model_type": "cderetrieval", "format": FORMAT, "cderetrieval_version": __version__}
    write_json(directory / "config.json", {**header, "settings": config.to_dict()})
    write_json(directory / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": MODULE}])
    prompts = {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine", "prompts": config.prompts}
    write_json(directory / "config_sentence_transformers.json", prompts)
    with atomic_write(directory / "README.md") as temporary:
        temporary.write_text(model_card(config, **card), encoding="utf-8")


def read(directory: Path, config: Mapping[str, Any]) -> tuple[ContextualConfig, Any, dict[str, Tensor]]:
    """Settings, tokenizer (None without one) and tensors of a directory that :func:`write` wrote."""
    if config.get("format", 0) > FORMAT:
        raise StoreError(f"{directory} has format {config['format']}, this version reads up to {FORMAT}: upgrade it.")
    if "settings" not in config:
        raise ConfigError(f"{directory / 'config.json'} has no 'settings': it was not written by save_pretrained.")
    tokenizer = load_tokenizer(directory) if is_regular(directory / "tokenizer_config.json") else None
    tensors = read_checkpoint(directory)
    check_counts(config["settings"], len(tensors), str(directory / "config.json"))
    return ContextualConfig.from_dict(config["settings"]), tokenizer, tensors
