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

from typing import TYPE_CHECKING

from ..lazy import exports

__all__ = ["losses", "model", "retrieve", "train", "utils"]

if TYPE_CHECKING:
    from . import losses, model, retrieve, train, utils
else:
    __getattr__, __dir__ = exports(__name__, dict(zip(__all__, __all__, strict=True)))
