"""Figures of the documentation, readable at the width of a page, in the style of `cderetrieval.evaluation.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cderetrieval.evaluation.plots import BETTER, GRID, STYLES, WORSE, new_figure, save_figure, style_axes

# The last system is what a figure is about: blue.
FIRST_TO_LAST = (STYLES[1], STYLES[2], STYLES[0])


@dataclass(frozen=True)
class Line:
    """One system: its name, a value for each row, and for rows that have one the ends of an interval."""

    label: str
    values: Sequence[float]
    intervals: Sequence[tuple[float, float] | None]


def gains_figure(names: Sequence[str], lines: Sequence[Line], unit: str, path: Path) -> Path:
    """Draw a row for each name and in it a bar from 0 to a marker for each system, the last system on top."""
    figure, axes = new_figure(8.0, 1.3 + 0.52 * len(names))
    axes.axvline(0, color="black", linewidth=0.8)
    middle = (len(lines) - 1) / 2
    for place, (line, (color, marker)) in enumerate(zip(lines, FIRST_TO_LAST, strict=True)):
        rows = [len(names) - 1 - row + 0.22 * (place - middle) for row in range(len(names))]
        axes.hlines(rows, 0, line.values, color=color, linewidth=1.6, alpha=0.5)
        axes.plot(line.values, rows, marker, color=color, markersize=7, label=line.label)
        for row, interval in zip(rows, line.intervals, strict=True):
            if interval is not None:
                axes.plot(interval, [row, row], "|-", color=color, linewidth=1.6, markersize=9)
    axes.set_yticks(range(len(names))[::-1], names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(unit)
    figure.legend(loc="outside upper center", ncols=len(lines), frameon=False, reverse=True)
    return save_figure(figure, path)


def growth_figure(
    panels: Sequence[tuple[str, Sequence[tuple[str, Sequence[float]]]]], counts: Sequence[int], path: Path
) -> Path:
    """Draw how things grow with the number of documents, both axes logarithmic; a panel for each unit.

    Parameters
    ----------
    panels
        For each its unit, and its lines: a label and a value for each of `counts`.
    counts
        Documents.
    path
        A PNG file; it is replaced.
    """
    figure, _ = new_figure(8.0, 3.9)
    figure.clear()
    for axes, (unit, lines) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        style_axes(axes, "both")
        for (label, values), (color, marker) in zip(lines, STYLES, strict=False):
            axes.plot(counts, values, f"{marker}-", color=color, linewidth=1.6, markersize=7, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("documents")
        axes.set_title(unit, fontsize=10, loc="left")
    handles, labels = max((axes.get_legend_handles_labels() for axes in figure.axes), key=lambda found: len(found[0]))
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return save_figure(figure, path)


def bars_figure(entries: Sequence[tuple[str, dict[str, Any]]], path: Path) -> Path:
    """Draw how far each measured value lies from its bar, as a factor; bars of 0 have none and are left out."""
    margins = [(f"{script}: {entry['name']}", *_margin(entry)) for script, entry in entries]
    shown = [(name, factor, met) for name, factor, met in margins if factor is not None][::-1]
    figure, axes = new_figure(10.0, 1.4 + 0.2 * len(shown))
    axes.axvline(1, color="black", linewidth=0.8)
    for row, (_, factor, met) in enumerate(shown):
        axes.plot([1, factor], [row, row], color=GRID, linewidth=3, zorder=1)
        axes.plot([factor], [row], "^" if met else "v", color=BETTER if met else WORSE, markersize=6)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.25, 0.5, 0.8, 1, 1.25, 2, 5, 10, 50) if _within(tick, [f for _, f, _ in shown])]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(shown)), [_cut(name) for name, _, _ in shown], fontsize=7)
    axes.set_ylim(-0.8, len(shown) - 0.2)
    axes.set_xlabel("measured against its bar, as a factor; right of 1 the bar is met (log scale)", fontsize=9)
    return save_figure(figure, path)


def _margin(entry: dict[str, Any]) -> tuple[float | None, bool]:
    sign, limit = entry["bar"].split()
    value, bar = float(entry["value"]), float(limit)
    if value <= 0 or bar <= 0:
        return None, bool(entry["met"])
    return (value / bar if sign == ">=" else bar / value), bool(entry["met"])


def _cut(name: str, most: int = 76) -> str:
    return name if len(name) <= most else name[: most - 3] + "..."


def _within(tick: float, values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return min(known) / 1.3 <= tick <= max(known) * 1.3
