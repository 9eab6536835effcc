"""An index where nothing can be written: it is read, and what would change it says why it cannot."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from cderetrieval import Hybrid, Retriever
from cderetrieval.testing import HashEncoder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
DOCUMENTS = [{"id": i, "text": f"text number {i}"} for i in range(20)]
NOBODY = 65_534


def make(directory):
    return Retriever(HashEncoder(), on="text", path=directory).add(DOCUMENTS, show_progress=False)


def search(directory):
    with Retriever.load(directory, model=HashEncoder()) as retriever:
        return retriever(["text number 7"], k=1)[0][0]["id"]


def elsewhere(call, *arguments):
    """What a call returns, or its error, in a process that may write to no directory of ours."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            try:
                if os.getuid() == 0:
                    os.setgroups([])
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                answer = repr(call(*arguments))
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer


@pytest.fixture
def place():
    """A directory of ours that others may look into; pytest's own may not be."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def index(place):
    make(place / "index").close()
    assert search(place / "index") == 7  # all that is imported on the way is imported now
    return place / "index"


@contextlib.contextmanager
def locked(*directories):
    """Let others read what is there, and nobody write, root excepted."""
    for directory in directories:
        for path in [*directory.rglob("*"), directory]:
            path.chmod(0o555 if path.is_dir() else 0o644)
    try:
        yield
    finally:
        for directory in directories:
            for path in [directory, *directory.rglob("*")]:
                if path.is_dir():
                    path.chmod(0o755)


def test_a_closed_index_answers_and_stays_as_it_is(index):
    before = {path.name: path.read_bytes() for path in index.iterdir()}
    with locked(index):
        assert elsewhere(search, index) == "7"
    assert {path.name: path.read_bytes() for path in index.iterdir()} == before


def test_who_may_not_write_to_the_file_leaves_nothing_beside_it(index):
    before = sorted(os.listdir(index))
    index.chmod(0o777)
    for path in index.iterdir():
        path.chmod(0o444)
    assert elsewhere(search, index) == "7"
    assert sorted(os.listdir(index)) == before


def test_an_index_without_a_cache_answers_too(index):
    for path in index.glob("index.*"):
        path.unlink()
    with locked(index):
        assert elsewhere(search, index) == "7"


def test_what_would_change_it_says_why_it_cannot(index, place):
    def change(name):
        with Retriever.load(index, model=HashEncoder()) as retriever:
            if name == "remove":
                retriever.remove(3)
            retriever.save(place / "locked" / "copy" if name == "copy" else index)

    (place / "locked").mkdir()
    with locked(index, place / "locked"):
        for name in ("remove", "save", "copy"):
            answer = elsewhere(change, name)
            assert answer.startswith("StoreError: ")
            assert "Permission denied" in answer
            assert "permissions" in answer or "another directory" in answer


def test_nothing_can_be_made_there(index, place):
    (place / "locked").mkdir()
    with locked(index, place / "locked"):
        for path in (place / "locked", place / "locked" / "new"):
            answer = elsewhere(lambda path=path: Retriever(HashEncoder(), path=path))
            assert answer.startswith("StoreError: ")
            answer = elsewhere(lambda path=path: Hybrid({"a": HashEncoder(), "b": HashEncoder()}, path=path))
            assert answer.startswith("StoreError: ")
        assert "holds an index already" in elsewhere(lambda: Retriever(HashEncoder(), path=index))


def test_a_directory_that_cannot_be_looked_into_is_named(index):
    index.chmod(0o700 if os.getuid() == 0 else 0o000)
    try:
        for call in (lambda: Retriever.load(index), lambda: Retriever(HashEncoder(), path=index)):
            assert elsewhere(call).startswith("StoreError: ")
    finally:
        index.chmod(0o755)


def test_a_file_that_cannot_be_read_is_named(index):
    (index / "store.sqlite").chmod(0o600 if os.getuid() == 0 else 0o000)
    answer = elsewhere(search, index)
    assert answer.startswith("StoreError: ")
    assert "store.sqlite" in answer


@pytest.mark.parametrize("shared", [True, False])
def test_a_log_is_read_with_its_shared_memory_and_else_named(index, shared):
    def crash():
        Retriever.load(index, model=HashEncoder()).remove(7)
        os._exit(0)

    child = os.fork()
    if child == 0:
        crash()
    os.waitpid(child, 0)
    if not shared:
        (index / "store.sqlite-shm").unlink()
    with locked(index):
        answer = elsewhere(search, index)
    if shared:
        assert answer.isdigit()
        assert answer != "7"
    else:
        assert answer.startswith("StoreError: ")
        assert "as a user who may write there" in answer


def test_a_reader_who_may_not_write_follows_a_writer_who_may(index):
    with Retriever.load(index, model=HashEncoder()) as writer:
        writer.remove(7)
        with locked(index):
            assert elsewhere(search, index) not in ("7", "")


def test_parts_of_a_hybrid_are_read(place, index):
    models = {"a": HashEncoder(), "b": HashEncoder()}
    with Hybrid(models, on="text", path=place / "hybrid") as hybrid:
        hybrid.add(DOCUMENTS, show_progress=False)

    def ask():
        with Hybrid.load(place / "hybrid", models=models) as found:
            return found(["text number 7"], k=1)[0][0]["id"]

    assert ask() == 7
    with locked(place / "hybrid"):
        assert elsewhere(ask) == "7"
