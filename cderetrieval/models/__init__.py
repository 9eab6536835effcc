"""Models: text to vectors. They receive tensors and know nothing of corpora, stores or indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "BM25": "bm25",
    "ContextualConfig": "config",
    "ContextualTransformer": "contextual",
    "DenseEncoder": "dense",
    "SparseEmbed": "sparse_embed",
    "Splade": "splade",
    "StatisticsConfig": "statistics",
    "StatisticsModel": "statistics",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .bm25 import BM25 as BM25
    from .config import ContextualConfig as ContextualConfig
    from .contextual import ContextualTransformer as ContextualTransformer
    from .dense import DenseEncoder as DenseEncoder
    from .sparse_embed import SparseEmbed as SparseEmbed
    from .splade import Splade as Splade
    from .statistics import StatisticsConfig as StatisticsConfig
    from .statistics import StatisticsModel as StatisticsModel
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
