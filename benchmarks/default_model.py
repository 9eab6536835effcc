"""The default model against its own base, on BEIR folders: nDCG@10 in its own, a random and the null context.

Beside it stand the training-free contexts of the base: its own settings on untrained weights, and `context="centre"`,
which is those without terms. Vectors of each text are computed once for each set of weights. The interval of a mean
difference is a paired bootstrap that draws queries anew within each folder; own contexts are averaged over three
samples. Contexts of the other folders, three samples of each, say whether it must be one's own corpus or whether any
will do.

    python benchmarks/default_model.py FOLDER [FOLDER ...] [--cache vectors/]

Weights and settings of the default model were chosen on held-out slices of training sets and on whole sets that were
not trained on, never on these folders' test qrels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import bar, finish
from folders import METRIC, Models, by_context, difference, in_context, own_and_others, read_folder

from cderetrieval.corpora.dataset import Dataset
from cderetrieval.models.statistics import StatisticsModel

BASE, CENTRE, MODEL = "all-MiniLM-L6-v2", "centre:all-MiniLM-L6-v2", "cde-minilm"
UNTRAINED = "untrained"
OWN, OTHERS = MODEL + "/own", MODEL + "/others"
SEEDS = 3
# What the project asks of its default model, in points of nDCG@10.
BARS = {BASE + "/none": 2.0, CENTRE + "/own": 0.0, UNTRAINED + "/own": 0.0, MODEL + "/random": 1.0}


def in_own(model: Any, datasets: list[Dataset]) -> list[np.ndarray]:
    """Of each folder, the metric of each query, averaged over samples of the folder."""
    return [by_context(model, [dataset], range(SEEDS))[dataset.name][0].mean(axis=0) for dataset in datasets]


def main() -> None:
    """Evaluate, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="BEIR folders")
    parser.add_argument("--cache", type=Path, help="keep vectors of texts here")
    arguments = parser.parse_args()
    models = Models(arguments.cache)
    base, centre, model = (models(name) for name in (BASE, CENTRE, MODEL))
    assert isinstance(model, StatisticsModel)
    datasets = [read_folder(folder) for folder in arguments.folders]
    own, others = own_and_others(by_context(model, datasets, range(SEEDS)))
    untrained = StatisticsModel(base, model.config)
    # The neutral sentences of the random context are as many as the model takes: every seed draws all of them.
    found = {
        BASE + "/none": [in_context(base, dataset, None) for dataset in datasets],
        CENTRE + "/own": in_own(centre, datasets),
        UNTRAINED + "/own": in_own(untrained, datasets),
        UNTRAINED + "/random": [in_context(untrained, dataset, "random") for dataset in datasets],
        OWN: own,
        MODEL + "/random": [in_context(model, dataset, "random") for dataset in datasets],
        MODEL + "/null": [in_context(model, dataset, None) for dataset in datasets],
        **({OTHERS: others} if len(datasets) > 1 else {}),
    }
    models.keep()
    rows: list[dict[str, Any]] = [
        {"folder": dataset.name, **{system: round(100 * values[i].mean(), 2) for system, values in found.items()}}
        for i, dataset in enumerate(datasets)
    ]
    compared = []
    bars = []
    for system in [name for name in found if name != OWN]:
        gain = difference(found[system], own)
        compared.append({"own context against": system, **{key: round(value, 2) for key, value in gain.items()}})
        if (limit := BARS.get(system)) is not None:
            bars.append(bar(f"mean gain over {system}", round(gain["mean"], 2), limit))
            bars.append(bar(f"lower end of its interval, {system}", round(gain["low"], 2), 0.0))
        if system.startswith(BASE):
            bars.append(bar("worst folder against the base", round(gain["worst"], 2), -1.0))
    names = [dataset.name for dataset in datasets]
    settings = {"metric": METRIC, "seeds": SEEDS, "config": vars(model.config), "folders": names}
    finish("default_model", settings=settings, rows=[*rows, *compared], bars=bars, quick=False)


if __name__ == "__main__":
    main()
