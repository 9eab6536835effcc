import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cderetrieval.cli import main
from cderetrieval.corpora.beir_folder import write_beir
from cderetrieval.testing import tiny_model_directory


@pytest.fixture
def tiny(monkeypatch):
    return ["eval", "--context-size", "4", "--context", "own", "null", "--model", tiny_model_directory()]


def test_folders_results_comparison_and_plot(tiny, toy_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main([*tiny, "--data", f"first={toy_folder}", f"second={toy_folder}", "--out", str(out), "--seeds", "2"]) == 0
    )
    printed = capsys.readouterr().out
    assert "ndcg@10 x 100" in printed
    assert "first" in printed
    assert "6 evaluations in" in printed
    model = tiny[-1].rpartition("/")[2]
    assert main(["eval", "--out", str(out), "--compare", f"{model}/null", f"{model}/own"]) == 0
    printed = capsys.readouterr().out
    assert "win/tie/loss" in printed
    assert f"b = {model}/own" in printed
    frame = out / f"compare-{model}-null-vs-{model}-own.csv"
    assert frame.read_text().count("\n") == 3
    assert frame.with_suffix(".png").stat().st_size > 10_000
    arguments = json.loads((out / "manifest.json").read_text())["runs"][0]["arguments"]
    assert arguments["seeds"] == "2"


def test_questions_are_answered(tiny, toy_folder, tmp_path, capsys):
    arguments = [*tiny, "--data", str(toy_folder), "--ask", "owl number 3", "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second time there is nothing to evaluate, and the index is built for the questions
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        assert "toy: owl number 3\n" in printed
        assert printed.count("number") > 3


def test_truncated(tiny, toy_folder, capsys, monkeypatch, words):
    from cderetrieval.evaluation import api

    entrants = api.entrants
    monkeypatch.setattr(
        api,
        "entrants",
        lambda model, *rest: entrants({"words": words} if model == "all-MiniLM-L6-v2" else model, *rest),
    )
    assert main([*tiny, "--data", str(toy_folder), "--truncated", "--depth", "7"]) == 0
    assert "toy@7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "SciFct"], "no task is called 'SciFct'; the nearest are SciFact"),
        (["--benchmark", "MTEB(eng, v7)"], "no benchmark is called 'MTEB(eng, v7)'; the nearest are MTEB(eng"),
        (["--tasks", "CIFAR10Clustering"], "is a task of image; models here read text"),
        (["--tasks", "STSBenchmark"], "it must be in the Hugging Face cache"),
        (
            ["--tasks", "SciFact"],
            "put corpus.jsonl, queries.jsonl and qrels/test.tsv into a folder and pass --data SciFact=",
        ),
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--data", "TOY", "--split", "dev"], "has no split 'dev'; it has test"),
        (["--data", "SciFact=TOY", "--split", "train"], "has no split 'train'"),
        (["--data", "TOY", "--ask", "x", "--ask-in", "numpy"], "'numpy' is not evaluated here; choose one of toy"),
        (["--data", "TOY", "--context", "onw"], "neither 'own', 'random', 'null' nor a file"),
        (["--data", "TOY", "--context-size", "0"], "must be at least 1"),
        (["--data", "TOY", "--seeds", "0"], "--seeds 0 must be at least 1"),
        (["--data", "TOY", "--compare", "a", "b"], "no system is called 'a'"),
        (["--out", "nowhere", "--compare", "a", "b"], "holds no results"),
        (["--data", "TOY", "--model", "./nowhere"], "there is no directory './nowhere'"),
    ],
)
def test_bad_input_is_named(tiny, toy_folder, capsys, arguments, message):
    pytest.importorskip("mteb")
    given = [argument.replace("TOY", str(toy_folder)) for argument in arguments]
    assert main([*tiny, *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_qrels_that_match_no_document(tiny, make_toy, tmp_path, capsys):
    folder = write_beir(make_toy(), tmp_path / "toy")
    lines = (folder / "qrels" / "test.tsv").read_text().splitlines()
    (folder / "qrels" / "test.tsv").write_text(
        "\n".join([lines[0], *(line.replace("\td", "\tx") for line in lines[1:])])
    )
    assert main([*tiny, "--data", str(folder)]) == 2
    assert "unknown documents" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_killed_resumes(make_toy, tmp_path, capsys):
    folders = [str(write_beir(make_toy(seed=i, n_documents=400), tmp_path / f"part{i}")) for i in range(4)]
    out = tmp_path / "out"
    arguments = ["eval", "--model", tiny_model_directory(), "--context", "own", "--context-size", "4"]
    arguments += ["--data", *folders, "--out", str(out)]
    environment = {**os.environ, "CDE_PROGRESS": "0"}
    process = subprocess.Popen([sys.executable, "-m", "cderetrieval", *arguments], env=environment)
    deadline = time.monotonic() + 120
    while not (first := list(out.rglob("part0.test.json"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.test.json")}
    assert len(before) < 4
    assert main(arguments) == 0
    assert "4 evaluations in" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(out.rglob("*.test.json"))) == 4
