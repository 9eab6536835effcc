"""Batches of triples, BEIR data sets, and metrics with the conventions of ranx, which sparsembed used."""

import random

import pytest

from cderetrieval.corpora.beir_folder import write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.errors import InputError
from cderetrieval.sparsembed import utils

TRIPLES = [(f"anchor {i}", f"positive {i}", f"negative {i}") for i in range(5)]


def test_triples_in_batches():
    batches = list(utils.iter(TRIPLES, epochs=2, batch_size=2, shuffle=False))
    assert [len(anchors) for anchors, _, _ in batches] == [2, 2, 1, 2, 2, 1]
    assert batches[0] == (["anchor 0", "anchor 1"], ["positive 0", "positive 1"], ["negative 0", "negative 1"])


def test_shuffling_keeps_triples_together_and_the_list_as_it_is():
    given = list(TRIPLES)
    random.seed(1)
    seen = [row for batch in utils.iter(given, epochs=2, batch_size=2) for row in zip(*batch, strict=True)]
    assert given == TRIPLES
    assert sorted(seen[:5]) == sorted(seen[5:]) == TRIPLES
    assert seen[:5] != seen[5:]


def test_batchify():
    assert list(utils.batchify([], batch_size=3)) == []
    with pytest.raises(InputError, match="batch_size=0"):
        list(utils.batchify([1], batch_size=0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = [{"id": "d1", "title": "owls", "text": "at night"}, {"id": "d2", "text": "bees"}]
    dataset = make_dataset("animals", corpus, {"q1": "owl"}, {"q1": {"d1": 2}}, split="dev")
    return write_beir(dataset, tmp_path / "evaluation_datasets" / "animals")


def test_beir_folders_by_name_and_by_path(folder):
    by_name, by_path = utils.load_beir("animals", split="dev"), utils.load_beir(str(folder), split="dev")
    assert by_name == by_path
    documents, queries, qrels = by_name
    assert documents[0] == {"id": "d1", "title": "owls", "text": "at night"}
    assert (queries, qrels) == ({"q1": "owl"}, {"q1": {"d1": 2}})
    with pytest.raises(InputError, match="no split 'test'"):
        utils.load_beir("animals")


def test_what_is_not_there_is_downloaded_where_it_was_looked_for(folder, monkeypatch):
    pytest.importorskip("beir")
    asked = []

    def download_and_unzip(url, where):
        asked.append((url, where))
        if "nothing" in url:
            raise OSError("no network")
        return str(folder)

    monkeypatch.setattr("beir.util.download_and_unzip", download_and_unzip)
    assert utils.load_beir("scifact", split="dev")[1] == {"q1": "owl"}
    assert asked == [(utils.URL.format("scifact"), "evaluation_datasets")]
    with pytest.raises(InputError, match=r"nothing.zip was not downloaded \(no network\)"):
        utils.load_beir("nothing")
    with pytest.raises(InputError, match="neither a folder with qrels"):
        utils.load_beir("../secrets")


class Answers:
    """A retriever whose answers are given."""

    key = "name"

    def __init__(self, answers):
        self.answers = answers

    def __call__(self, q, k, batch_size, k_tokens):
        return [[{"name": name, "similarity": 1.0} for name in self.answers[text][:k]] for text in q]


def test_metrics():
    retriever = Answers({"owl": ["x", "d1", "d2"], "bee": [], "deer": ["d3", "d4"]})
    qrels = {"q1": {"d1": 1, "d2": 1}, "q2": {"d5": 1}, "q3": {"d3": 1, "d9": 0}}
    scores = utils.evaluate(
        retriever,
        batch_size=2,
        qrels=qrels,
        queries={"q1": "owl", "q2": "bee", "q3": "deer"},
        metrics=["hits@2", "hits@10", "hit_rate@10", "recall@10", "map", "mrr", "precision@1", "ndcg@1", "ndcg@1"],
    )
    assert {name: round(value, 4) for name, value in scores.items()} == {
        "hits@2": round((1 + 0 + 1) / 3, 4),
        "hits@10": round((2 + 0 + 1) / 3, 4),
        "hit_rate@10": round(2 / 3, 4),
        "recall@10": round((1 + 0 + 1) / 3, 4),
        "map": round(((1 / 2 + 2 / 3) / 2 + 0 + 1) / 3, 4),
        "mrr": round((1 / 2 + 0 + 1) / 3, 4),
        "precision@1": round(1 / 3, 4),
        "ndcg@1": round(1 / 3, 4),
    }


def test_metrics_that_nobody_asked_for_and_those_that_do_not_exist():
    retriever = Answers({"owl": ["d1"]})
    given = {"qrels": {"q1": {"d1": 1}}, "queries": {"q1": "owl"}, "batch_size": 1}
    assert set(utils.evaluate(retriever, **given)) == set(utils.DEFAULT_METRICS)
    for metric in ("f1", "ndcg@0", "ndcg@ten"):
        with pytest.raises(InputError, match=f"metric '{metric}' is unknown"):
            utils.evaluate(retriever, metrics=[metric], **given)
