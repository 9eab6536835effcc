"""Results as tables, in Markdown or for a terminal; text from data is made printable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..terminal import printable

if TYPE_CHECKING:
    import pandas as pd


def wide_table(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric times 100 of rows with model, context, dataset, metric and value: models by datasets, then the mean.

    Rows that differ only in the seed are averaged; a context that all rows share is left out. A model that lacks a
    dataset has no mean, since means over different datasets cannot be compared.
    """
    chosen = results[results["metric"].str.lower() == metric.lower()]
    if chosen.empty:
        raise InputError(f"No result has metric {metric!r}; there are {', '.join(sorted(set(results['metric'])))}.")
    rows = ["model", *(["context"] if chosen["context"].nunique() > 1 else [])]
    datasets = list(dict.fromkeys(chosen["dataset"]))
    means = 100 * chosen.groupby([*rows, "dataset"], sort=False)["value"].mean()
    # the merge puts rows into the order of the results; unstack sorts them
    wide = chosen[rows].drop_duplicates().merge(means.unstack("dataset").reset_index(), on=rows)[[*rows, *datasets]]
    wide.columns.name = None
    wide["mean"] = wide[datasets].mean(axis=1, skipna=False)
    return wide


def markdown_table(frame: pd.DataFrame, digits: int = 1, bold_best: bool = False) -> str:
    """Write a frame without its index as a Markdown table; `bold_best` marks the best of each column of floats."""
    columns = []
    for name, texts in _columns(frame, digits):
        cells = [text.replace("|", "\\|") for text in texts]
        if bold_best and frame[name].dtype.kind == "f":
            best = frame[name].max()
            cells[1:] = [
                f"**{cell}**" if value == best else cell for cell, value in zip(cells[1:], frame[name], strict=True)
            ]
        columns.append([cells[0], "---:" if _is_number(frame[name]) else "---", *cells[1:]])
    lines = ["| " + " | ".join(row) + " |" for row in zip(*columns, strict=True)]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join(lines)


def terminal_table(frame: pd.DataFrame, digits: int = 1) -> str:
    """Write a frame without its index as aligned columns, numbers to the right."""
    columns = []
    for name, cells in _columns(frame, digits):
        width = max(map(len, cells))
        cells.insert(1, "-" * width)
        columns.append([cell.rjust(width) if _is_number(frame[name]) else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _columns(frame: pd.DataFrame, digits: int) -> list[tuple[Any, list[str]]]:
    """Name and texts of each column, its title first."""
    return [(name, [printable(name), *(_cell(value, digits) for value in frame[name])]) for name in frame.columns]


def _is_number(column: Any) -> bool:
    return column.dtype.kind in "fiu"


def _cell(value: Any, digits: int) -> str:
    if value is None or value != value:  # nan
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else printable(value)
