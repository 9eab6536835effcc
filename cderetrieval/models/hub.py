"""From a name to a model: ``load("cde-minilm")``, a local directory, or a hub name.

A name is looked up in this order, and no later place is asked once an earlier one answers:

1. a local directory that holds a model (one of the same name that holds other things does not count);
2. the names that work without a network: ``cde-minilm``, ``all-MiniLM-L6-v2`` and ``bm25``;
3. the Hugging Face hub (only configuration, tokenizer and safetensors are fetched, never code).

What a directory holds is told by its files: a contextual model in this package's own or in the published CDE layout,
SparseEmbed, SPLADE (a SparseEncoder), or a dense model, which is anything else that sentence-transformers reads. A
masked language model can be more than one of these: ``"splade:DIRECTORY"`` says which it is to be.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, WeightsError
from ..files import as_path, read_json, reading
from ..runtime import pick_device
from . import bm25
from .directory import AGAIN, VOCABULARIES, config_of, load_tokenizer, read_object
from .fits import check_counts
from .trusted import FILTERS

if TYPE_CHECKING:
    from .bm25 import BM25
    from .contextual import ContextualTransformer
    from .dense import DenseEncoder
    from .splade import Splade
    from .statistics import StatisticsModel

logger = logging.getLogger(__name__)

# Short names and where they live on the hub.
ALIASES = {
    "cde-small-v1": "jxm/cde-small-v1",
    "cde-small-v2": "jxm/cde-small-v2",
    "all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "multi-qa-distilbert-cos-v1": "sentence-transformers/multi-qa-distilbert-cos-v1",
}
DEFAULT_MODEL = "cde-minilm"
# What a name can begin with, before a colon.
FAMILIES = ("dense", "centre", "splade", "sparse-embed")
# A directory that holds none of these at its top is no model's.
MODEL_FILES = ("config.json", "modules.json", "config_sentence_transformers.json", "model*.safetensors", "*_model.bin")
# A directory that holds one of these is an index, whatever it is called.
INDEX_FILES = {"store.sqlite": "Retriever", "server.json": "Retriever", "hybrid.json": "Hybrid"}
# What is fetched from a hub: no code, no pickles.
_SETTINGS = ("modules.json", "config_sentence_transformers.json", "statistics.json", *FILTERS)
HUB_FILES = ["README.md", "*.safetensors", "*config.json", *(f"*{name}" for name in (*_SETTINGS, *VOCABULARIES))]
# The published checkpoints ship no tokenizer; these are the ones they were trained with.
PUBLISHED_TOKENIZERS = {"nomic_bert": "bert-base-uncased", "modernbert": "answerdotai/ModernBERT-base"}


def load(
    name: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
) -> ContextualTransformer | StatisticsModel | DenseEncoder | Splade | BM25:
    """Load a model by name.

    Parameters
    ----------
    name
        ``"cde-minilm"`` (the default, works without a network), ``"all-MiniLM-L6-v2"``, ``"cde-small-v1"``,
        ``"cde-small-v2"``, a local directory, or a hub name. ``"splade:"``, ``"sparse-embed:"`` or ``"dense:"`` before
        a directory or hub name says as what to load it, where its files do not. ``"bm25"`` is words and how rare
        they are, in English; ``"bm25:german"`` and so on other languages, ``"bm25:none"`` takes words as they stand.
    revision
        Hub revision.
    device
        Where to put it; None: the best there is.
    dtype
        Number format of an encoder's computation; contextual models take it with their context.

    Returns
    -------
    ContextualTransformer, StatisticsModel, DenseEncoder, Splade, SparseEmbed or BM25
        The first two become encoders through ``model.in_context(...)``; the others are encoders.

    Raises
    ------
    ModelError
        If there is no such model, its directory cannot be read, or it holds a model of another family.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model_directory
    >>> model = load(tiny_model_directory())
    >>> model.config.attention, model.context_size
    ('cached', 4)
    >>> from cderetrieval.testing import tiny_splade_directory
    >>> load(tiny_splade_directory()).kind, load(f"sparse-embed:{tiny_splade_directory()}").kind
    ('sparse', 'sparse-embed')
    """
    name = os.fspath(name)
    if name == DEFAULT_MODEL:
        from .minilm import load_default

        return load_default(device, dtype)
    if (lexical := bm25.named(name)) is not None:
        return lexical
    with reading(name, error=ModelError, remedy=AGAIN):
        model = _load(name, revision, device, dtype)
        _try(model)
    return model


def _try(model: Any) -> None:
    """Refuse a model whose parts do not fit: one short text shows it."""
    encoder = model.in_context(None) if hasattr(model, "in_context") else model
    if getattr(encoder, "tokenizer", encoder) is not None:
        encoder.encode_query(["a short text"])


def _load(name: str, revision: str | None, device: str | None, dtype: str) -> Any:
    asked, _, rest = name.partition(":")
    named = asked in FAMILIES and rest != ""
    directory = find(rest if named else name, revision)
    held = family_of(directory)
    family = asked if named else held
    if family in ("dense", "centre") and held not in ("dense", "centre"):
        raise ModelError(f"{directory} holds a {held} model, which {name!r} cannot load: leave out '{family}:'.")
    if family == "contextual":
        return load_contextual(str(directory), device=device)
    if family == "centre":
        from .statistics import StatisticsModel

        return StatisticsModel.from_pretrained(directory, device=device, dtype=dtype)
    if family == "splade":
        from .splade import Splade

        return Splade(directory, device=device, dtype=dtype)
    if family == "sparse-embed":
        from .sparse_embed import SparseEmbed

        return SparseEmbed(directory, device=device, dtype=dtype)
    from .dense import DenseEncoder

    if not named and is_masked_lm(directory):
        logger.warning(
            "%s is a masked language model; it is loaded as a dense one, the mean of its token states. 'splade:%s' "
            "loads it as SPLADE, and 'dense:%s' says that this is meant.",
            name,
            name,
            name,
        )
    return DenseEncoder(str(directory), device=device, dtype=dtype)


def is_masked_lm(directory: Path) -> bool:
    """Whether a directory holds a checkpoint of a masked language model, and nothing on what to make of it."""
    path = directory / "config.json"
    if (directory / "modules.json").exists() or not path.is_file():
        return False
    return any(name.endswith("ForMaskedLM") for name in config_of(directory).get("architectures") or ())


def family_of(directory: Path) -> str:
    """What a directory holds: ``"contextual"``, ``"centre"``, ``"sparse-embed"``, ``"splade"`` or ``"dense"``."""
    from .sparse_embed_model import CONVERTED, FOLDER, PICKLED
    from .statistics import FILE

    if is_contextual(directory):
        return "contextual"
    if (directory / FILE).is_file():
        return "centre"
    if any((directory / name).exists() for name in (FOLDER, CONVERTED, PICKLED)):
        return "sparse-embed"
    settings = directory / "config_sentence_transformers.json"
    modules = directory / "modules.json"
    if settings.is_file() and read_object(settings).get("model_type") == "SparseEncoder":
        return "splade"
    # Before release 5.4 the settings did not say.
    listed = read_json(modules, list, error=ModelError, remedy=AGAIN) if modules.is_file() else []
    types = [entry.get("type") for entry in listed if isinstance(entry, dict)]
    return "splade" if any(str(name).endswith("SpladePooling") for name in types) else "dense"


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
    from .minilm import installed_minilm

    repository = ALIASES.get(name, name)
    if repository == ALIASES["all-MiniLM-L6-v2"] and revision is None and (installed := installed_minilm()):
        return installed
    return fetch(repository, revision)


def holds_model(directory: Path) -> bool:
    """Whether a directory holds files of a model, and not only bears a model's name."""
    return any(any(directory.glob(name)) for name in MODEL_FILES)


