"""Results as tables, in Markdown or for a terminal.

The long form is stored, one row for each number: model, dataset, context, seed, metric, value, n_queries, and whatever
else a caller adds. The wide form is read: models in rows, datasets in columns. Text from data is made printable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..terminal import printable

if TYPE_CHECKING:
    import pandas as pd

LONG_COLUMNS = ("model", "dataset", "context", "seed", "metric", "value", "n_queries")


def wide_table(
    results: pd.DataFrame,
    metric: str = "ndcg@10",
    rows: tuple[str, ...] = ("model", "context"),
    columns: str = "dataset",
    scale: float = 100.0,
    mean: bool = True,
) -> pd.DataFrame:
    """Turn long results into a table of one metric; rows that differ only in the seed are averaged.

    `rows` and `columns` name columns of `results`; a row column with a single value is left out, except the first. The
    mean over all columns is given only where none is missing: means over different datasets cannot be compared.
    """
    for column in (*rows, columns, "metric", "value"):
        if column not in results.columns:
            raise InputError(
                f"The results have no column {column!r}; they have {', '.join(map(str, results.columns))}."
            )
    chosen = results[results["metric"].str.lower() == metric.lower()]
    if chosen.empty:
        raise InputError(f"No result has metric {metric!r}; there are {', '.join(sorted(set(results['metric'])))}.")
    used = [rows[0], *(row for row in rows[1:] if chosen[row].nunique(dropna=False) > 1)]
    names = list(dict.fromkeys(chosen[columns]))
    means = chosen.groupby([*used, columns], sort=False, dropna=False)["value"].mean() * scale
    # the merge puts rows into the order of the results; unstack sorts them
    wide = chosen[used].drop_duplicates().merge(means.unstack(columns).reset_index(), on=used)[[*used, *names]]
    wide.columns.name = None
    if mean:
        wide["mean"] = wide[names].mean(axis=1, skipna=False)
    return wide


def markdown_table(frame: pd.DataFrame, digits: int = 1, bold_best: bool = False) -> str:
    """Write a frame without its index as a Markdown table; `bold_best` marks the best of each column of floats.

    >>> import pandas as pd
    >>> print(markdown_table(pd.DataFrame({"model": ["m1", "m2"], "cisi": [31.0, 25.04]}), bold_best=True))
    | model | cisi |
    |---|---:|
    | m1 | **31.0** |
    | m2 | 25.0 |
    """
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
