"""Retrieval whose embeddings know the corpus they search.

>>> import cderetrieval
>>> "Retriever" in dir(cderetrieval)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.1"

# Public name -> module that holds it. Imported on first use: `import cderetrieval` loads neither torch nor faiss.
_PUBLIC = {
    "Retriever": ".retriever",
    "Hybrid": ".fusion",
    "Context": ".context.context",
    "Hits": ".types",
    "Encoder": ".types",
    "load": ".models.load",
    "ContextualTransformer": ".models.contextual",
    "ContextualConfig": ".models.config",
    "DenseEncoder": ".models.dense",
    "StatisticsModel": ".models.statistics",
    "StatisticsConfig": ".models.statistics",
    "BM25": ".models.bm25",
    "Splade": ".models.splade",
    "SparseEmbed": ".models.sparse_embed",
    "evaluate": ".evaluation.api",
    "context_gain": ".evaluation.api",
    "Results": ".evaluation.results",
    "CDEError": ".errors",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cderetrieval' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
