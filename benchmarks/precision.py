"""What eight bits cost: nDCG@10 of models in float32 and in int8, on development sets.

The same queries and documents are embedded twice. A contextual model reads its own context, a sample that is the same
in both. Documents are those of BEIR folders, and of slices of files of pairs (2,500 documents, 300 queries of each).
The interval of a mean loss is a paired bootstrap that draws queries anew within each set. Speed and memory are measured
by `encode.py`.

    python benchmarks/precision.py FOLDER[:SPLIT] [...] [--pairs FILE ...] [--models NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import bar, finish
from folders import METRIC, difference, in_context
from hybrid import folder, shortened, slice_of_pairs

from cderetrieval.corpora.dataset import Dataset
from cderetrieval.models.load import load

MODELS = ("all-MiniLM-L6-v2", "cde-minilm")
PRECISIONS = ("float32", "int8")


def scores(name: str, precision: str, datasets: list[Dataset]) -> list[np.ndarray]:
    """The metric of each query of each set, shape (queries,)."""
    options = {} if precision == "float32" else {"precision": precision}
    model = load(name, device="cpu", runtime="onnx", **options)
    return [in_context(model, dataset, "own") for dataset in datasets]


def main() -> None:
    """Embed in both precisions, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="BEIR folders, FOLDER or FOLDER:SPLIT")
    parser.add_argument("--pairs", nargs="+", default=[], type=Path, metavar="FILE", help="JSONL of query and document")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--quick", action="store_true", help="a few documents and queries, no JSON: does it run?")
    given = parser.parse_args()
    datasets = [folder(argument, "test") for argument in given.folders] + [slice_of_pairs(path) for path in given.pairs]
    if not datasets:
        parser.error("name a folder, or --pairs")
    datasets = [shortened(dataset) if given.quick else dataset for dataset in datasets]
    rows, bars = [], []
    for name in given.models:
        plain, small = (scores(name, precision, datasets) for precision in PRECISIONS)
        for dataset, *both in zip(datasets, plain, small, strict=True):
            means = {
                precision: round(100 * float(values.mean()), 2)
                for precision, values in zip(PRECISIONS, both, strict=True)
            }
            loss = difference([both[1]], [both[0]])
            rows.append({"model": name, "set": dataset.name, "queries": len(both[0]), **means, **_rounded(loss)})
        loss = difference(small, plain)
        rows.append({"model": name, "set": "mean", **_rounded(loss)})
        bars.append(
            bar(f"{name}: loss of int8, mean of {len(datasets)} sets", round(loss["mean"], 2), 0.3, at_most=True)
        )
        losses = [100 * float((one - two).mean()) for one, two in zip(plain, small, strict=True)]
        bars.append(bar(f"{name}: loss of int8, worst set", round(max(losses), 2), 0.8, at_most=True))
    finish("precision", settings={"metric": METRIC}, rows=rows, bars=bars, quick=given.quick)


def _rounded(loss: dict[str, float]) -> dict[str, float]:
    return {"loss": round(loss["mean"], 2), "from": round(loss["low"], 2), "to": round(loss["high"], 2)}


if __name__ == "__main__":
    main()
