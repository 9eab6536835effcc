"""The default model against its own base, on BEIR folders: nDCG@10 in its own, a random and the null context.

Beside it stands the training-free context alone (`context="centre"`, no terms). All systems read the same MiniLM
vectors of each text, which are therefore computed once. The interval of a mean difference is a paired bootstrap that
draws queries anew within each folder; own and random contexts are averaged over three samples.

    python benchmarks/default_model.py FOLDER [FOLDER ...] [--out results/]

The settings of the default model were chosen on held-out slices of training sets, never on these folders' test qrels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import bar, finish
from sentence_transformers import SentenceTransformer

from cderetrieval.evaluation.compare import averaged
from cderetrieval.evaluation.results import Results
from cderetrieval.evaluation.runner import evaluate
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.hub import find, load
from cderetrieval.models.statistics import StatisticsModel

BASE, CENTRE, MODEL = "all-MiniLM-L6-v2", "centre:all-MiniLM-L6-v2", "cde-minilm"
SEEDS = 3
METRIC = "ndcg@10"
DRAWS = 2_000
# What the project asks of its default model, in points of nDCG@10.
BARS = {(MODEL + "/own", BASE): 2.0, (MODEL + "/own", CENTRE + "/own"): 0.0, (MODEL + "/own", MODEL + "/random"): 1.0}


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


def scores(results: Results, system: str) -> list[np.ndarray]:
    """Of each folder, the score of each query, averaged over seeds."""
    cells = results.of(system)
    names = dict.fromkeys(cell.dataset for cell in cells)
    return [averaged([cell for cell in cells if cell.dataset == name], METRIC) for name in names]


def difference(a: list[np.ndarray], b: list[np.ndarray], draws: int = DRAWS) -> dict[str, Any]:
    """Mean over folders of b minus a, times 100, with a paired bootstrap interval and the worst folder."""
    rng = np.random.default_rng(0)
    gains = [100 * (second - first) for first, second in zip(a, b, strict=True)]
    drawn = [np.mean([gain[rng.integers(0, len(gain), len(gain))].mean() for gain in gains]) for _ in range(draws)]
    means = [float(gain.mean()) for gain in gains]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"mean": float(np.mean(means)), "low": float(low), "high": float(high), "worst": min(means)}


def main() -> None:
    """Evaluate, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="BEIR folders")
    parser.add_argument("--out", type=Path, help="keep the evaluations here")
    arguments = parser.parse_args()
    base = Remembering(BASE)
    model, plain = load(MODEL, device="cpu"), load(CENTRE, device="cpu")
    assert isinstance(model, StatisticsModel)
    assert isinstance(plain, StatisticsModel)
    systems = {BASE: base, CENTRE: StatisticsModel(base, plain.config), MODEL: StatisticsModel(base, model.config)}
    folders = [str(folder) for folder in arguments.folders]
    results = evaluate(systems, folders, context=["own", "random", "null"], seeds=SEEDS, out=arguments.out)
    found = {system: scores(results, system) for system in results.systems}
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
        gain = difference(values, own)
        compared.append({"own context against": system, **{key: round(value, 2) for key, value in gain.items()}})
        limit = next((v for (_, b), v in BARS.items() if system in (b, b + "/none")), None)
        if limit is not None:
            bars.append(bar(f"mean gain over {system}", round(gain["mean"], 2), limit))
            bars.append(bar(f"lower end of its interval, {system}", round(gain["low"], 2), 0.0))
        if system.startswith(BASE):
            bars.append(bar("worst folder against the base", round(gain["worst"], 2), -1.0))
    settings = {"metric": METRIC, "seeds": SEEDS, "config": vars(model.config), "folders": names}
    finish("default_model", settings=settings, rows=[*rows, *compared], bars=bars, quick=False)


if __name__ == "__main__":
    main()
