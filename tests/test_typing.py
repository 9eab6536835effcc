"""Public names are typed: a type checker finds the mistakes of a user's script, and what is lazy is what it sees."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cderetrieval

ROOT = Path(cderetrieval.__file__).parent.parent
PACKAGES = ["", ".context", ".corpora", ".distributed", ".evaluation", ".models", ".retrieval", ".training"]
SCRIPT = """\
from cderetrieval import BM25, Context, DenseEncoder, Hits, Retriever, StatisticsModel, evaluate, load
from cderetrieval.corpora import read_beir
from cderetrieval.testing import HashEncoder, tiny_model

models = [load("cde-minilm"), BM25(), HashEncoder(), tiny_model(), StatisticsModel(DenseEncoder("minilm"))]
retriever = Retriever(["cde-minilm", BM25()], context=Context.null(tiny_model())).add(["owls hunt"])
hits: Hits = retriever(["owls"], k=3)
evaluate("bm25", read_beir("scifact"))
for model in models:
    Retriever(model)
"""
MISTAKES = """
Retriever("bm25", nonsense=3)
retriever.no_such_method()
retriever(["owls"], k="ten")
"""


@pytest.mark.slow
def test_a_type_checker_finds_three_mistakes_in_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + MISTAKES, encoding="utf-8")
    settings = {**os.environ, "MYPYPATH": str(ROOT)}
    # Where `make types` ran, so that what it has found out about the libraries is read from its cache.
    found = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)], capture_output=True, text=True, cwd=ROOT, env=settings
    )
    # The cache may know the same script by the path of an earlier run.
    errors = [line.partition("/script.py:")[2] for line in found.stdout.splitlines() if ": error:" in line]
    first = len(SCRIPT.splitlines()) + 2
    places = [int(line.split(":")[0] or -1) for line in errors]
    assert places == [first, first + 1, first + 2], found.stdout + found.stderr


@pytest.mark.parametrize("name", PACKAGES)
def test_what_type_checkers_see_is_what_is_imported(name):
    package = importlib.import_module(f"cderetrieval{name}")
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Retreiver'"):
        _ = package.Retreiver
