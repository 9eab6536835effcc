"""A context on a plane: its first-stage embeddings, seen from where they differ most (PCA), and a figure of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ContextError, needs

COLOR = "#0072B2"


def on_plane(embeddings: np.ndarray) -> np.ndarray:
    """Places of embeddings, shape (n, 2), from -1 to 1, and the same for the same embeddings."""
    # A document may have several embeddings; the first is that of the document itself.
    rows = (embeddings if embeddings.ndim == 2 else embeddings[:, 0]).astype(np.float64)
    centred = rows - rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    # An axis has no direction: its largest component points upwards.
    axes = axes[:2] * np.sign(np.take_along_axis(axes[:2], np.abs(axes[:2]).argmax(axis=1)[:, None], axis=1))
    places = np.zeros((len(rows), 2))
    places[:, : len(axes)] = (centred @ axes.T) * (sizes[:2] > 1e-9)
    return places / (np.abs(places).max() or 1)


def plot_context(context: Any, labels: Sequence[str] | None, axes: Any) -> Any:
    """Draw the documents of a context; what :meth:`Context.plot` does."""
    if context.embeddings is None:
        raise ContextError("the null context has no documents to draw.")
    if axes is None:
        with needs("matplotlib", "notebooks"):
            from matplotlib import pyplot
        _, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    places = on_plane(context.embeddings)
    axes.scatter(*places.T, s=14, color=COLOR, alpha=0.6, linewidths=0)
    for place, label in zip(places, () if labels is None else labels, strict=False):
        # A label is a text, whatever "$" is in it.
        axes.annotate(str(label), place, fontsize=6, xytext=(3, 2), textcoords="offset points", parse_math=False)
    axes.set_title(f"{len(context)} documents of a context ({context.source}), first two principal components")
    axes.set_xticks([])
    axes.set_yticks([])
    return axes
