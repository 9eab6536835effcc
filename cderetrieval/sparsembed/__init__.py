"""The modules of the sparsembed package: ``model``, ``retrieve``, ``train``, ``losses``, ``utils``.

A program that was written for sparsembed runs after changing its import:

    from cderetrieval.sparsembed import model, retrieve, train, losses, utils

Names and arguments are those of sparsembed 0.1; models, index, losses and metrics are this package's own, without the
defects of that one: padding never votes, embeddings come from the final states, every loss has a gradient, and
documents are indexed in linear time. New programs do better with :class:`~cderetrieval.Retriever`.

>>> from cderetrieval import sparsembed
>>> sparsembed.losses.FlopsScheduler(weight=1e-4, steps=10).get()
0.0
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["losses", "model", "retrieve", "train", "utils"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'cderetrieval.sparsembed' has no attribute {name!r}")
    return import_module(f".{name}", __name__)