def refuse_index(directory: Path) -> None:
    """Say so where an index is given in the place of a model.

    Raises
    ------
    ModelError
        If the directory holds one, and no model.
    """
    for name, opener in INDEX_FILES.items():
        if (directory / name).is_file() and not holds_model(directory):
            raise ModelError(f"{directory} is an index, not a model: open it with {opener}.load({str(directory)!r}).")


def short_name(name: str | os.PathLike[str]) -> str:
    """What to call a model of this name or directory.

    >>> short_name("jxm/cde-small-v2"), short_name("models/mine/"), short_name(".") == Path.cwd().name
    ('cde-small-v2', 'mine', True)
    """
    return os.path.basename(os.path.abspath(as_path(name))) or "model"


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path."""
    return name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or name.endswith("/")


def from_hub(directory: Path) -> bool:
    """Whether a directory lies in the hub's local cache: what belongs to it may be fetched too."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return directory.resolve().is_relative_to(Path(HF_HUB_CACHE).resolve())


def fetch(repository: str, revision: str | None = None, *, local: bool = False) -> Path:
    """Fetch a repository from the hub, or find it in the hub's local cache; with `local` only in the cache.

    Raises
    ------
    ModelError
        If it is unknown, or cannot be reached; the message says what works without a network.
    """
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


