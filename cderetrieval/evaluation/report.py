"""Results as tables: long rows in, wide tables out, as Markdown or for a terminal.

The long form is the one that is stored, one row for one number: model, dataset, context, seed, metric, value,
n_queries, and whatever else a caller adds. The wide form is the one that is read: models in rows, datasets in columns.
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
    """Turn long results into a table of one metric.

    Parameters
    ----------
    results
        Long form; see `LONG_COLUMNS`. Rows that differ in the seed alone are averaged.
    metric
        Which metric.
    rows, columns
        Columns of `results` that become the table's rows and columns. Row columns that hold one value throughout are
        left out, except the first.
    scale
        Factor; papers give nDCG times 100.
    mean
        Add a last column: the mean over all columns. A row that lacks a value has none, since a mean over fewer
        datasets cannot be compared.

    Returns
    -------
    pandas.DataFrame
        In the order in which `results` names rows and columns first.

    Raises
    ------
    InputError
        If a column is missing or no row has the metric.

    Examples
    --------
    >>> import pandas as pd
    >>> long = [("m1", "cisi", 0, 0.31), ("m1", "med", 0, 0.70), ("m1", "med", 1, 0.72), ("m2", "cisi", 0, 0.25)]
    >>> results = pd.DataFrame(long, columns=["model", "dataset", "seed", "value"]).assign(metric="ndcg@10", context="")
    >>> print(terminal_table(wide_table(results)))
    model  cisi   med  mean
    -----  ----  ----  ----
    m1     31.0  71.0  51.0
    m2     25.0     -     -
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
    """Write a frame as a Markdown table, numbers to the right.

    Parameters
    ----------
    frame
        What to write; its index is left out.
    digits
        Digits after the point of floating-point columns.
    bold_best
        Print the greatest value of each floating-point column in bold.

    Examples
    --------
    >>> import pandas as pd
    >>> print(markdown_table(pd.DataFrame({"model": ["m1", "m2"], "cisi": [31.0, 25.04]}), bold_best=True))
    | model | cisi |
    |---|---:|
    | m1 | **31.0** |
    | m2 | 25.0 |
    """
    cells = _cells(frame, digits)
    if bold_best:
        for j, name in enumerate(frame.columns):
            best = frame[name].max() if frame[name].dtype.kind == "f" else None
            for i, value in enumerate(frame[name]):
                if best is not None and value == best:
                    cells[i][j] = f"**{cells[i][j]}**"
    escaped = [
        [cell.replace("|", "\\|") for cell in row] for row in [[printable(name) for name in frame.columns], *cells]
    ]
    rule = "|" + "".join("---:|" if right else "---|" for right in _is_number(frame))
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([lines[0], rule, *lines[1:]])


def terminal_table(frame: pd.DataFrame, digits: int = 1) -> str:
    """Write a frame as aligned columns, numbers to the right; its index is left out."""
    rows = [[printable(name) for name in frame.columns], *_cells(frame, digits)]
    widths = [max(len(row[j]) for row in rows) for j in range(len(frame.columns))]
    rows.insert(1, ["-" * width for width in widths])
    right = _is_number(frame)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    )


def _is_number(frame: pd.DataFrame) -> list[bool]:
    return [frame[name].dtype.kind in "fiu" for name in frame.columns]


def _cells(frame: pd.DataFrame, digits: int) -> list[list[str]]:
    return [[_cell(value, digits) for value in row] for row in frame.itertuples(index=False, name=None)]


def _cell(value: Any, digits: int) -> str:
    if value is None or value != value:  # nan
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else printable(value)
