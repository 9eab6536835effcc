"""Errors of the system are no damage: the store is whole, and nobody is told to delete it."""

import sqlite3
import subprocess
import sys
import textwrap

import pytest

from cderetrieval import Retriever
from cderetrieval.errors import InputError, LockedError, StoreError
from cderetrieval.files import writing
from cderetrieval.store.schema import translation


def error_of(code):
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "code", ["FULL", "IOERR", "IOERR_WRITE", "MISUSE", "ERROR", "READONLY", "CANTOPEN", "PERM", "TOOBIG", "INTERNAL"]
)
def test_an_error_of_sqlite_is_no_damage(tmp_path, code):
    found = translation(error_of(getattr(sqlite3, f"SQLITE_{code}")), tmp_path / "s.sqlite")
    assert "cannot be used" in str(found)
    assert "damaged" not in str(found)
    assert "delete" not in str(found)


def test_damage_is_what_sqlite_found_so(tmp_path):
    for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        assert "is damaged" in str(translation(error_of(code), tmp_path))
    assert isinstance(translation(error_of(sqlite3.SQLITE_BUSY), tmp_path), LockedError)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("faiss: write error")])
def test_what_cannot_be_written_is_named(tmp_path, error):
    with pytest.raises(StoreError, match=r"index cannot be written .*Check free space"), writing(tmp_path / "index"):
        raise error


def test_a_limit_on_the_size_of_files(tmp_path):
    script = textwrap.dedent(
        """
        import resource, sys
        from cderetrieval import Retriever
        from cderetrieval.errors import StoreError
        from cderetrieval.testing import HashEncoder

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        def refused(call):
            try:
                call()
            except StoreError as error:
                assert "delete" not in str(error) and "damaged" not in str(error), error
            else:
                raise SystemExit("not refused")

        retriever = Retriever(HashEncoder(), on="text", path=sys.argv[1])
        retriever.add([{"id": n, "text": f"about {n} " * 50} for n in range(300)], show_progress=False)
        limit(400_000)
        refused(lambda: retriever.add([{"id": f"x{n}", "text": f"much {n} " * 500} for n in range(3000)]))
        limit(1_000)
        refused(lambda: retriever.save(sys.argv[1]))
        refused(lambda: retriever.save(sys.argv[1] + "-copy"))
        limit(resource.RLIM_INFINITY)
        assert len(retriever) == 300
        retriever.collection.check()
        retriever.add(["after"], show_progress=False)
        limit(1_000)
        refused(retriever.close)
        limit(resource.RLIM_INFINITY)
        assert len(Retriever.load(sys.argv[1], model=HashEncoder())) == 301
        print("whole")
        """
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "index")], capture_output=True, text=True, timeout=60
    )
    assert found.stdout == "whole\n", found.stderr[-3000:]


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_what_is_saved_while_documents_are_added_is_the_last_commit(place, tmp_path):
    with Retriever("bm25", on="text", path=tmp_path / "index" if place == "disk" else None) as retriever:

        def first():
            yield {"id": "a", "text": "owls hunt"}
            with pytest.raises(InputError, match="empty"):
                retriever.save(tmp_path / "copy")

        def more():
            yield {"id": "b", "text": "owls sleep"}
            retriever.save(tmp_path / "copy")

        retriever.add(first())
        retriever.add(more())
        assert len(retriever) == 2
    with Retriever.load(tmp_path / "copy") as copy:
        assert [hit["id"] for hit in copy("owls")[0]] == ["a"]
