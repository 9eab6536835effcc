"""A recipe: everything that decides a training run, in one frozen dataclass and one JSON file.

    load_recipe("minilm").replace(data=("pairs/",), learning_rate=1e-5)

The package brings ``paper-large-v1`` and ``paper-large-v2`` (how cde-small-v1 and -v2 were made), ``paper-small`` (the
paper's ablations: six layers, 64 tokens, 64 context documents), ``cde-minilm`` (the encoder of the default model) and
``minilm`` (a contextual model from the same base); ``splade``,
``splade-distil``, ``sparse-embed`` and ``multi-qa`` (dense) from a masked language model; and the small
``splade-minilm`` and ``sparse-embed-minilm``, which need no hub and learn on a CPU in minutes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..files import as_path, read_json
from .data import SMALL_DOMAINS
from .packing import PACKINGS

if TYPE_CHECKING:
    from ..models.statistics import StatisticsConfig

CONTEXTUAL = ("biencoder", "joint", "cached")
SPARSE = ("splade", "sparse-embed")
DISTILLATION = ("none", "margin-mse", "kl")

_TYPES: dict[str, type[Any]] = {"str": str, "bool": bool, "Mapping": Mapping}
_WORDS: dict[type[Any], str] = {str: "text", bool: "true or false", Mapping: "an object"}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "architecture": (*CONTEXTUAL, "dense", *SPARSE),
    "distillation": DISTILLATION,
    "first_stage": ("trained", "frozen", "tied"),
    "small_domains": SMALL_DOMAINS,
    "packing": PACKINGS,
    "filter": ("stored", "fresh", "off"),
    "dtype": ("auto", "float32", "bfloat16"),
    "schedule": ("constant", "constant_with_warmup", "linear", "cosine"),
}
_LEAST = {
    "max_length": 1,
    "saved_length": 1,
    "negatives": 0,
    "cluster_size": 1,
    "cluster_dimensions": 1,
    "surrogate_length": 1,
    "batch_size": 2,
    "context_size": 1,
    "chunk_tokens": 1,
    "first_chunk_tokens": 1,
    "max_steps": 1,
    "warmup_steps": 0,
    "accumulation": 1,
    "log_steps": 1,
    "save_steps": 1,
    "evaluate_steps": 1,
    "keep": 2,
    "workers": 0,
}
_AT_LEAST_0 = (
    *("learning_rate", "weight_decay", "clip", "epochs", "filter_margin"),
    *("query_flops", "document_flops", "sparse_weight"),
)
_ABOVE_0 = ("scale", "flops_ramp", "distillation_temperature")
_SHARES = ("sequence_dropout", "null_probability", "flops_ramp")
# Fields that only some architectures know, and the value that says nothing.
_ONLY: dict[str, tuple[tuple[str, ...], Any]] = {
    "filter": (CONTEXTUAL, "off"),
    "sequence_dropout": (CONTEXTUAL, 0.0),
    "null_probability": (CONTEXTUAL, 0.0),
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
    name
        Of the recipe.
    base
        What the model starts from: a backbone or a contextual model, as a directory, hub name, or installed name.
    architecture
        ``"biencoder"``: no context; ``"joint"``, ``"cached"``: see
        :class:`~cderetrieval.models.config.ContextualConfig`. ``"dense"``: any sentence-transformers model;
        ``"splade"``; ``"sparse-embed"``.
    model
        Further fields of that configuration; for the other architectures, see :mod:`~cderetrieval.training.families`.
    first_stage
        ``"trained"``; ``"frozen"``: as it starts; ``"tied"``: the second stage's backbone, trained with it.
    max_length, saved_length
        Tokens of a text in training, and of the finished model (None: the same).
    statistics
        Put the finished bi-encoder or dense model under the statistics of its corpus: settings of
        :class:`~cderetrieval.models.statistics.StatisticsConfig`; empty: do not.
    data
        What :func:`~cderetrieval.training.sources.find_sources` takes.
    negatives
        Mined negatives of a row that are used, the first ones.
    small_domains
        What to do with domains that are smaller than a batch, see
        :func:`~cderetrieval.training.data.usable_domains`.
    surrogate, surrogate_length
        The model that clusters and filters go by, and the tokens it reads of a text (None: all it can).
    clusters, cluster_size, cluster_dimensions, packing
        Whether batches are made of clusters, and how.
    filter, filter_margin
        False negatives by ``"stored"`` vectors of the surrogate, by ``"fresh"`` ones made step by step, or ``"off"``.
    batch_size
        Rows of a batch, in each process.
    context_size
        J, context documents of a step.
    sequence_dropout, null_probability
        How often one context document, or a step's whole context, is null.
    scale, symmetric, share_negatives
        See :class:`~cderetrieval.training.losses.ContextualLoss`; the other architectures have the same.
    query_flops, document_flops, flops_ramp
        Weights of the FLOPS regularisers of a sparse model's queries and documents; they rise from 0 with the square
        of the step over this share of the run.
    sparse_weight
        Weight of SparseEmbed's sparse loss; that of its dense loss is 1.
    distillation, distillation_temperature
        In place of the contrastive loss, learn the margins (``"margin-mse"``) or the distribution (``"kl"``, at this
        temperature) of a teacher's scores, which stand in the data's ``scores``.
    chunk_tokens, first_chunk_tokens, dtype
        See :class:`~cderetrieval.training.gradcache.Caching`.
    checkpointing, compile
        Recompute activations inside a chunk; compile the backbones.
    epochs, max_steps
        How long; None: by epochs.
    learning_rate, learning_rates, schedule, warmup_steps, weight_decay, clip, accumulation
        Of AdamW; `learning_rates` maps patterns of parameter names to rates of their own.
    seed
        Of everything random.
    log_steps, save_steps, evaluate_steps, keep
        How often to log, save, evaluate; how many checkpoints to keep.
    loggers
        ``"wandb"``, ``"tensorboard"``, ``"trackio"``, beside the JSON lines that are always written.
    workers
        Processes that read and tokenize.
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
        for name in ("data", "loggers"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
                raise ConfigError(f"{name}={value!r} must be a list of names.")
            object.__setattr__(self, name, tuple(value))
        self._check_types()
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} is unknown; use one of {', '.join(choices)}.")
        self._check_numbers()
        if self.architecture == "biencoder" and self.null_probability > 0:
            raise ConfigError("architecture='biencoder' has no context: null_probability must be 0.")
        for name, (architectures, nothing) in _ONLY.items():
            if self.architecture not in architectures and getattr(self, name) != nothing:
                raise ConfigError(
                    f"architecture={self.architecture!r} has no {name}: set it to {nothing!r}, not "
                    f"{getattr(self, name)!r}."
                )
        self.statistics_config()
        if self.distillation != "none" and self.negatives < 1:
            raise ConfigError(f"distillation={self.distillation!r} compares documents: set negatives to 1 or more.")

    def _check_types(self) -> None:
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            kind = next((kind for name, kind in _TYPES.items() if str(entry.type).startswith(name)), object)
            if not isinstance(value, kind):
                raise ConfigError(f"{entry.name}={value!r} must be {_WORDS[kind]}.")
        for name, rate in self.learning_rates.items():
            if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate < math.inf:
                raise ConfigError(f"learning_rates: {name}={rate!r} must be a number of at least 0.")

    def _check_numbers(self) -> None:
        optional = {entry.name for entry in dataclasses.fields(self) if "None" in str(entry.type)}
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name}={value!r} must be a whole number of at least {least}.")
        for name in (*_AT_LEAST_0, *_SHARES, *_ABOVE_0):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise ConfigError(f"{name}={value!r} must be a number of at least 0.")
        for name in _SHARES:
            if getattr(self, name) > 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} must lie in [0, 1].")
        for name in _ABOVE_0:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be above 0.")

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some fields changed, validated again; an unknown field is an error that names it."""
        return Recipe.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def statistics_config(self) -> StatisticsConfig | None:
        """`statistics` as the finished model has them; None without."""
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


def recipe_names() -> list[str]:
    """Names of the recipes that the package brings.

    >>> recipe_names()
    ['cde-minilm', 'minilm', 'multi-qa', 'paper-large-v1', 'paper-large-v2', 'paper-small', 'sparse-embed',
     'sparse-embed-minilm', 'splade', 'splade-distil', 'splade-minilm']
    """
    folder = files("cderetrieval.training") / "recipes"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe of the package by name, or any by the path of its JSON file.

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
