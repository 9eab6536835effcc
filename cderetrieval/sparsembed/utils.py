"""Batches of triples, BEIR data sets, and the evaluation of a retriever, with the arguments of sparsembed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..corpora.beir_folder import read_beir
from ..errors import InputError, needs
from ..evaluation.metrics import evaluate_run
from ..files import as_path
from ..runtime import progress

if TYPE_CHECKING:
    from .retrieve import SpladeRetriever

T = TypeVar("T")

# Where data sets are looked for and downloaded to, below the working directory.
FOLDER = Path("evaluation_datasets")
URL = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/{}.zip"
DEFAULT_METRICS = ("ndcg@10", "hits@1", "hits@2", "hits@3", "hits@4", "hits@5", "hits@10")
# Metric to the one it is computed from, and to what is done with that.
_SAME = {"ndcg": "ndcg", "map": "map", "recall": "recall", "mrr": "mrr", "precision": "p", "hits": "p", "hit_rate": "p"}


def iter(
    X: Sequence[tuple[str, str, str]], epochs: int, batch_size: int, shuffle: bool = True
) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Batches of triples, epoch after epoch.

    >>> list(iter([("owl", "bird", "car"), ("bee", "insect", "house")], epochs=1, batch_size=3, shuffle=False))
    [(['owl', 'bee'], ['bird', 'insect'], ['car', 'house'])]
    """
    for _ in range(epochs):
        triples = random.sample(X, len(X)) if shuffle else list(X)
        for batch in batchify(triples, batch_size):
            anchors, positives, negatives = zip(*batch, strict=True)
            yield list(anchors), list(positives), list(negatives)


def batchify(X: Sequence[T], batch_size: int, desc: str = "", tqdm_bar: bool = True) -> Iterator[list[T]]:
    """Cut a sequence into batches.

    >>> list(batchify([1, 2, 3], batch_size=2))
    [[1, 2], [3]]
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size!r} must be at least 1.")
    starts = range(0, len(X), batch_size)
    for start in progress(starts, desc, show=tqdm_bar):
        yield list(X[start : start + batch_size])


def load_beir(
    dataset_name: str, split: str = "test"
) -> tuple[list[dict[str, str]], dict[str, str], dict[str, dict[str, int]]]:
    """Documents, queries and qrels of a BEIR folder, or of a data set by name, downloaded where it is not there."""
    folders = [as_path(dataset_name), FOLDER / dataset_name]
    folder = next((folder for folder in folders if (folder / "qrels").is_dir()), None)
    dataset = read_beir(folder or _download(dataset_name), split, missing="skip")
    return list(dataset.corpus), dataset.queries, dataset.qrels


def _download(name: str) -> Path:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"{name!r} is neither a folder with qrels nor the name of a BEIR data set.")
    with needs("beir", "eval"):
        from beir.util import download_and_unzip
    try:
        return Path(download_and_unzip(URL.format(name), str(FOLDER)))
    except Exception as error:
        raise InputError(
            f"there is no folder {FOLDER / name}, and {URL.format(name)} was not downloaded ({error}). Check the name "
            f"and the network, or unpack the archive into {FOLDER}."
        ) from error


def evaluate(
    retriever: SpladeRetriever,
    batch_size: int,
    qrels: Mapping[str, Mapping[str, int]],
    queries: Mapping[str, str],
    k: int = 100,
    k_tokens: int = 96,
    metrics: Sequence[str] = (),
) -> dict[str, float]:
    """Mean of each metric over the queries: ndcg, map, recall, mrr, precision, hits or hit_rate, each also ``@cut``."""
    wanted = list(dict.fromkeys(metrics)) or list(DEFAULT_METRICS)
    parsed = [_parse(metric, k) for metric in wanted]
    answers = retriever(q=list(queries.values()), k=k, batch_size=batch_size, k_tokens=k_tokens)
    run = {
        query: {str(hit[retriever.key]): 1 - rank / k for rank, hit in enumerate(hits)}
        for query, hits in zip(queries, answers, strict=True)
    }
    scores = evaluate_run(qrels, run, k_values=sorted({cut for _, cut in parsed}))
    return {metric: _mean(scores, name, cut) for metric, (name, cut) in zip(wanted, parsed, strict=True)}


def _parse(metric: str, k: int) -> tuple[str, int]:
    name, _, cut = metric.lower().partition("@")
    if name not in _SAME or (cut and not (cut.isdecimal() and int(cut) >= 1)):
        raise InputError(f"metric {metric!r} is unknown; use {', '.join(_SAME)}, each also with a cut-off: ndcg@10.")
    return name, int(cut or k)


def _mean(scores: Any, name: str, cut: int) -> float:
    values = scores[f"{_SAME[name]}@{cut}"]
    if name in ("hits", "hit_rate"):
        values = values * cut
    return float((values.clip(max=1) if name == "hit_rate" else values).mean())
