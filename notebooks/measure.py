"""What the ablations measure without training: on the data, and on a model of the sweeps.

python notebooks/measure.py difficulty small     how hard batches are, by cluster size, batch size and packing
python notebooks/measure.py contexts small       nDCG@10 of each domain's queries in the context of each domain
python notebooks/measure.py sizes small          nDCG@10 by the number of context documents at test time
python notebooks/measure.py points small         one document in many contexts: its first two principal components
python notebooks/measure.py centre small         all-MiniLM-L6-v2 under corpus statistics: strength and sample size

`small` is what prepare.py and sweeps.sh made; each writes notebooks/data/<name>.csv. Everything is seeded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DATA = Path(__file__).parent / "data"
TRAINED = "runs/table1/contextual-contextual-seed=0/model"
CLUSTER_SIZES = (16, 64, 256, 1024)
BATCH_SIZES = (16, 32, 64, 128, 256)
SAMPLE_SIZES = (1, 4, 16, 64, 256)
SEEDS = range(3)
# Contexts of each domain that the document is seen in, and their size.
CONTEXTS, CONTEXT_SIZE = 12, 16
Rows = Iterator[dict[str, Any]]

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def main() -> None:
    """Write one CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {f.__name__: f for f in (difficulty, contexts, sizes, points, centre)}
    parser.add_argument("measure", choices=measures)
    parser.add_argument("small", type=Path)
    arguments = parser.parse_args()
    rows = list(measures[arguments.measure](arguments.small))
    pd.DataFrame(rows).round(5).to_csv(DATA / f"{arguments.measure}.csv", index=False)


def difficulty(small: Path) -> Rows:
    """Mean similarities by the surrogate in the batches of one epoch."""
    from cderetrieval.training import clusters
    from cderetrieval.training.prepare import batch_sampler, prepare
    from cderetrieval.training.recipes import load_recipe

    recipe = load_recipe(Path(__file__).parent / "small.json").replace(data=[str(small / "pairs")])
    for size in (*CLUSTER_SIZES, None):
        # Without clusters the vectors are still read where the filter is stored.
        chosen = recipe.replace(clusters=size is not None, cluster_size=size or 1)
        prepared = prepare(chosen, small / "cache")
        for batch_size in BATCH_SIZES:
            for packing in ("tour", "random") if size else ("random",):
                sampler = batch_sampler(chosen.replace(batch_size=batch_size, packing=packing), prepared, 1)
                assert prepared.vectors is not None
                measured = clusters.difficulty(prepared.vectors, list(sampler.plan(0)))
                yield {"cluster_size": size or 0, "batch_size": batch_size, "packing": packing, **measured}


def folders(small: Path) -> list[Any]:
    """The development folders."""
    from cderetrieval.corpora.beir_folder import read_beir

    return [read_beir(str(folder), "dev") for folder in sorted((small / "dev").iterdir())]


def ndcg(model: Any, dataset: Any, context: Any, **settings: Any) -> float:
    """nDCG@10 of a model in a context."""
    from cderetrieval.evaluation.runner import evaluate_retrieval

    evaluation = evaluate_retrieval(model, dataset, context=context, show_progress=False, **settings)
    return evaluation.scores.mean()["ndcg@10"]


def texts(dataset: Any) -> list[str]:
    """All documents of a folder."""
    return [document["text"] for document in dataset.corpus]


def contexts(small: Path) -> Rows:
    """Each domain's corpus and queries in the context of each domain's documents."""
    from cderetrieval import load

    model, datasets = load(small / TRAINED), folders(small)
    for source in datasets:
        for asked in datasets:
            yield {"context": source.name, "domain": asked.name, "ndcg@10": ndcg(model, asked, texts(source))}


def sizes(small: Path) -> Rows:
    """A model that was trained with one J, in own contexts of others."""
    from cderetrieval import load

    model, datasets = load(small / TRAINED), folders(small)
    for size in SAMPLE_SIZES:
        for seed in SEEDS:
            scores = {dataset.name: ndcg(model, dataset, "own", context_size=size, seed=seed) for dataset in datasets}
            yield {"documents": size, "seed": seed, **scores}


def points(small: Path) -> Rows:
    """One document of the first domain, embedded in many samples of every domain."""
    from cderetrieval import Context, load

    model, datasets = load(small / TRAINED), folders(small)
    document = texts(datasets[0])[0]
    vectors, domains = [], []
    for dataset in datasets:
        for seed in range(CONTEXTS):
            context = Context.from_texts(model, texts(dataset)[1:], seed=seed, size=CONTEXT_SIZE)
            vectors.append(context.encoder(model).encode_document([document])[0])
            domains.append(dataset.name)
    centred = np.array(vectors) - np.mean(vectors, axis=0)
    _, scales, directions = np.linalg.svd(centred, full_matrices=False)
    shares = scales**2 / (scales**2).sum()
    similarity = np.array(vectors) @ np.mean(vectors, axis=0) / np.linalg.norm(np.mean(vectors, axis=0))
    for domain, (x, y), cosine in zip(domains, centred @ directions[:2].T, similarity, strict=True):
        yield {"context": domain, "x": x, "y": y, "x_share": shares[0], "y_share": shares[1], "cosine_to_mean": cosine}


def centre(small: Path) -> Rows:
    """Statistics of a corpus, with nothing trained: the share of the mean that is subtracted, and the sample's size."""
    from folders import Remembering

    from cderetrieval.models.statistics import StatisticsConfig, StatisticsModel

    encoder = Remembering("all-MiniLM-L6-v2")
    datasets = folders(small)
    plain = {dataset.name: ndcg(encoder, dataset, "own") for dataset in datasets}
    yield {"centre": 0.0, "contrast": 0.0, "documents": 0, "seed": 0, **plain}
    strengths = [(share, 0.0, 256) for share in (0.25, 0.5, 0.75, 1.0)] + [(0.5, 0.3, 256)]
    samples = [(0.5, 0.0, size) for size in (4, 16, 64)]
    for share, contrast, size in strengths + samples:
        model = StatisticsModel(encoder, StatisticsConfig(centre=share, contrast=contrast, context_size=size))
        for seed in SEEDS:
            scores = {dataset.name: ndcg(model, dataset, "own", seed=seed) for dataset in datasets}
            yield {"centre": share, "contrast": contrast, "documents": size, "seed": seed, **scores}


if __name__ == "__main__":
    main()
