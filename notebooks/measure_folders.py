"""What a context is worth at full size: corpus statistics over all-MiniLM-L6-v2 on BEIR folders, evaluation only.

python notebooks/measure_folders.py contexts FOLDER...    nDCG@10 of each folder's queries in each folder's context
python notebooks/measure_folders.py sizes FOLDER...       nDCG@10 by the number of context documents, own context

`contexts` writes data/folder_contexts.csv and, with paired intervals over queries, data/folder_gains.csv; `sizes`
writes data/folder_sizes.csv. With `--cache DIR`, vectors of texts are kept there between runs. Contexts are samples of
three seeds; a folder that has fewer documents than a sample shall have is its own sample. The statistics are those of
`cde-minilm`, over the base's own weights: in the null context it is that base, so that all gains are the context's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DATA = Path(__file__).parent / "data"
BASE, SETTINGS = "all-MiniLM-L6-v2", "cde-minilm"
SEEDS = range(3)
SIZES = (4, 16, 64, 256, 512, 2048)
NEUTRAL, NULL, OTHERS = "neutral", "null", "others"
Rows = Iterator[dict[str, Any]]

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def main() -> None:
    """Write the CSVs of one measure."""
    from folders import Models, read_folder

    from cderetrieval.models.statistics import StatisticsModel

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {"contexts": contexts, "sizes": sizes}
    parser.add_argument("measure", choices=measures)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="BEIR folders")
    parser.add_argument("--cache", type=Path, help="keep vectors of texts here")
    arguments = parser.parse_args()
    models = Models(arguments.cache)
    model = StatisticsModel(models(BASE), models(SETTINGS).config)
    measured = measures[arguments.measure](model, [read_folder(folder) for folder in arguments.folders])
    for name, rows in measured.items():
        pd.DataFrame(rows).round(5).to_csv(DATA / f"{name}.csv", index=False)
    models.keep()


def contexts(model: Any, datasets: Sequence[Any]) -> dict[str, Rows]:
    """Each folder in samples of each folder, in the neutral sentences and in the null context."""
    from folders import by_context, in_context

    found = by_context(model, datasets, SEEDS)
    # Neutral sentences are exactly as many as the model takes, so that every seed draws all of them.
    rest = {
        name: [np.array([in_context(model, one, spec)]) for one in datasets]
        for name, spec in ((NEUTRAL, "random"), (NULL, None))
    }
    return {
        "folder_contexts": context_rows(found | rest, datasets),
        "folder_gains": gain_rows(found, {name: [one[0] for one in values] for name, values in rest.items()}),
    }


def context_rows(found: dict[str, list[np.ndarray]], datasets: Sequence[Any]) -> Rows:
    """Means over queries."""
    for context, values in found.items():
        for dataset, scores in zip(datasets, values, strict=True):
            for seed, of_queries in enumerate(scores):
                yield {
                    "context": context,
                    "folder": dataset.name,
                    "seed": seed,
                    "queries": len(of_queries),
                    "ndcg@10": of_queries.mean(),
                }


def gain_rows(found: dict[str, list[np.ndarray]], rest: dict[str, list[np.ndarray]]) -> Rows:
    """What the own context gains on the others, for each folder and on the mean of all, in points of nDCG@10."""
    from folders import difference, own_and_others

    own, others = own_and_others(found)
    for name, values in {OTHERS: others, **rest}.items():
        for i, folder in enumerate(found):
            yield gain_row(folder, name, difference(values[i : i + 1], own[i : i + 1]))
        yield gain_row("mean", name, difference(values, own))


def gain_row(folder: str, against: str, gain: dict[str, Any]) -> dict[str, Any]:
    """One gain with its interval."""
    return {"folder": folder, "against": against, "gain": gain["mean"], "low": gain["low"], "high": gain["high"]}


def sizes(model: Any, datasets: Sequence[Any]) -> dict[str, Rows]:
    """Own contexts of several sizes."""
    from folders import in_context, own_context

    def rows() -> Rows:
        for size in SIZES:
            for seed in SEEDS:
                made = {one.name: own_context(model, one, seed, size) for one in datasets}
                scores = {one.name: in_context(model, one, made[one.name]).mean() for one in datasets}
                yield {"documents": size, "seed": seed, **scores}

    return {"folder_sizes": rows()}


if __name__ == "__main__":
    main()
