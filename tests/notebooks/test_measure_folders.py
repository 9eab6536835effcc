"""What a context is worth, measured on two tiny folders: which context is whose, and what is compared with what."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from cderetrieval import load
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.models.statistics import StatisticsConfig, StatisticsModel
from cderetrieval.testing import tiny_dense_directory

ROOT = Path(__file__).parents[2]


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("measure_folders", ROOT / "notebooks" / "measure_folders.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def model():
    return StatisticsModel(load(tiny_dense_directory()), StatisticsConfig(context_size=3))


def folder(name, words):
    documents = [{"id": f"d{i}", "title": "", "text": f"{word} in the {name}"} for i, word in enumerate(words)]
    queries = {f"q{i}": word for i, word in enumerate(words)}
    return make_dataset(name, documents, queries, {f"q{i}": {f"d{i}": 1} for i in range(len(words))})


@pytest.fixture
def datasets():
    return [folder("garden", ["owls", "bees", "trees", "roses"]), folder("office", ["desks", "pens", "chairs"])]


def test_every_folder_is_asked_in_every_context(measure, model, datasets):
    made = {name: list(rows) for name, rows in measure.contexts(model, datasets).items()}
    pairs = [(row["context"], row["folder"]) for row in made["folder_contexts"] if row["seed"] == 0]
    contexts = ["garden", "office", measure.NEUTRAL, measure.NULL]
    assert pairs == [(context, name) for context in contexts for name in ("garden", "office")]
    gains = {(row["folder"], row["against"]): row for row in made["folder_gains"]}
    scores = {}
    for row in made["folder_contexts"]:
        scores.setdefault((row["context"], row["folder"]), []).append(row["ndcg@10"])
    own, other = np.mean(scores["garden", "garden"]), np.mean(scores["office", "garden"])
    assert gains["garden", measure.OTHERS]["gain"] == pytest.approx(100 * (own - other))
    for row in gains.values():
        assert row["low"] <= row["gain"] <= row["high"]


def test_an_own_context_is_that_of_a_retriever(measure, model, datasets):
    from folders import own_context

    from cderetrieval import Retriever

    retriever = Retriever(model, key="id", on=("title", "text"), seed=2).add(datasets[0].corpus)
    assert own_context(model, datasets[0], 2) == retriever.context


def test_others_are_all_but_the_own_context(measure):
    from folders import own_and_others

    found = {name: [np.array([[value + i]]) for i in range(3)] for name, value in (("a", 0), ("b", 10), ("c", 20))}
    own, others = own_and_others(found)
    assert [one.item() for one in own] == [0, 11, 22]
    assert [one.item() for one in others] == [15, 11, 7]


def test_sizes_are_those_of_own_contexts(measure, model, datasets, monkeypatch):
    monkeypatch.setattr(measure, "SIZES", (1, 64))
    rows = list(measure.sizes(model, datasets)["folder_sizes"])
    assert [(row["documents"], row["seed"]) for row in rows] == [(n, seed) for n in (1, 64) for seed in range(3)]
    assert set(rows[0]) == {"documents", "seed", "garden", "office"}
