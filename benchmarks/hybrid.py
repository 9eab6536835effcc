"""Hybrid search against its own parts: nDCG@10 of each part and of their fusions, on BEIR folders.

Three fusions: reciprocal ranks and normalised scores with equal weights, which nobody has tuned, and normalised scores
with one set of weights for all folders, tuned on development data alone: the weights whose nDCG@10 is the best on
average over the `--dev` folders and over slices of the `--pairs` files (2,500 documents, 300 queries of each), of which
none is a test set. All systems of a folder answer from one index. The interval of a mean difference is a paired
bootstrap that draws queries anew within each folder.

    python benchmarks/hybrid.py FOLDER [FOLDER ...] [--dev FOLDER:SPLIT ...] [--pairs FILE ...] [--hybrid A+B ...]

With `--cache DIR`, vectors of texts are kept there between runs. `--quick`: 200 documents and 50 queries of each.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import bar, finish
from folders import METRIC, Models, difference, query_scores, read_folder

from cderetrieval.corpora.dataset import Dataset, make_dataset
from cderetrieval.corpora.jsonl import read_jsonl
from cderetrieval.evaluation.search import index_corpus
from cderetrieval.evaluation.variants import as_variant
from cderetrieval.retrieval.fusion import Fusion
from cderetrieval.retrieval.names import HybridModel, hybrid_parts
from cderetrieval.retrieval.retriever import Retriever

K = 10
SLICE_DOCUMENTS, SLICE_QUERIES = 2_500, 300
QUICK_DOCUMENTS, QUICK_QUERIES = 200, 50
FUSIONS = {"rrf": Fusion(), "weighted": Fusion("weighted")}
TUNED = "weighted, tuned"


def slice_of_pairs(path: Path, seed: int = 0) -> Dataset:
    """A retrieval task from pairs of query and document: the query of a document must find it among the others."""
    rows = [row for _, row in read_jsonl(path)]
    random.Random(seed).shuffle(rows)
    texts = dict.fromkeys(row["document"] for row in rows)
    ids = {text: f"d{number}" for number, text in enumerate(islice(texts, SLICE_DOCUMENTS))}
    asked = list(islice((row for row in rows if row["document"] in ids), SLICE_QUERIES))
    documents = [{"id": identity, "text": text} for text, identity in ids.items()]
    queries = {f"q{number}": row["query"] for number, row in enumerate(asked)}
    qrels = {f"q{number}": {ids[row["document"]]: 1} for number, row in enumerate(asked)}
    return make_dataset(path.name.partition(".")[0], documents, queries, qrels)


def folder(argument: str, default: str) -> Dataset:
    """Read ``FOLDER`` or ``FOLDER:SPLIT``."""
    path, _, split = argument.rpartition(":") if not Path(argument).is_dir() else (argument, "", default)
    return read_folder(path, split)


def shortened(dataset: Dataset) -> Dataset:
    """A few documents and queries of a dataset, to see that all of this runs."""
    queries = dict(islice(dataset.queries.items(), QUICK_QUERIES))
    wanted = {document for query in queries for document in dataset.qrels[query]}
    first = [row for row in dataset.corpus if row["id"] in wanted]
    rest = islice((row for row in dataset.corpus if row["id"] not in wanted), QUICK_DOCUMENTS)
    return make_dataset(dataset.name, [*first, *rest], queries, {query: dataset.qrels[query] for query in queries})


def indexed(model: HybridModel, dataset: Dataset) -> Retriever:
    """A hybrid that holds the documents of a dataset, contextual parts in their own context."""
    variant = as_variant(model, "own")
    return index_corpus(model, variant, dataset.corpus)


def tune(model: HybridModel, datasets: Sequence[Dataset]) -> tuple[tuple[float, ...], list[dict[str, Any]]]:
    """The weights that are the best on average over development sets, and what each of these says."""
    rows, grids, found = [], [], np.empty((0, 0))
    for dataset in datasets:
        with indexed(model, dataset) as hybrid:
            hybrid.fusion = FUSIONS["weighted"]
            tuned = hybrid.tune(dataset.queries, dataset.qrels, K)
        found = tuned.grid
        grids.append(tuned.scores)
        alone = {name: round(100 * score, 2) for name, score in tuned.parts.items()}
        best = " ".join(f"{weight:.2f}" for weight in tuned.weights.values())
        equal, score = round(100 * tuned.untuned, 2), round(100 * tuned.score, 2)
        rows.append({"development set": dataset.name, **alone, "equal weights": equal, "best": score, "weights": best})
    mean = np.mean(grids, axis=0)
    # Of equal means the most even weights.
    best = int(np.lexsort((np.abs(found - found.mean(axis=1, keepdims=True)).sum(axis=1), -np.round(mean, 6)))[0])
    return tuple(found[best].tolist()), rows


def compare(name: str, model: HybridModel, tests: Sequence[Dataset], development: Sequence[Dataset]) -> dict[str, Any]:
    """Rows and bars of one hybrid."""
    fusions, dev_rows = dict(FUSIONS), []
    if development:
        weights, dev_rows = tune(model, development)
        fusions[TUNED] = Fusion("weighted", weights)
    found: dict[str, list[np.ndarray]] = {system: [] for system in (*model.parts, *fusions)}
    for dataset in tests:
        with indexed(model, dataset) as hybrid:
            for part, retriever in hybrid.parts.items():
                found[part].append(query_scores(retriever, dataset))
            for system, fusion in fusions.items():
                hybrid.fusion = fusion
                found[system].append(query_scores(hybrid, dataset))
    rows = []
    for i, dataset in enumerate(tests):
        means = {system: round(100 * float(values[i].mean()), 2) for system, values in found.items()}
        best = max(means[part] for part in model.parts)
        gains = {f"{system} gain": round(means[system] - best, 2) for system in fusions}
        rows.append({"hybrid": name, "folder": dataset.name, **means, **gains})
    compared, bars = [], []
    for system in fusions:
        for part in model.parts:
            gain = difference(found[part], found[system])
            compared.append(
                {"hybrid": name, "system": system, "against": part, **{k: round(v, 2) for k, v in gain.items()}}
            )
        better = sum(row[f"{system} gain"] > 0 for row in rows)
        bars.append(bar(f"{name}, {system}: folders of {len(rows)} above its best part", better, len(rows) // 2 + 1))
    kept = {"weights": dict(zip(model.parts, fusions[TUNED].weights or (), strict=True)) if development else None}
    return {"rows": [*dev_rows, *rows, *compared], "bars": bars, "settings": kept}


def main() -> None:
    """Tune, evaluate, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="BEIR folders, FOLDER or FOLDER:SPLIT")
    parser.add_argument("--dev", nargs="+", default=[], metavar="FOLDER:SPLIT", help="development folders")
    parser.add_argument("--pairs", nargs="+", default=[], type=Path, metavar="FILE", help="JSONL of query and document")
    parser.add_argument("--hybrid", nargs="+", default=["all-MiniLM-L6-v2+bm25"], metavar="A+B", help="which hybrids")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep vectors of texts here")
    parser.add_argument("--quick", action="store_true", help="a few documents and queries, no JSON: does it run?")
    arguments = parser.parse_args()

    def read() -> Iterator[list[Dataset]]:
        yield [folder(path, "test") for path in arguments.folders]
        yield [*(folder(path, "dev") for path in arguments.dev), *map(slice_of_pairs, arguments.pairs)]

    tests, development = ([shortened(one) for one in some] if arguments.quick else some for some in read())
    models, rows, bars, settings = Models(arguments.cache), [], [], {}
    for name in arguments.hybrid:
        parts, _ = hybrid_parts(f"hybrid:{name}")
        model = HybridModel({part: models(given) for part, given in parts.items()})
        one = compare(name, model, tests, development)
        models.keep()
        rows, bars = [*rows, *one["rows"]], [*bars, *one["bars"]]
        settings[name] = {**one["settings"], "fingerprint": model.fingerprint[:16]}
    sets = {"folders": [one.name for one in tests], "development": [one.name for one in development]}
    settings |= {"metric": METRIC, "rrf_k": Fusion.rrf_k, "depth": Fusion.depth, **sets}
    finish("hybrid", settings=settings, rows=rows, bars=bars, quick=arguments.quick)


if __name__ == "__main__":
    main()
