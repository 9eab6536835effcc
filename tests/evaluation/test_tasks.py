import gzip
import json
import logging

import pytest

mteb = pytest.importorskip("mteb")

from cderetrieval.corpora.beir_folder import write_beir  # noqa: E402
from cderetrieval.errors import InputError  # noqa: E402
from cderetrieval.evaluation import evaluate  # noqa: E402
from cderetrieval.evaluation.tasks import (  # noqa: E402
    GroupedDataset,
    TaskSubject,
    benchmark_tasks,
    folder_subjects,
    task_for,
    tasks_named,
)


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        ("scifact", "SciFact"),
        ("nfcorpus", "NFCorpus"),
        ("feedbackqa", "FeedbackQARetrieval"),
        ("trec-covid", "TRECCOVID"),
        ("quora", "QuoraRetrieval"),
        ("cqadupstack-android", "CQADupstackAndroidRetrieval"),
        ("nfcorpus-preprocessed", None),
        ("mydata", None),
    ],
)
def test_folder_names_that_are_tasks(folder, task):
    found = task_for(folder)
    assert (found.metadata.name if found else None) == task


def test_names_benchmarks_and_aggregates():
    assert tasks_named(["scifact"])[0].name == "SciFact"
    assert tasks_named(["STSBenchmark"])[0].name == "STSBenchmark"
    forums = tasks_named(["CQADupstackRetrieval"])
    assert len(forums) == 12
    assert {subject.group for subject in forums} == {"CQADupstackRetrieval"}
    assert len({subject.group or subject.name for subject in benchmark_tasks("BEIR")}) == 15
    assert len({subject.group or subject.name for subject in benchmark_tasks("MTEB(eng, v1)")}) == 56
    assert len(benchmark_tasks("MTEB")) == len(benchmark_tasks("mteb(eng, v1)"))


def test_folders_become_tasks_or_datasets(make_toy, tmp_path, caplog, words):
    subjects = folder_subjects(
        [write_beir(make_toy(), tmp_path / "scifact"), write_beir(make_toy(), tmp_path / "mine")]
    )
    assert isinstance(subjects[0], TaskSubject)
    assert isinstance(subjects[1], GroupedDataset)
    with caplog.at_level(logging.WARNING):
        results = evaluate({"m": words}, [tmp_path / "scifact", tmp_path / "mine"])
    assert "mteb counts 5483; scores are not comparable with published ones" in caplog.text
    assert [cell.column for cell in results.cells] == ["SciFact", "mine"]
    assert results.cells[0].metrics["ndcg@10"] == pytest.approx(results.cells[1].metrics["ndcg@10"])


def test_identical_ids_are_left_out_where_the_task_does(make_toy, tmp_path, words):
    from cderetrieval.corpora.dataset import make_dataset

    toy = make_toy()
    by_id = {document["id"]: document for document in toy.corpus}
    queries = {f"d{i}": by_id[f"d{i}"]["text"] for i in range(20)}
    folder = write_beir(
        make_dataset("x", toy.corpus, queries, {q: {f"d{int(q[1:]) + 12}": 1} for q in queries}), tmp_path / "x"
    )
    arguana = evaluate({"m": words}, f"ArguAna={folder}").cells[0]  # mteb leaves out hits with the query's id there
    scifact = evaluate({"m": words}, f"SciFact={folder}").cells[0]
    assert arguana.metrics["mrr@10"] > scifact.metrics["mrr@10"]
    assert arguana.metrics["main_score"] == pytest.approx(arguana.metrics["ndcg@10"], abs=1e-5)
    assert arguana.scores is not None


def test_a_task_of_several_languages_takes_no_folder(toy_folder, words):
    subject = TaskSubject(mteb.get_task("MLQARetrieval"), toy_folder)
    with pytest.raises(InputError, match=r"subsets .* another name with --data NAME=FOLDER"):
        evaluate({"m": words}, subject)


def read_rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def labelled(name, rows, columns):
    """A real mteb task with rows of a file, by their field `split`."""
    from datasets import Dataset, DatasetDict

    task = mteb.get_task(name)
    splits = {}
    for row in rows:
        splits.setdefault(row["split"].split("-")[-1].lower(), []).append({column: row[column] for column in columns})
    data = DatasetDict({split: Dataset.from_list(rows) for split, rows in splits.items()})
    return task, data


@pytest.mark.parametrize(
    ("name", "file", "columns"),
    [
        ("Banking77Classification", "banking77", ("text", "label")),
        ("AmazonCounterfactualClassification", "amazon-counterfactual-en", ("text", "label")),
        ("STSBenchmark", "stsb-en", ("sentence1", "sentence2", "score")),
    ],
)
@pytest.mark.slow
def test_real_labelled_sets_in_the_real_tasks(shared_data, words, name, file, columns):
    task, data = labelled(name, read_rows(shared_data / "tasks" / f"{file}.jsonl.gz"), columns)
    if name == "AmazonCounterfactualClassification":
        task = mteb.get_task(name, hf_subsets=["en"], eval_splits=["test"])
        task.dataset = {"en": data}
    else:
        task.dataset = data
    task.data_loaded = True
    task.n_experiments = 2  # of ten, each a classifier on other rows
    [cell] = evaluate({"words": words}, task).cells
    assert 0.3 < cell.metrics["main_score"] < 1
    assert cell.type in ("Classification", "STS")
