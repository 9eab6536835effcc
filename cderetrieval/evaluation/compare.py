"""Two systems on the same datasets: differences, intervals, tests, and how often each is better.

Scores of a query are first averaged over context seeds: one query under three samples of the context is not three
queries. Each dataset is tested, with Holm's correction over all of them. Their mean difference is given and not tested,
since fifteen datasets are not a sample of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..notebook import html_table
from ..terminal import printable
from .cell import MAIN, Cell
from .plots import plot_differences
from .stats import holm, paired_tests
from .tables import terminal_table

if TYPE_CHECKING:
    import pandas as pd

_TESTED = ("low", "high", "p_randomization", "p_t", "wins", "ties", "losses")


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

    def _repr_html_(self) -> str:
        """One row for each dataset."""
        return html_table(self.to_frame(), f"{self.b} against {self.a}: {self.metric}")

    @property
    def win_tie_loss(self) -> tuple[int, int, int]:
        """Datasets on which b is better, not different, worse; different where Holm's p is below 0.05."""
        better = [row["difference"] > 0 for row in self.rows if row["p_holm"] < 0.05]
        return sum(better), len(self.rows) - len(better), len(better) - sum(better)

    def summary(self) -> str:
        """The comparison for a terminal, times 100."""
        frame = self.to_frame()
        shown = frame[["dataset", "a", "b", "difference", "low", "high", "p_randomization", "p_t", "p_holm"]].copy()
        shown[["a", "b", "difference", "low", "high"]] *= 100
        for name in ("p_randomization", "p_t", "p_holm"):
            shown[name] = [_p_value(value) for value in shown[name]]
        shown["win/tie/loss"] = [
            f"{row['wins']}/{row['ties']}/{row['losses']}" if row["n_queries"] else "-" for row in self.rows
        ]
        titles = {"low": "95% from", "high": "to", "p_randomization": "p rand.", "p_t": "p t", "p_holm": "p Holm"}
        wins, ties, losses = self.win_tie_loss
        return (
            printable(f"{self.metric} x 100: a = {self.a}, b = {self.b}")
            + f"\n{terminal_table(shown.rename(columns=titles), 2)}\n"
            f"mean difference {100 * frame['difference'].mean():+.2f} over {len(frame)} datasets; "
            f"b better on {wins}, not different on {ties}, worse on {losses} (p Holm < 0.05)"
        )

    def plot(self, path: str | Path) -> Path:
        """Draw the differences with their intervals as a PNG; needs matplotlib."""
        metric = self.metric.replace("ndcg", "nDCG")
        return plot_differences(self.rows, f"{self.b}\nminus {self.a}", f"difference in {metric} x 100", path)


def compare_systems(a: Sequence[Cell], b: Sequence[Cell], metric: str = "ndcg@10") -> Comparison:
    """Compare the cells of two systems on the datasets that both have; queries and data must be the same."""
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
    tests: dict[str, Any]
    if any(cell.scores is None for cell in (*a, *b)):
        metric, n_queries = MAIN, 0
        mean_a, mean_b = (float(np.mean([cell.metrics[MAIN] for cell in cells])) for cells in (a, b))
        tests = {"difference": mean_b - mean_a, **dict.fromkeys(_TESTED, float("nan"))}
    else:
        asked_a, asked_b = (sorted(cells[0].scores.query_ids) for cells in (a, b) if cells[0].scores is not None)
        if asked_a != asked_b:
            raise InputError(f"{a[0].column}: {a[0].system} and {b[0].system} were asked different queries.")
        scores_a, scores_b = averaged(a, metric), averaged(b, metric)
        mean_a, mean_b, n_queries = float(scores_a.mean()), float(scores_b.mean()), len(scores_a)
        tests = asdict(paired_tests(scores_a, scores_b))
    seeds = {"seeds_a": len(a), "seeds_b": len(b)}
    return {"metric": metric, "a": mean_a, "b": mean_b, **tests, "n_queries": n_queries, **seeds}


def averaged(cells: Sequence[Cell], metric: str) -> np.ndarray:
    """Scores of each query, averaged over seeds, in the order of the sorted query ids; shape (n_queries,)."""
    columns = []
    for cell in cells:
        assert cell.scores is not None
        order = np.argsort(np.array(cell.scores.query_ids, dtype=object))
        columns.append(cell.scores[metric][order])
    return np.asarray(np.mean(columns, axis=0))


def _p_value(value: float) -> str:
    if value != value:  # nan
        return "-"
    return "<.001" if value < 0.001 else f"{value:.3f}"
