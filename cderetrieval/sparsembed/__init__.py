"""The modules of the sparsembed package: ``model``, ``retrieve``, ``train``, ``losses``, ``utils``.

A program written for sparsembed 0.1 runs after changing its import to ``from cderetrieval.sparsembed import ...``.
Models, index, losses and metrics are this package's own: padding never votes, every loss has a gradient, and documents
are indexed in linear time. New programs do better with :class:`~cderetrieval.Retriever`.

>>> from cderetrieval import sparsembed
>>> sparsembed.losses.FlopsScheduler(weight=1e-4, steps=10).get()
0.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

__all__ = ["losses", "model", "retrieve", "train", "utils"]

if TYPE_CHECKING:
    from . import losses, model, retrieve, train, utils
else:
    __getattr__, __dir__ = exports(__name__, dict(zip(__all__, __all__, strict=True)))
