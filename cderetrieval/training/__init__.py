"""Training: pairs, clusters, batches, false negatives, losses, gradient caching, families of models, recipes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ablation import run_cells as run_cells
    from .false_negatives import FalseNegativeFilter as FalseNegativeFilter
    from .gradcache import Caching as Caching
    from .losses import ContextualLoss as ContextualLoss
    from .recipes import Recipe as Recipe
    from .recipes import load_recipe as load_recipe
    from .run import train as train
    from .samplers import ClusteredBatchSampler as ClusteredBatchSampler
    from .source import Source as Source

# Module of each name, imported when it is first used: a recipe needs no torch.
_PUBLIC = {
    "Caching": "gradcache",
    "ClusteredBatchSampler": "samplers",
    "ContextualLoss": "losses",
    "FalseNegativeFilter": "false_negatives",
    "Recipe": "recipes",
    "Source": "source",
    "load_recipe": "recipes",
    "run_cells": "ablation",
    "train": "run",
}
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
