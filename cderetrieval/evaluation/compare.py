"""Two systems on the same datasets: differences, intervals, tests, and how often each wins.

Scores of one query are averaged over context seeds first, since the same query under three samples of the context is
not three queries. Datasets are tested one by one, with Holm's correction over them; their mean difference is given and
not tested, since fifteen datasets are no sample of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..terminal import printable
from .report import terminal_table
from .results import MAIN, Cell
from .significance import holm, paired_tests

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """Differences of two systems, one row for each dataset.

    Attributes
    ----------
    a, b
        The systems; differences are b minus a.
    metric
        What is compared; datasets without per-query scores have their main score compared, and no tests.
    rows
        dataset, metric, a, b, difference, low, high, p_randomization, p_t, p_holm, wins, ties, losses, n_queries,
        seeds_a, seeds_b.
    """

    a: str
    b: str
    metric: str
    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """One row for each dataset, scores as they are (not times 100)."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @property
    def win_tie_loss(self) -> tuple[int, int, int]:
        """Datasets on which b is better, not different, worse; different where Holm's p is below 0.05."""
        better = [row["difference"] > 0 for row in self.rows if row["p_holm"] < 0.05]
        return sum(better), len(self.rows) - len(better), len(better) - sum(better)

    def summary(self) -> str:
        """The comparison for a terminal, times 100."""
        frame = self.to_frame()
        shown = frame[["dataset", "a", "b", "difference", "low", "high", "p_randomization", "p_t", "p_holm"]].copy()
        for name in ("a", "b", "difference", "low", "high"):
            shown[name] *= 100
        for name in ("p_randomization", "p_t", "p_holm"):
            shown[name] = [_p_value(value) for value in shown[name]]
        shown["win/tie/loss"] = [_counts(row) for row in self.rows]
        shown = shown.rename(columns={"low": "95% from", "high": "to", "p_randomization": "p rand."})
        shown = shown.rename(columns={"p_t": "p t", "p_holm": "p Holm"})
        wins, ties, losses = self.win_tie_loss
        return (
            printable(f"{self.metric} x 100: a = {self.a}, b = {self.b}") + f"\n{terminal_table(shown, 2)}\n"
            f"mean difference {100 * frame['difference'].mean():+.2f} over {len(frame)} datasets; "
            f"b better on {wins}, not different on {ties}, worse on {losses} (p Holm < 0.05)"
        )

    def plot(self, path: str | Path) -> Path:
        """Draw the differences with their intervals as a PNG; see `plots`."""
        from .plots import plot_comparison

        return plot_comparison(self, path)


def compare_systems(a: Sequence[Cell], b: Sequence[Cell], metric: str = "ndcg@10") -> Comparison:
    """Compare the cells of two systems on the datasets that both have.

    Raises
    ------
    InputError
        If they have no dataset in common, or one with different queries or data.
    """
    if not a or not b:
        raise InputError("nothing to compare: one of the systems has no results.")
    shared = [name for name in dict.fromkeys(cell.column for cell in a) if any(cell.column == name for cell in b)]
    if not shared:
        raise InputError(f"{a[0].system} and {b[0].system} have no dataset in common.")
    rows = []
    for dataset in shared:
        of_a, of_b = ([cell for cell in cells if cell.column == dataset] for cells in (a, b))
        revisions = {cell.revision for cell in (*of_a, *of_b)}
        if len(revisions) > 1:
            raise InputError(f"{dataset}: the results are of different data ({', '.join(sorted(revisions))}).")
        rows.append({"dataset": dataset, **_compare_dataset(of_a, of_b, metric)})
    # Only tests that were made count for the correction.
    for row, corrected in zip(rows, holm([row["p_randomization"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return Comparison(a[0].system, b[0].system, metric, tuple(rows))


def _compare_dataset(a: Sequence[Cell], b: Sequence[Cell], metric: str) -> dict[str, Any]:
    common = {"seeds_a": len(a), "seeds_b": len(b)}
    if any(cell.scores is None for cell in (*a, *b)):
        means = [float(np.mean([cell.metrics[MAIN] for cell in cells])) for cells in (a, b)]
        tests = dict.fromkeys(("low", "high", "p_randomization", "p_t", "wins", "ties", "losses"), float("nan"))
        return {
            "metric": MAIN, "a": means[0], "b": means[1], "difference": means[1] - means[0], **tests, "n_queries": 0,
            **common,
        }  # fmt: skip
    queries = [sorted(cells[0].scores.query_ids) for cells in (a, b) if cells[0].scores is not None]
    if queries[0] != queries[1]:
        raise InputError(f"{a[0].column}: {a[0].system} and {b[0].system} were asked different queries.")
    scores = [averaged(cells, metric) for cells in (a, b)]
    found = paired_tests(*scores)
    return {
        "metric": metric,
        "a": float(scores[0].mean()),
        "b": float(scores[1].mean()),
        **asdict(found),
        "n_queries": len(scores[0]),
        **common,
    }


def averaged(cells: Sequence[Cell], metric: str) -> np.ndarray:
    """Scores of each query, averaged over seeds, in the order of the sorted query ids; shape (n_queries,)."""
    columns = []
    for cell in cells:
        assert cell.scores is not None
        order = np.argsort(np.array(cell.scores.query_ids, dtype=object))
        columns.append(cell.scores[metric][order])
    return np.mean(columns, axis=0)


def _p_value(value: float) -> str:
    if value != value:  # nan
        return "-"
    return "<.001" if value < 0.001 else f"{value:.3f}"


def _counts(row: dict[str, Any]) -> str:
    if row["n_queries"] == 0:
        return "-"
    return f"{row['wins']}/{row['ties']}/{row['losses']}"
