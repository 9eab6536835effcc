"""Ids as people have them: with white space, as numbers and as text, and queries that nobody judged."""

import logging

import pytest

from cderetrieval import Results, evaluate
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.errors import InputError
from cderetrieval.evaluation.beir_model import BeirModel, BeirSearch
from cderetrieval.evaluation.metrics import Scorer, as_run, evaluate_run
from cderetrieval.testing import tiny_model


@pytest.mark.parametrize("name", ["the owls", "a\tb", "line\nline", "\r", "a\u2028b", " x", '"q,"', "\ud800", "NA"])
def test_ids_of_any_characters_keep_all_results(name, words, tmp_path, caplog):
    documents = [{"id": name, "text": "owls hunt"}, {"id": "b", "text": "bees make honey"}]
    spaced = make_dataset("spaced", documents, {f"{name} ?": "owls"}, {f"{name} ?": {name: 1}})
    for _ in range(2):  # again: it is finished
        assert evaluate({"words": words}, spaced, out=tmp_path / "out").table()["spaced"].tolist() == [100.0]
    loaded = Results.load(tmp_path / "out")
    assert loaded.table()["spaced"].tolist() == [100.0]
    assert loaded.cells[0].scores.query_ids == (f"{name} ?",)
    assert not list((tmp_path / "out").rglob("*.run.txt"))
    said = [record for record in caplog.records if "TREC run is left out" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING]


def test_a_model_name_with_white_space_gives_a_run_of_six_columns(toy, words, tmp_path):
    evaluate({"my model": words}, toy, out=tmp_path / "out")
    [run] = (tmp_path / "out").rglob("*.run.txt")
    assert len(as_run(run)) == len(toy.queries)


def test_ids_that_are_one_as_text_are_refused_by_the_adapters():
    corpus = {1: {"title": "", "text": "owls"}, "1": {"title": "", "text": "bees"}}
    with pytest.raises(InputError, match="'1'"):
        BeirSearch(tiny_model()).search(corpus, {"q": "bees"}, top_k=2)
    with pytest.raises(InputError, match="'1'"):
        BeirSearch(tiny_model()).search({"a": corpus[1]}, {1: "bees", "1": "owls"}, top_k=2)
    with pytest.raises(InputError, match="'1'"):
        BeirModel(tiny_model(), corpus)


def test_ids_of_beirs_adapter_are_text():
    corpus = {1: {"title": "", "text": "owls"}, 2: {"title": "", "text": "bees"}}
    assert list(BeirSearch(tiny_model()).search(corpus, {7: "bees"}, top_k=1)["7"]) == ["2"]


def test_only_judged_queries_count_by_every_way(words):
    qrels, run = {"q1": {"d1": 1}, "q2": {}, "q3": {"d1": 0}, "q4": {"d2": 1}}, {"q1": {"d1": 1.0}, "q2": {"d1": 1.0}}
    scores = evaluate_run(qrels, run)
    scorer = Scorer(qrels)
    list(scorer.watch([run]))
    assert scores.query_ids == scorer.scores().query_ids == ("q1", "q3", "q4")
    assert scores.mean()["ndcg@10"] == scorer.scores().mean()["ndcg@10"] == pytest.approx(1 / 3)
    documents = [{"id": "d1", "text": "owls"}, {"id": "d2", "text": "bees"}]
    toy = make_dataset(
        "toy", documents, {"q1": "owls", "q2": "bees", "q4": "bees"}, {"q1": {"d1": 1}, "q2": {}, "q4": {"d2": 1}}
    )
    [cell] = evaluate({"words": words}, toy).cells
    assert cell.scores.query_ids == ("q1", "q4")
    with pytest.raises(InputError, match="no judgements"):
        evaluate_run({"q2": {}}, run)
