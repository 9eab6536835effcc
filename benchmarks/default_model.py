"""The default model against its own base, on BEIR folders: nDCG@10 in its own, a random and the null context.

Beside it stand the training-free contexts of the base: its own settings on untrained weights, and `context="centre"`,
which is those without terms. Vectors of each text are computed once for each set of weights. The interval of a mean
difference is a paired bootstrap that draws queries anew within each folder; own and random contexts are averaged over
three samples. Contexts of the other folders, three samples of each, say whether it must be one's own corpus or whether
any will do.

    python benchmarks/default_model.py FOLDER [FOLDER ...] [--out results/] [--cache vectors/]

Weights and settings of the default model were chosen on held-out slices of training sets and on whole sets that were
not trained on, never on these folders' test qrels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import bar, finish
from folders import METRIC, Models, by_context, difference, own_and_others, read_folder

from cderetrieval.evaluation.compare import averaged
from cderetrieval.evaluation.results import Results
from cderetrieval.evaluation.runner import evaluate
from cderetrieval.models.statistics import StatisticsModel

BASE, CENTRE, MODEL = "all-MiniLM-L6-v2", "centre:all-MiniLM-L6-v2", "cde-minilm"
UNTRAINED = "untrained"
OTHERS = MODEL + "/others"
SEEDS = 3
# What the project asks of its default model, in points of nDCG@10.
BARS = {BASE + "/none": 2.0, CENTRE + "/own": 0.0, UNTRAINED + "/own": 0.0, MODEL + "/random": 1.0}


def scores(results: Results, system: str) -> list[np.ndarray]:
    """Of each folder, the score of each query, averaged over seeds."""
    cells = results.of(system)
    names = dict.fromkeys(cell.dataset for cell in cells)
    return [averaged([cell for cell in cells if cell.dataset == name], METRIC) for name in names]


def main() -> None:
    """Evaluate, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="BEIR folders")
    parser.add_argument("--out", type=Path, help="keep the evaluations here")
    parser.add_argument("--cache", type=Path, help="keep vectors of texts here")
    arguments = parser.parse_args()
    models = Models(arguments.cache)
    systems = {name: models(name) for name in (BASE, CENTRE, MODEL)}
    model = systems[MODEL]
    assert isinstance(model, StatisticsModel)
    systems[UNTRAINED] = StatisticsModel(systems[BASE], model.config)
    folders = [str(folder) for folder in arguments.folders]
    results = evaluate(systems, folders, context=["own", "random", "null"], seeds=SEEDS, out=arguments.out)
    found = {system: scores(results, system) for system in results.systems}
    crossed = by_context(model, [read_folder(folder) for folder in folders], range(SEEDS))
    models.keep()
    crossed_own, found[OTHERS] = own_and_others(crossed)
    names = list(dict.fromkeys(cell.dataset for cell in results.cells))
    rows: list[dict[str, Any]] = [
        {"folder": name, **{system: round(100 * values[i].mean(), 2) for system, values in found.items()}}
        for i, name in enumerate(names)
    ]
    own = found[MODEL + "/own"]
    compared = []
    bars = []
    for system, values in found.items():
        if system == MODEL + "/own":
            continue
        # Queries come in another order there, so that they are paired with those of the same evaluation.
        gain = difference(values, crossed_own if system == OTHERS else own)
        compared.append({"own context against": system, **{key: round(value, 2) for key, value in gain.items()}})
        if (limit := BARS.get(system)) is not None:
            bars.append(bar(f"mean gain over {system}", round(gain["mean"], 2), limit))
            bars.append(bar(f"lower end of its interval, {system}", round(gain["low"], 2), 0.0))
        if system.startswith(BASE):
            bars.append(bar("worst folder against the base", round(gain["worst"], 2), -1.0))
    settings = {"metric": METRIC, "seeds": SEEDS, "config": vars(model.config), "folders": names}
    finish("default_model", settings=settings, rows=[*rows, *compared], bars=bars, quick=False)


if __name__ == "__main__":
    main()
