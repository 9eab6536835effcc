"""The paper's Table 1 and sweeps: many short runs that differ in a few settings, and one table.

The four cells are (random or contextual batches) x (bi-encoder or contextual architecture), on the same data, steps and
seeds. Each run is one line of ``results.csv``: settings, loss and accuracy of the last steps, difficulty of the batches
by the surrogate, cost, and the numbers of the evaluation. A run that has its line is not repeated, so a sweep that was
interrupted continues. Morris & Rush 2024, Table 1.
"""

from __future__ import annotations

import csv
import itertools
import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..files import as_path, atomic_write, read_json, reading
from ..terminal import printable
from .checkpoints import last_checkpoint
from .recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from .trainer import Evaluate

logger = logging.getLogger(__name__)

RESULTS = "results.csv"
# Steps at the end of a run whose loss and accuracy are averaged.
LAST_LINES = 10
# What the log and the data's report say of a run, in this order; a report has clusters only where there are some.
LOGGED = ("loss", "accuracy", "masked_false_negatives")
REPORTED = ("clusters", "size_median", "positive", "negative", "hardest_negative", "beaten")

Cell = tuple[str, str]
CELLS: tuple[Cell, ...] = tuple(itertools.product(("random", "contextual"), ("biencoder", "contextual")))


def run_cells(
    recipe: Recipe,
    output: str | Path,
    *,
    seeds: int = 3,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    cells: Sequence[Cell] = CELLS,
    cache: str | Path | None = None,
    evaluate: Evaluate | None = None,
) -> pd.DataFrame:
    """Train every cell with every seed and every setting of the sweep.

    Parameters
    ----------
    recipe
        What all runs share.
    output
        Directory of the runs and of ``results.csv``.
    seeds
        Seeds 0 to n - 1.
    sweep
        Field of the recipe to its values; ``"model.layers"`` is a setting inside one.
    cells
        Cells of Table 1: batches (``"random"``, ``"contextual"``) and architecture (``"biencoder"``, ``"contextual"``).
    cache
        Directory of columns, vectors and clusters, which several sweeps may share; None: ``<output>/cache``.
    evaluate
        Called with each trained model; its numbers go into the table.

    Returns
    -------
    pandas.DataFrame
        One row for each run: batches, architecture, seed, the sweep's settings; `LOGGED` and `REPORTED`; ``steps`` and
        ``processor_seconds`` of the training alone (NaN of a run that was interrupted); and what `evaluate` says.

    Examples
    --------
    >>> import tempfile
    >>> from .recipes import load_recipe
    >>> results = run_cells(load_recipe("minilm"), tempfile.mkdtemp(), seeds=0)
    >>> len(results)
    0
    """
    import pandas as pd

    output, sweep = as_path(output), sweep or {}
    rows = read_results(output / RESULTS)
    done = {tuple(str(row.get(name)) for name in ("batches", "architecture", "seed", *sweep)) for row in rows}
    for *values, cell, seed in itertools.product(*sweep.values(), cells, range(seeds)):
        changes = dict(zip(sweep, values, strict=True))
        about = {"batches": cell[0], "architecture": cell[1], "seed": seed, **changes}
        if tuple(map(str, about.values())) in done:
            continue
        chosen = cell_recipe(changed(recipe, changes), cell).replace(seed=seed, evaluate_steps=None)
        settings = [f"{name}={value}".replace("/", "_") for name, value in {"seed": seed, **changes}.items()]
        folder = output / "-".join([*cell, *settings])
        rows.append({**about, **_run(chosen, folder, cache or output / "cache", evaluate)})
        with atomic_write(output / RESULTS) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False, na_rep="nan")
        logger.info("%s: done", about)
    return pd.DataFrame(rows)


def cell_recipe(recipe: Recipe, cell: Cell) -> Recipe:
    """The recipe of one cell of Table 1, from a contextual one."""
    if recipe.architecture not in ("joint", "cached"):
        raise ConfigError("Table 1 compares with a bi-encoder: give a recipe whose architecture is joint or cached.")
    batches, architecture = cell
    changes: dict[str, Any] = {}
    if batches == "random":
        changes |= {"clusters": False, "filter": "off"}
    if architecture == "biencoder":
        changes |= {"architecture": "biencoder", "null_probability": 0.0, "sequence_dropout": 0.0}
    return recipe.replace(**changes)


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings changed; ``"model.layers"`` names one inside another."""
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        field, dot, inner = name.partition(".")
        changes[field] = {**changes.get(field, getattr(recipe, field)), inner: value} if dot else value
    return recipe.replace(**changes)


def _run(recipe: Recipe, folder: Path, cache: str | Path, evaluate: Evaluate | None) -> dict[str, float]:
    from .run import train

    resumed = last_checkpoint(folder) is not None
    begun: list[float] = []
    model = train(recipe, folder, cache=cache, resume=True, on_ready=lambda trainer: begun.append(time.process_time()))
    seconds = math.nan if resumed else time.process_time() - begun[0]
    # The model is kept, and the line in the table says that the run is done: its checkpoints are of no more use.
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with reading(folder, remedy=f"Remove {folder} and run this cell again."):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        last = [line for line in lines if "accuracy" in line][-LAST_LINES:]
        measured = {name: sum(line[name] for line in last) / len(last) if last else math.nan for name in LOGGED}
        report = read_json(folder / "data.json")
        measured |= {name: report.get(name, math.nan) for name in REPORTED}
        measured |= {"steps": lines[-1]["step"], "processor_seconds": seconds}
    return {**measured, **(evaluate(model, lines[-1]["step"]) if evaluate is not None else {})}


def read_results(path: Path) -> list[dict[str, Any]]:
    """Rows of the table of finished cells; none where there is no table yet."""
    if not path.is_file():
        return []
    remedy = f"Remove {path}, and the folders of the cells beside it, and run them again."
    with reading(path, remedy=remedy), open(path, newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file, strict=True)
        if len(set(names)) < len(names) or not {"batches", "architecture", "seed", "loss"} <= set(names):
            raise ValueError("its columns are not those of cells")
        return [dict(zip(names, map(_number, row), strict=True)) for row in rows]


def _number(text: str) -> Any:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


def table(results: pd.DataFrame, seeds: int) -> str:
    """Mean of each cell and, of several seeds, the half-width of its 95% interval (Student's t), as text."""
    from scipy.stats import t

    first = results.columns.get_loc("loss")
    settings = [name for name in results.columns[:first] if name != "seed"]
    numbers = [name for name in results.columns[first:] if name not in (*REPORTED, "steps")]
    lines = []
    for names, group in results.groupby(settings, sort=False):
        cells = [f"{printable(value):10s}" for value in names]
        for name in numbers:
            half = t.ppf(0.975, seeds - 1) * group[name].std(ddof=1) / math.sqrt(seeds)
            cells.append(f"{name} {group[name].mean():.4f}" + (f" ±{half:.4f}" if seeds > 1 else ""))
        lines.append("  ".join(cells))
    return "\n".join(lines)
