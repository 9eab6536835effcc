"""Training: pairs, clusters, batches, false negatives, losses, gradient caching, families of models, recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "Caching": "gradcache",
    "ClusteredBatchSampler": "samplers",
    "ContextualLoss": "losses",
    "FalseNegativeFilter": "false_negatives",
    "Recipe": "recipes",
    "Source": "sources",
    "load_recipe": "recipes",
    "run_cells": "ablation",
    "train": "run",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .ablation import run_cells as run_cells
    from .false_negatives import FalseNegativeFilter as FalseNegativeFilter
    from .gradcache import Caching as Caching
    from .losses import ContextualLoss as ContextualLoss
    from .recipes import Recipe as Recipe
    from .recipes import load_recipe as load_recipe
    from .run import train as train
    from .samplers import ClusteredBatchSampler as ClusteredBatchSampler
    from .sources import Source as Source
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
