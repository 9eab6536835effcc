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
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ConfigError, StoreError
from ..files import as_path, atomic_write, write_json
from .card import model_card
from .config import ContextualConfig
from .directory import config_of, is_regular, load_tokenizer
from .fits import check_counts, check_size
from .weights import load_tensors, read_checkpoint, unique_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from .contextual import ContextualTransformer

FORMAT = 1
MODULE = "cderetrieval.models.sentence_transformer.ContextualModule"


def save_model(model: ContextualTransformer, path: str | Path, **card: Any) -> None:
    """Write a model into a directory; `card` holds fields of :func:`~cderetrieval.models.card.model_card`."""
    from safetensors.torch import save_file

    directory = as_path(path)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in unique_tensors(model).items()}
    with atomic_write(directory / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(directory)
    header = {"model_type": "cderetrieval", "format": FORMAT, "cderetrieval_version": __version__}
    write_json(directory / "config.json", {**header, "settings": model.config.to_dict()})
    write_json(directory / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": MODULE}])
    prompts = {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine", "prompts": model.config.prompts}
    write_json(directory / "config_sentence_transformers.json", prompts)
    with atomic_write(directory / "README.md") as temporary:
        temporary.write_text(model_card(model.config, **card), encoding="utf-8")


def check_model(config: ContextualConfig, tensors: Mapping[str, Tensor], directory: Path) -> None:
    """Refuse settings of a model that is far larger than its weights."""
    from .contextual import ContextualTransformer

    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    check_size(lambda: ContextualTransformer(config), shapes, str(directory / "config.json"))


def load_model(directory: str | Path) -> ContextualTransformer:
    """Read a directory that :func:`save_model` wrote."""
    from .contextual import ContextualTransformer

    directory = as_path(directory)
    config = config_of(directory)
    if config.get("format", 0) > FORMAT:
        raise StoreError(f"{directory} has format {config['format']}, this version reads up to {FORMAT}: upgrade it.")
    if "settings" not in config:
        raise ConfigError(f"{directory / 'config.json'} has no 'settings': it was not written by save_pretrained.")
    tokenizer = None
    if is_regular(directory / "tokenizer_config.json"):
        tokenizer = load_tokenizer(directory)
    tensors = read_checkpoint(directory)
    check_counts(config["settings"], len(tensors), str(directory / "config.json"))
    settings = ContextualConfig.from_dict(config["settings"])
    check_model(settings, tensors, directory)
    model = ContextualTransformer(settings, tokenizer)
    load_tensors(model, tensors, str(directory))
    return model