def is_contextual(directory: Path) -> bool:
    """Whether a directory holds a contextual model, in this package's or in the published layout."""
    from .published import is_published

    path = directory / "config.json"
    if not path.is_file():
        return False
    config = config_of(directory)
    return config.get("model_type") == "cderetrieval" or is_published(config)


def load_contextual(name: str, *, revision: str | None = None, device: str | None = None) -> ContextualTransformer:
    """Load a contextual model from a directory or the hub."""
    directory = find(name, revision)
    if not is_contextual(directory):
        raise ModelError(
            f"{directory} holds no contextual model: its config.json has neither model_type 'cderetrieval' nor "
            "transductive_corpus_size. Use cderetrieval.load for other models."
        )
    from .persistence import load_model

    own = config_of(directory).get("model_type") == "cderetrieval"
    with reading(directory, error=ModelError, remedy=AGAIN):
        model = load_model(directory) if own else load_published(directory)
    return model.to(pick_device(device))


def load_published(directory: Path) -> ContextualTransformer:
    """Load a directory with the layout of jxm/cde-small-v1 or -v2."""
    from .contextual import ContextualTransformer
    from .weights import read_checkpoint

    config = config_of(directory)
    local = not from_hub(directory)
    first = backbone_settings(config["embedder"], local=local)
    second = backbone_settings(config.get("dataset_backbone") or config["embedder"], local=local)
    tensors = read_checkpoint(directory)
    for settings in (config, first, second):
        check_counts(settings, len(tensors), str(directory / "config.json"))
    _fit_vocabulary(first, tensors, "first_stage_model.embedder.")
    _fit_vocabulary(second, tensors, "second_stage_model.backbone.")
    return ContextualTransformer.from_published(
        config,
        tensors,
        second,
        first_stage_backbone=first,
        tokenizer=published_tokenizer(directory, second["model_type"]),
        source=str(directory),
    )


def backbone_settings(embedder: str, *, local: bool = True) -> dict[str, Any]:
    """transformers configuration of a published model's `embedder`, from this package where it is known.

    Another one is looked up in the hub's cache, and with ``local=False`` on the hub.
    """
    from transformers import AutoConfig

    from .published import KNOWN_BACKBONES

    if embedder in KNOWN_BACKBONES:
        values = dict(KNOWN_BACKBONES[embedder])
        return AutoConfig.for_model(values.pop("model_type"), **values).to_dict()
    return config_of(fetch(embedder, local=local))


def _fit_vocabulary(settings: dict[str, Any], tensors: dict[str, Any], prefix: str) -> None:
    """Take the vocabulary size from the checkpoint: tokenizers grow, and configurations are not always told."""
    for name in ("embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight"):
        if prefix + name in tensors:
            settings["vocab_size"] = tensors[prefix + name].shape[0]


def published_tokenizer(directory: Path, family: str) -> Any:
    """Tokenizer of a published model: in its directory, on the hub, or the equal vocabulary of the installed MiniLM."""
    from .minilm import installed_minilm

    if (directory / "tokenizer.json").is_file() or (directory / "vocab.txt").is_file():
        return load_tokenizer(directory, by_config=True)
    name = PUBLISHED_TOKENIZERS.get(family, "bert-base-uncased")
    minilm = installed_minilm()
    if name == "bert-base-uncased" and minilm is not None:
        return load_tokenizer(minilm, by_config=True, model_max_length=512)
    try:
        return load_tokenizer(fetch(name, local=not from_hub(directory)), by_config=True)
    except ModelError as error:
        raise WeightsError(
            f"{directory} ships no tokenizer, and {name!r}, the one it was trained with, could not be fetched. Copy "
            f"its tokenizer.json and tokenizer_config.json into {directory}."
        ) from error
