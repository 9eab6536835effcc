"""Figures in one style, and a comparison as a picture: differences with their intervals, sorted, zero marked.

Colours are Okabe and Ito's, which colour-blind readers tell apart; a marker goes with each, which says the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import missing_dependency
from ..files import as_path, atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .compare import Comparison

BETTER, WORSE, SAME = "#0072B2", "#D55E00", "#666666"
GRID = "#DDDDDD"
# Colour and marker of the first, second, ... series of a figure.
STYLES = (
    (BETTER, "^"),
    ("#E69F00", "D"),
    ("#56B4E9", "s"),
    (WORSE, "v"),
    ("#009E73", "P"),
    ("#CC79A7", "X"),
    (SAME, "o"),
)
_ROW_INCHES = 0.34


def new_figure(width: float, height: float, *, grid: Literal["x", "y", "both"] = "x") -> tuple[Figure, Any]:
    """An empty figure and its axes.

    Parameters
    ----------
    width, height
        In inches; 8 inches wide is read without scaling on a page of this documentation.
    grid
        Which lines help the eye.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "eval") from error
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    style_axes(axes, grid)
    return figure, axes


def style_axes(axes: Any, grid: Literal["x", "y", "both"]) -> None:
    """Lines that help the eye behind what is drawn, and no frame."""
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG, whole or not at all; the same numbers give the same bytes."""
    path = as_path(path)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path


def plot_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Draw the differences of a comparison.

    Parameters
    ----------
    comparison
        What to draw.
    path
        A PNG file; it is replaced.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    rows = sorted(comparison.rows, key=lambda row: row["difference"])
    figure, axes = new_figure(7.5, 2.1 + _ROW_INCHES * len(rows))
    axes.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(rows):
        color, marker = _style(row["difference"], row["p_holm"])
        difference = 100 * row["difference"]
        if row["low"] == row["low"]:
            axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=color, linewidth=1.8)
        axes.plot([difference], [place], marker=marker, markersize=7, color=color, linestyle="none")
    axes.set_yticks(range(len(rows)), [_label(row["dataset"], row["n_queries"]) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    metric = comparison.metric.replace("ndcg", "nDCG")
    axes.set_xlabel(f"difference in {metric} x 100\n(mean and 95% interval over queries)", fontsize=9)
    axes.set_title(f"{comparison.b}\nminus {comparison.a}", fontsize=10, loc="left")
    _legend(figure)
    return save_figure(figure, path)


def _style(difference: float, p_value: float) -> tuple[str, str]:
    if not p_value < 0.05:
        return SAME, "o"
    return (BETTER, "^") if difference > 0 else (WORSE, "v")


def _label(dataset: str, n_queries: int) -> str:
    return f"{dataset} ({n_queries:,} queries)" if n_queries else dataset


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    entries = [("better", BETTER, "^"), ("no significant difference", SAME, "o"), ("worse", WORSE, "v")]
    handles = [Line2D([], [], color=color, marker=marker, linewidth=1.8, label=text) for text, color, marker in entries]
    title = "randomization test with Holm's correction, 5%"
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8, title=title)
