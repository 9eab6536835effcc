"""What is no longer held gives its files and its lock back at once, without a garbage collection."""

import gc

import pytest

from cderetrieval import Hybrid, Retriever
from cderetrieval.errors import InputError
from cderetrieval.testing import HashEncoder, WordEncoder


@pytest.fixture(autouse=True)
def no_collection():
    gc.disable()
    yield
    gc.enable()


def add_and_forget(path):
    retriever = Retriever(HashEncoder(), path=path)
    retriever.add(["owls"])
    assert retriever("owls", k=1)[0][0]["id"] == 0


def fail_and_forget(path):
    with pytest.raises(InputError):
        Retriever(HashEncoder(), path=path).add([""])


def test_a_retriever(tmp_path):
    fail_and_forget(tmp_path)
    add_and_forget(tmp_path)
    with Retriever.load(tmp_path, model=HashEncoder()) as retriever:
        retriever.add(["bees"])


def test_a_hybrid(tmp_path):
    models = {"hash": HashEncoder(), "words": WordEncoder()}
    Hybrid(models, path=tmp_path).add(["owls"])
    with Hybrid.load(tmp_path, models=models) as hybrid:
        hybrid.add(["bees"])
