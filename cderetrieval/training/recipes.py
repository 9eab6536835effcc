"""A recipe: everything that decides a training run, in one frozen dataclass and one JSON file.

    load_recipe("minilm").replace(data=("pairs/",), learning_rate=1e-5)

docs/training.md lists the recipes that the package brings; they are the files of ``recipes/``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..files import as_path, read_json

if TYPE_CHECKING:
    from ..models.statistics import StatisticsConfig

CONTEXTUAL = ("biencoder", "joint", "cached")
SPARSE = ("splade", "sparse-embed")
DOCUMENT = "document-context"
PAIRED = (*CONTEXTUAL, "dense", *SPARSE)
PACKINGS = ("random", "tour")
LOGGERS = ("wandb", "tensorboard", "trackio")
# Further fields of transformers' TrainingArguments that a recipe may set, the least value and the one that is too much.
# No others pass: some run code, write elsewhere or push to a hub.
ARGUMENTS = {
    "adam_beta1": (0, 1),
    "adam_beta2": (0, 1),
    "adam_epsilon": (0, 1),
    "ddp_timeout": (1, 10**6),
    "torch_empty_cache_steps": (1, 10**6),
}

# The least of whole numbers where it is not 1; other numbers may be 0, but for those of `_ABOVE_0`.
_LEAST = {"negatives": 0, "batch_size": 2, "warmup_steps": 0, "seed": 0, "keep": 2, "workers": 0}
_ABOVE_0 = ("scale", "flops_ramp", "distillation_temperature")
_SHARES = ("sequence_dropout", "null_probability", "other_probability", "in_sequence", "flops_ramp")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "architecture": (*PAIRED, DOCUMENT),
    "distillation": ("none", "margin-mse", "kl"),
    "first_stage": ("trained", "frozen", "tied"),
    "small_domains": ("error", "skip", "merge"),
    "packing": PACKINGS,
    "filter": ("stored", "fresh", "off"),
    "dtype": ("auto", "float32", "bfloat16"),
    "schedule": ("constant", "constant_with_warmup", "linear", "cosine"),
}
# Fields that only some architectures have, and the value that others must leave.
_ONLY: dict[str, tuple[tuple[str, ...], Any]] = {
    "filter": ((*CONTEXTUAL, DOCUMENT), "off"),
    "sequence_dropout": (CONTEXTUAL, 0.0),
    "null_probability": ((*CONTEXTUAL, DOCUMENT), 0.0),
    "other_probability": ((DOCUMENT,), 0.0),
    "in_sequence": ((DOCUMENT,), 0.0),
    "negatives": (PAIRED, 0),
    "symmetric": (PAIRED, False),
    "share_negatives": (PAIRED, False),
    "query_flops": (SPARSE, 0.0),
    "document_flops": (SPARSE, 0.0),
    "distillation": (SPARSE, "none"),
    "statistics": (("biencoder", "dense"), {}),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run.

    Parameters
    ----------
    name, base
        Name of the recipe; what the model starts from, as a directory, hub name or installed name.
    architecture, model
        ``"biencoder"`` (no context), ``"joint"`` or ``"cached"``, and further fields of
        :class:`~cderetrieval.models.config.ContextualConfig`; or ``"dense"``, ``"splade"``, ``"sparse-embed"`` or
        ``"document-context"``, and what :mod:`~cderetrieval.training.families` says of these.
    first_stage
        ``"trained"``; ``"frozen"``: as it starts; ``"tied"``: the second stage's backbone, trained with it.
    max_length, saved_length
        Tokens of a text in training, and of the finished model (None: the same).
    statistics
        Put the finished bi-encoder or dense model under the statistics of its corpus: settings of
        :class:`~cderetrieval.models.statistics.StatisticsConfig`; empty: do not.
    data, negatives
        What :func:`~cderetrieval.training.sources.find_sources` takes; how many of a row's mined negatives are used.
    small_domains
        Domains that are smaller than a batch are an ``"error"``, skipped (``"skip"``), or pooled (``"merge"``).
    surrogate, surrogate_length
        The model that clusters and filters go by, and the tokens it reads of a text (None: all it can).
    clusters, cluster_size, cluster_dimensions, packing
        Whether batches are made of clusters, and how.
    filter, filter_margin
        False negatives by ``"stored"`` vectors of the surrogate, by ``"fresh"`` ones made step by step, or ``"off"``.
    batch_size, context_size
        Rows of a batch, in each process; J, context documents of a step. For a document context: documents of a batch,
        and most passages of each.
    sequence_dropout, null_probability, other_probability
        How often one context document, or a step's whole context, is null; how often a document's context is null, or
        that of another document.
    in_sequence
        Share of a document context's loss that tells apart the passages of one document; the rest tells apart all
        passages of the batch.
    scale, symmetric, share_negatives
        See :class:`~cderetrieval.training.losses.ContextualLoss`; the other architectures have the same.
    query_flops, document_flops, flops_ramp, sparse_weight
        Weights of the FLOPS regularisers of a sparse model's queries and documents, which rise from 0 with the square
        of the step over this share of the run; weight of SparseEmbed's sparse loss, where that of its dense loss is 1.
    distillation, distillation_temperature
        In place of the contrastive loss, learn the margins (``"margin-mse"``) or the distribution (``"kl"``, at this
        temperature) of a teacher's scores, the data's ``scores``.
    chunk_tokens, first_chunk_tokens, dtype, checkpointing, compile
        See :class:`~cderetrieval.training.gradcache.Caching`; recompute activations in a chunk, compile the backbones.
    epochs, max_steps, seed
        How long, in steps or (None) in epochs; seed of everything random.
    learning_rate, learning_rates, schedule, warmup_steps, weight_decay, clip, accumulation, arguments
        Settings of AdamW. `learning_rates` maps patterns of parameter names to their own rates; `arguments` are further
        fields of transformers' `TrainingArguments`, those of :data:`ARGUMENTS`.
    log_steps, save_steps, evaluate_steps, keep, loggers, workers
        How often to log, save, evaluate; checkpoints to keep; ``"wandb"``, ``"tensorboard"``, ``"trackio"`` beside the
        JSON lines that are always written; processes that read and tokenize.

    Examples
    --------
    >>> recipe = Recipe("mine", "all-MiniLM-L6-v2", data=("pairs/",), batch_size=64)
    >>> recipe.replace(learning_rate=1e-5).learning_rate
    1e-05
    """

    name: str
    base: str
    architecture: str = "cached"
    model: Mapping[str, Any] = field(default_factory=dict)
    first_stage: str = "trained"
    max_length: int = 512
    saved_length: int | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    negatives: int = 0
    small_domains: str = "error"
    surrogate: str = "all-MiniLM-L6-v2"
    surrogate_length: int | None = None
    clusters: bool = True
    cluster_size: int = 512
    cluster_dimensions: int | None = 128
    packing: str = "tour"
    filter: str = "stored"
    filter_margin: float = 0.0
    batch_size: int = 512
    context_size: int = 512
    sequence_dropout: float = 0.0
    null_probability: float = 0.0
    other_probability: float = 0.0
    in_sequence: float = 0.0
    scale: float = 50.0
    symmetric: bool = False
    share_negatives: bool = False
    query_flops: float = 0.0
    document_flops: float = 0.0
    flops_ramp: float = 1 / 3
    sparse_weight: float = 0.1
    distillation: str = "none"
    distillation_temperature: float = 1.0
    chunk_tokens: int | None = 16_384
    first_chunk_tokens: int | None = None
    dtype: str = "auto"
    checkpointing: bool = False
    compile: bool = False
    epochs: float = 3.0
    max_steps: int | None = None
    learning_rate: float = 2e-5
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "linear"
    warmup_steps: int = 1_000
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulation: int = 1
    seed: int = 0
    log_steps: int = 10
    save_steps: int = 500
    evaluate_steps: int | None = None
    keep: int = 2
    loggers: tuple[str, ...] = ()
    workers: int = 0

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            _check(entry.name, str(entry.type), getattr(self, entry.name))
        for name in ("data", "loggers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.architecture == "biencoder" and self.null_probability > 0:
            raise ConfigError("architecture='biencoder' has no context: null_probability must be 0.")
        for name, (architectures, nothing) in _ONLY.items():
            if self.architecture not in architectures and getattr(self, name) != nothing:
                raise ConfigError(
                    f"architecture={self.architecture!r} has no {name}: set it to {nothing!r}, not "
                    f"{getattr(self, name)!r}."
                )
        self._check_passed_on()
        self.statistics_config()
        if self.distillation != "none" and self.negatives < 1:
            raise ConfigError(f"distillation={self.distillation!r} compares documents: set negatives to 1 or more.")

    def _check_passed_on(self) -> None:
        """Check what goes to libraries by the names that a file gives."""
        for field_name, known in {"loggers": LOGGERS, "arguments": ARGUMENTS}.items():
            if unknown := sorted(set(getattr(self, field_name)) - set(known)):
                raise ConfigError(f"{field_name}: {', '.join(unknown)} cannot be set; known are {', '.join(known)}.")
        for name, value in self.arguments.items():
            least, below = ARGUMENTS[name]
            _check_number(f"arguments: {name}", value, whole=least > 0, least=least, below=below)
        for pattern, rate in self.learning_rates.items():
            _check_number(f"learning_rates: {pattern}", rate)
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise ConfigError(f"learning_rates: {pattern!r} is not a pattern of names ({error}).") from error

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some fields changed, validated again; an unknown field is an error that names it."""
        return Recipe.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def statistics_config(self) -> StatisticsConfig | None:
        """`statistics` as the finished model has them; None if it has none."""
        if not self.statistics:
            return None
        from ..models.statistics import read_settings

        return read_settings(self.statistics, "recipe: statistics")

    def directions(self) -> dict[str, Any]:
        """`symmetric` in the words of sentence-transformers' contrastive losses."""
        if not self.symmetric:
            return {}
        return {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Read :meth:`to_dict`."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"recipe: unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
        missing = sorted({"name", "base"} - set(values))
        if missing:
            raise ConfigError(f"recipe: {' and '.join(missing)} must be set.")
        return cls(**values)


_KINDS = {"str": (str, "text"), "bool": (bool, "true or false"), "Mapping": (Mapping, "an object")}


def _check(name: str, annotation: str, value: Any) -> None:
    """Check the value of one field by its annotation and the tables above."""
    if value is None and annotation.endswith("None"):
        return
    if annotation.startswith("tuple"):
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
            raise ConfigError(f"{name}={value!r} must be a list of names.")
    elif annotation.startswith(("int", "float")):
        whole = annotation.startswith("int")
        _check_number(name, value, whole=whole, least=_LEAST.get(name, 1) if whole else 0)
        if name in _SHARES and value > 1:
            raise ConfigError(f"{name}={value!r} must lie in [0, 1].")
        if name in _ABOVE_0 and not value > 0:
            raise ConfigError(f"{name}={value!r} must be above 0.")
    else:
        kind, words = _KINDS[annotation.partition("[")[0]]
        if not isinstance(value, kind):
            raise ConfigError(f"{name}={value!r} must be {words}.")
        if name in _CHOICES and value not in _CHOICES[name]:
            raise ConfigError(f"{name}={value!r} is unknown; use one of {', '.join(_CHOICES[name])}.")


def _check_number(name: str, value: Any, *, whole: bool = False, least: float = 0, below: float = math.inf) -> None:
    if not isinstance(value, int if whole else int | float) or isinstance(value, bool) or not least <= value < below:
        end = "" if below == math.inf else f" and below {below}"
        raise ConfigError(f"{name}={value!r} must be a {'whole ' if whole else ''}number of at least {least}{end}.")


def recipe_names() -> list[str]:
    """Names of the recipes that the package brings.

    >>> recipe_names()
    ['cde-doc-minilm', 'cde-minilm', 'minilm', 'multi-qa', 'paper-large-v1', 'paper-large-v2', 'paper-small',
     'sparse-embed', 'sparse-embed-minilm', 'splade', 'splade-distil', 'splade-minilm']
    """
    folder = files("cderetrieval.training") / "recipes"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe of the package by name, or any by the path of its JSON file.

    Parameters
    ----------
    name
        A name of :func:`recipe_names`, or a path.

    Examples
    --------
    >>> recipe = load_recipe("paper-small")
    >>> recipe.context_size, recipe.max_length, recipe.model["layers"]
    (64, 64, 6)

    Raises
    ------
    ConfigError
        If there is none, or it has an unknown or wrong setting.
    """
    if str(name) in recipe_names():
        path = Path(str(files("cderetrieval.training") / "recipes" / f"{name}.json"))
    else:
        path = as_path(name)
        if not path.is_file():
            known = ", ".join(recipe_names())
            raise ConfigError(f"recipe {str(name)!r} is neither one of {known} nor a file.")
    values = read_json(path, error=ConfigError, remedy="A recipe is an object of settings; see --print-config.")
    return Recipe.from_dict({"name": path.stem, **values})
