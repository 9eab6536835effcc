"""Results of an evaluation as pandas frames and tables: cells of a model, context, seed, dataset, subset and split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import as_path, atomic_write
from ..notebook import html_table
from .cell import MAIN, Cell
from .compare import Comparison, compare_systems
from .results_folder import ResultsFolder
from .tables import markdown_table, terminal_table, wide_table

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """Results of an evaluation.

    Parameters
    ----------
    cells
        Scores of one model in one context on one dataset each; tables keep their order.
    directory
        Folder that holds them, if any.

    Examples
    --------
    >>> from cderetrieval.evaluation.cell import Cell
    >>> cell = Cell("tiny", "own", 0, "toy", "default", "test", "r1", "Retrieval", {"ndcg@10": 0.5, "main_score": 0.5})
    >>> Results([cell]).to_frame()[["model", "dataset", "metric", "value"]].to_dict("records")[0]
    {'model': 'tiny', 'dataset': 'toy', 'metric': 'ndcg@10', 'value': 0.5}
    """

    def __init__(self, cells: Iterable[Cell], directory: Path | None = None) -> None:
        self.cells = list(cells)
        self.directory = directory

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        datasets = {cell.column for cell in self.cells}
        return f"Results({len(self.systems)} systems, {len(datasets)} datasets, {len(self)} evaluations)"

    @classmethod
    def load(cls, directory: str | Path) -> Results:
        """Read a folder that an evaluation wrote; a damaged file in it is a StoreError."""
        return cls(ResultsFolder(directory).cells(), as_path(directory))

    def _repr_html_(self) -> str:
        """The tables of the summary."""
        return "".join(html_table(table, title, 1) for title, table in self._tables())

    @property
    def systems(self) -> list[str]:
        """Names of what can be compared: ``model/context``."""
        return list(dict.fromkeys(cell.system for cell in self.cells))

    def to_frame(self) -> pd.DataFrame:
        """One row for each number: model, dataset, context, seed, type, group, metric, value, n_queries."""
        import pandas as pd

        return pd.DataFrame([row for cell in self.cells for row in cell.rows()])

    def queries(self) -> pd.DataFrame:
        """One row for each query of each cell: model, context, seed, dataset, query_id and its metrics."""
        import pandas as pd

        frames = [pd.DataFrame(columns=["model", "context", "seed", "dataset", "query_id"])]
        for cell in self.cells:
            if cell.scores is not None:
                fixed = {"model": cell.model, "context": cell.context, "seed": cell.seed, "dataset": cell.column}
                frames.append(pd.DataFrame({**fixed, "query_id": cell.scores.query_ids, **cell.scores.values}))
        return pd.concat(frames[1:] or frames, ignore_index=True)

    def table(self, metric: str = MAIN) -> pd.DataFrame:
        """Models and contexts by datasets: means over seeds, times 100; a group (CQADupstack) is one column."""
        frame = self.to_frame()
        grouped = frame.groupby(["model", "context", "seed", "group", "metric"], sort=False, dropna=False)
        return wide_table(grouped["value"].mean().reset_index().rename(columns={"group": "dataset"}), metric)

    def types(self) -> pd.DataFrame:
        """Main scores by task type, times 100, as MTEB's table: the mean over the tasks of each type, and over all."""
        frame, rows = self.to_frame(), ["model", "context"]
        main = frame[frame["metric"] == MAIN].groupby([*rows, "type", "group"], sort=False)["value"]
        tasks = (100 * main.mean()).reset_index()
        wide = tasks.pivot_table(index=rows, columns="type", values="value", aggfunc="mean", sort=False)
        wide["all tasks"] = tasks.groupby(rows, sort=False)["value"].mean()
        wide.columns.name = None
        return wide.reset_index()

    def summary(self) -> str:
        """The tables for a terminal."""
        return "\n\n".join(f"{title}\n{terminal_table(frame)}" for title, frame in self._tables())

    def markdown(self) -> str:
        """The tables in Markdown."""
        several = len(self.systems) > 1
        return "\n\n".join(f"{title}\n\n{markdown_table(frame, bold_best=several)}" for title, frame in self._tables())

    def _tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        types = {cell.type for cell in self.cells}
        if types <= {"Retrieval"}:
            # The metric by which mteb ranks a retrieval task is now and then another one (FeedbackQA: precision@1).
            yield "ndcg@10 x 100", self.table("ndcg@10")
            yield "recall@100 x 100", self.table("recall@100")
        else:
            yield "main score x 100", self.table()
        if len(types) > 1:
            yield "by task type, main score x 100", self.types()

    def compare(self, a: str, b: str, metric: str = "ndcg@10") -> Comparison:
        """Compare two systems on the datasets that both have, with intervals and tests."""
        return compare_systems(self.of(a), self.of(b), metric)

    def of(self, system: str) -> list[Cell]:
        """Cells of one system, ``model/context`` or, where it has one context, ``model``."""
        matches = [name for name in self.systems if system in (name, name.rpartition("/")[0])]
        if len(matches) != 1:
            what = "no system is" if not matches else "several systems are"
            raise InputError(f"{what} called {system!r}; there are {', '.join(self.systems)}.")
        return [cell for cell in self.cells if cell.system == matches[0]]


def write_tables(folder: ResultsFolder) -> None:
    """Write the tables of all finished evaluations of a folder, and list these in its manifest."""
    cells = folder.cells()
    if not cells:
        return
    folder.list_cells(cells)
    results = Results(cells, folder.directory)
    with atomic_write(folder.directory / "results.csv") as temporary:
        results.to_frame().to_csv(temporary, index=False, errors="backslashreplace")
    with atomic_write(folder.directory / "table.md") as temporary:
        temporary.write_text(results.markdown() + "\n", encoding="utf-8", errors="backslashreplace")
