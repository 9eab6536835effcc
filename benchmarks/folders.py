"""What benchmarks on BEIR folders share: vectors that are computed once, scores of each query, paired intervals.

Many systems are asked the same queries. `Models` gives them encoders that embed each text once; `by_context` scores a
contextual model on each folder in samples of each folder's documents; `difference` compares two systems by a paired
bootstrap that draws queries anew within each folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from cderetrieval.context.context import Context
from cderetrieval.context.spec import ContextLike, ContextSpec
from cderetrieval.corpora.beir_folder import read_beir
from cderetrieval.corpora.dataset import Dataset
from cderetrieval.evaluation.metrics import Scorer
from cderetrieval.evaluation.search import index_corpus, search_blocks, texts_of
from cderetrieval.evaluation.variants import as_variant
from cderetrieval.files import read_json, read_tensors, write_json, write_tensors
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.load import load
from cderetrieval.models.locate import find
from cderetrieval.models.statistics import StatisticsModel

METRIC = "ndcg@10"
DEPTH = 100
DRAWS = 2_000


class Remembering(DenseEncoder):
    """An encoder that embeds each text once."""

    def __init__(self, model: str | SentenceTransformer) -> None:
        super().__init__(str(find(model)) if isinstance(model, str) else model, device="cpu")
        self.known: dict[tuple[str, str], np.ndarray] = {}

    def encode(self, texts: Sequence[str], *, prompt_name: str, show_progress: bool = False) -> np.ndarray:
        """Vectors of texts, those of new ones computed."""
        prompt = self.prompt(prompt_name)
        new = list(dict.fromkeys(text for text in texts if (prompt, text) not in self.known))
        vectors = super().encode(new, prompt_name=prompt_name, show_progress=show_progress)
        self.known.update(((prompt, text), vector) for text, vector in zip(new, vectors, strict=True))
        return np.array([self.known[prompt, text] for text in texts], dtype=np.float32).reshape(len(texts), -1)


class Models:
    """Models by name; those that embed share what they have embedded, and keep it in a directory."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._encoders: dict[str, Remembering] = {}

    def __call__(self, name: str) -> Any:
        """A model whose dense encoder remembers."""
        model = load(name, device="cpu")
        if isinstance(model, StatisticsModel):
            return StatisticsModel(self._remembering(model.encoder), model.config)
        return self._remembering(model) if isinstance(model, DenseEncoder) else model

    def _remembering(self, encoder: DenseEncoder) -> Remembering:
        key = encoder.fingerprint[:16]
        if key not in self._encoders:
            self._encoders[key] = new = Remembering(encoder.model)
            if self._cache is not None and (self._cache / f"{key}.json").exists():
                vectors, _ = read_tensors(self._cache / f"{key}.safetensors")
                keys = read_json(self._cache / f"{key}.json", list)
                new.known = dict(zip(map(tuple, keys), vectors["vectors"], strict=True))
        return self._encoders[key]

    def keep(self) -> None:
        """Write what was embedded."""
        for key, encoder in self._encoders.items():
            if self._cache is not None and encoder.known:
                vectors = np.array(list(encoder.known.values()))
                write_tensors(self._cache / f"{key}.safetensors", {"vectors": vectors})
                write_json(self._cache / f"{key}.json", list(encoder.known))


def read_folder(folder: str | Path, split: str = "test") -> Dataset:
    """A BEIR folder; judged documents that it does not hold are left out."""
    return read_beir(folder, split, missing="skip")


def query_scores(retriever: Any, dataset: Dataset) -> np.ndarray:
    """The metric of each query."""
    scorer = Scorer(dataset.qrels)
    for _ in scorer.watch(search_blocks(retriever, dataset.queries, DEPTH)):
        pass
    return scorer.scores()[METRIC]


def in_context(model: Any, dataset: Dataset, context: ContextLike) -> np.ndarray:
    """The metric of each query of a model in a context."""
    with index_corpus(model, as_variant(model, context), dataset.corpus) as retriever:
        return query_scores(retriever, dataset)


def own_context(model: Any, dataset: Dataset, seed: int, size: int | None = None) -> Context:
    """A sample of a folder's documents, that which a Retriever draws."""
    return ContextSpec.parse("own").make(model, texts_of(dataset.corpus), seed=seed, size=size)


def by_context(model: Any, datasets: Sequence[Dataset], seeds: Sequence[int]) -> dict[str, list[np.ndarray]]:
    """Of each folder's contexts, on each folder, the metric of each seed and query: arrays (seeds, queries)."""
    found = {}
    for source in datasets:
        contexts = [own_context(model, source, seed) for seed in seeds]
        found[source.name] = [np.array([in_context(model, asked, one) for one in contexts]) for asked in datasets]
    return found


def own_and_others(found: dict[str, list[np.ndarray]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each folder, the metric of each query in own contexts, and on average in those of the other folders."""
    own = [values[i].mean(axis=0) for i, values in enumerate(found.values())]
    others = [
        np.mean([values[i].mean(axis=0) for j, values in enumerate(found.values()) if j != i], axis=0)
        for i in range(len(found))
    ]
    return own, others


def difference(a: list[np.ndarray], b: list[np.ndarray], draws: int = DRAWS) -> dict[str, Any]:
    """Mean over folders of b minus a, times 100, with a paired bootstrap interval and the worst folder."""
    rng = np.random.default_rng(0)
    gains = [100 * (second - first) for first, second in zip(a, b, strict=True)]
    drawn = [np.mean([gain[rng.integers(0, len(gain), len(gain))].mean() for gain in gains]) for _ in range(draws)]
    means = [float(gain.mean()) for gain in gains]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"mean": float(np.mean(means)), "low": float(low), "high": float(high), "worst": min(means)}
