"""Figures in one style, and differences of two systems with their intervals, sorted, zero marked.

The colours are Okabe and Ito's, which colour-blind readers tell apart; each also has its own marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import needs
from ..files import as_path, atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    """An empty figure and its axes, sizes in inches; 8 inches wide fit a page of the documentation without scaling."""
    with needs("matplotlib", "eval"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    style_axes(axes, grid)
    return figure, axes


def style_axes(axes: Any, grid: Literal["x", "y", "both"]) -> None:
    """Draw grid lines behind the data, and no frame."""
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG atomically; the same numbers give the same bytes."""
    path = as_path(path)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return path


def plot_differences(rows: Sequence[Mapping[str, Any]], title: str, label: str, path: str | Path) -> Path:
    """Draw rows with dataset, difference, low, high, p_holm and n_queries, as `Comparison` has them."""
    rows = sorted(rows, key=lambda row: row["difference"])
    figure, axes = new_figure(7.5, 2.1 + _ROW_INCHES * len(rows))
    axes.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(rows):
        color, marker = SAME, "o"
        if row["p_holm"] < 0.05:
            color, marker = (BETTER, "^") if row["difference"] > 0 else (WORSE, "v")
        if row["low"] == row["low"]:  # not nan
            axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=color, linewidth=1.8)
        axes.plot([100 * row["difference"]], [place], marker=marker, markersize=7, color=color, linestyle="none")
    counts = [f" ({row['n_queries']:,} queries)" if row["n_queries"] else "" for row in rows]
    axes.set_yticks(range(len(rows)), [row["dataset"] + count for row, count in zip(rows, counts, strict=True)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{label}\n(mean and 95% interval over queries)", fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    from matplotlib.lines import Line2D

    entries = [("better", BETTER, "^"), ("no significant difference", SAME, "o"), ("worse", WORSE, "v")]
    handles = [Line2D([], [], color=color, marker=marker, linewidth=1.8, label=text) for text, color, marker in entries]
    title = "randomization test with Holm's correction, 5%"
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8, title=title)
    return save_figure(figure, path)
