"""The directory of an index: links in it, permissions, what killed processes left, and places that only can be read."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from cderetrieval import Context, Hybrid, Retriever
from cderetrieval.errors import LockedError, StoreError
from cderetrieval.files import atomic_write
from cderetrieval.store import Store
from cderetrieval.store.lock import WriterLock
from cderetrieval.testing import HashEncoder, tiny_model

DOCUMENTS = [{"id": i, "text": f"text number {i}"} for i in range(20)]


def make(directory, model=None, **options):
    return Retriever(model or HashEncoder(), on="text", path=directory, **options).add(DOCUMENTS, show_progress=False)


def modes(directory):
    return {p.name: stat.S_IMODE(p.stat().st_mode) for p in directory.rglob("*") if p.is_file()}


@pytest.fixture
def index(tmp_path):
    make(tmp_path / "index").close()
    return tmp_path / "index"


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "elsewhere" / "precious"
    path.parent.mkdir()
    path.write_text("not yours")
    yield path
    assert path.read_text() == "not yours"
    assert os.listdir(path.parent) == ["precious"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["writer.lock", "store.sqlite-wal", "store.sqlite-shm", "store.sqlite-journal"])
def test_what_a_link_leads_to_is_not_written(index, victim, name, link):
    (index / name).unlink(missing_ok=True)
    link(victim, index / name)
    with pytest.raises(StoreError, match=name), Retriever.load(index, model=HashEncoder()) as retriever:
        retriever.remove(3)


def test_a_link_that_leads_nowhere_makes_no_file_there(index, tmp_path):
    (index / "writer.lock").unlink()
    (index / "writer.lock").symlink_to(tmp_path / "new")
    with Retriever.load(index, model=HashEncoder()) as retriever, pytest.raises(StoreError, match=r"writer\.lock"):
        retriever.remove(3)
    assert not (tmp_path / "new").exists()


def test_a_pipe_as_lock_is_refused(index):
    (index / "writer.lock").unlink()
    os.mkfifo(index / "writer.lock")
    with Retriever.load(index, model=HashEncoder()) as retriever, pytest.raises(StoreError, match=r"writer\.lock"):
        retriever.remove(3)


def test_a_journal_that_names_another_file_is_refused(index, victim):
    (index / "store.sqlite-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(str(victim), "ascii"))
    with pytest.raises(StoreError, match="journal was not written by this package"):
        Retriever.load(index)


def test_caches_and_logs_that_are_links_are_replaced(index, victim, tmp_path):
    for name in ("index.json", "index.faiss", "index.safetensors"):
        (index / name).unlink()
        (index / name).symlink_to(victim)
    with Retriever.load(index, model=HashEncoder()) as retriever:
        retriever.remove(3)
    assert not any(path.is_symlink() for path in index.iterdir())
    with Store(index / "store.sqlite") as store:
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "store.sqlite-wal").symlink_to(victim)
        with pytest.raises(StoreError, match="wal"):
            store.backup(tmp_path / "copy" / "store.sqlite")


def test_a_store_that_is_a_link_is_only_read(index, tmp_path):
    make(tmp_path / "other").close()
    before = {p.name: p.read_bytes() for p in (tmp_path / "other").iterdir()}
    (index / "store.sqlite").unlink()
    (index / "store.sqlite").symlink_to(tmp_path / "other" / "store.sqlite")
    with Retriever.load(index, model=HashEncoder()) as retriever:
        assert retriever(["text number 7"], k=1)[0][0]["id"] == 7
        with pytest.raises(StoreError, match="symbolic link"):
            retriever.remove(3)
    with Store() as store, pytest.raises(StoreError, match="symbolic link"):
        store.backup(index / "store.sqlite")
    assert {p.name: p.read_bytes() for p in (tmp_path / "other").iterdir()} == before


def test_the_index_of_a_model_that_is_a_link_is_refused(tmp_path):
    models = {"a": HashEncoder(), "b": HashEncoder()}
    with Hybrid(models, on="text", path=tmp_path / "hybrid") as hybrid:
        hybrid.add(DOCUMENTS, show_progress=False)
    (tmp_path / "hybrid" / "index-1").rename(tmp_path / "moved")
    (tmp_path / "hybrid" / "index-1").symlink_to(tmp_path / "moved")
    with Hybrid.load(tmp_path / "hybrid", models=models) as hybrid, pytest.raises(StoreError, match="index-1 is a sym"):
        hybrid("text")


def test_the_directory_itself_may_be_a_link(index, tmp_path):
    (tmp_path / "link").symlink_to(index)
    with Retriever.load(tmp_path / "link", model=HashEncoder()) as retriever:
        assert len(retriever.remove(3)) == 19


@pytest.mark.parametrize("model", [HashEncoder(), "bm25"])
def test_all_files_of_an_index_are_private(tmp_path, model):
    with make(tmp_path / "index", model) as retriever:
        assert {"store.sqlite-wal", "store.sqlite-shm"} <= set(modes(tmp_path / "index"))
        assert set(modes(tmp_path / "index").values()) == {0o600}
        retriever.save(tmp_path / "copy")
    for name in ("index", "copy"):
        found = modes(tmp_path / name)
        assert {"store.sqlite", "index.json", "writer.lock"} < set(found)
        assert set(found.values()) == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "index").glob("weights-*")} <= {0o700}


@pytest.mark.parametrize("model", [HashEncoder(), "bm25"])
def test_all_files_follow_the_permissions_that_a_user_gave_the_store(tmp_path, model):
    make(tmp_path / "index", model).close()
    (tmp_path / "index" / "store.sqlite").chmod(0o640)
    with Retriever.load(tmp_path / "index", model=model) as retriever:
        retriever.remove(3)
        retriever.save(tmp_path / "copy")
    for name in ("index", "copy"):
        assert set(modes(tmp_path / name).values()) == {0o640}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "index").glob("weights-*")} <= {0o750}


def test_a_hybrid_and_a_context_are_private_too(tmp_path):
    with Hybrid({"a": HashEncoder(), "b": HashEncoder()}, on="text") as hybrid:
        hybrid.add(DOCUMENTS, show_progress=False).save(tmp_path / "hybrid")
    Context.from_texts(tiny_model(), ["owls hunt", "bees hum"], size=2).save(tmp_path / "c.safetensors")
    assert set(modes(tmp_path).values()) == {0o600}


WRITING = """
import sys
from cderetrieval.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(flush=True)
    input()
"""


@pytest.fixture
def half_written(tmp_path):
    """Starts a process that is in the middle of writing a file."""
    children = []

    def start(path):
        command = [sys.executable, "-c", WRITING, str(path)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        children.append(child)
        child.stdout.readline()
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_what_a_killed_writer_left_is_swept_and_nothing_of_a_living_one(tmp_path, half_written):
    path = tmp_path / "note[1]"
    killed, living = half_written(path), half_written(path)
    other = half_written(tmp_path / "other")
    killed.kill()
    killed.wait()
    other.kill()
    other.wait()
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
    left = sorted(name.rsplit(".", 2)[0] for name in os.listdir(tmp_path))
    assert left == [".note[1]", ".other", "note[1]"]
    living.communicate(b"\n")
    assert living.returncode == 0
    assert path.read_text() == "half"


def test_the_next_writer_of_an_index_sweeps_it(tmp_path, half_written):
    make(tmp_path, "bm25").close()
    for name in ("store.sqlite", "index.json", "index.safetensors"):
        child = half_written(tmp_path / name)
        child.kill()
        child.wait()
    for left in tmp_path.glob(".store.sqlite.*"):
        left.with_name(left.name + "-journal").write_text("half")
    (tmp_path / "weights-ab12").mkdir()
    (tmp_path / "weights-ab12" / "data.npy").write_text("half")
    assert len(list(tmp_path.glob(".*"))) == 4
    with Retriever.load(tmp_path) as retriever:
        retriever.remove(3)
    assert list(tmp_path.glob(".*")) == []
    assert len(list(tmp_path.glob("weights-*"))) == 1


def test_lists_of_an_inverted_index_are_swept_too(tmp_path, half_written):
    from scipy.sparse import csr_array

    from cderetrieval.index import manifest
    from cderetrieval.index.inverted import InvertedIndex

    child = half_written(tmp_path / "postings-ab12.bin")
    child.kill()
    child.wait()
    index = InvertedIndex(4)
    vectors = csr_array(np.eye(4, dtype=np.float32))
    index.sync(np.arange(1, 5), lambda after: iter([(np.arange(1, 5), vectors)]))
    manifest.save(index, tmp_path, epoch=0, generation=1, fingerprint="f")
    assert list(tmp_path.glob(".*")) == []
    assert set(modes(tmp_path).values()) == {0o600}


def test_who_asks_while_the_lock_is_taken_learns_the_process(tmp_path):
    """The writer has the lock for a moment before its name stands in the file."""
    lock, other = WriterLock(tmp_path / "store.sqlite"), WriterLock(tmp_path / "store.sqlite")
    lock.acquire()
    (tmp_path / "writer.lock").write_text("")
    write = threading.Timer(0.05, (tmp_path / "writer.lock").write_text, ["4711"])
    write.start()
    with pytest.raises(LockedError, match="pid 4711"):
        other.acquire()
    write.join()
    lock.release()
    other.acquire()
    other.release()
    assert (tmp_path / "writer.lock").read_text().strip() == ""


def damage(directory, name):
    file = directory / "store.sqlite"
    if name in ("retriever", "settings"):
        connection = sqlite3.connect(file)
        change = "checksum = checksum + 1" if name == "retriever" else "key = 'none'"
        connection.execute(f"UPDATE settings SET {change} WHERE key = 'retriever'")
        connection.commit()
        connection.close()
        return
    content = bytearray(file.read_bytes())
    place = {"header": 3, "schema": 100, "page": 16_384 * 4}[name]
    content[place : place + 12] = bytes(12)
    file.write_bytes(content)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("name", ["header", "schema", "page", "retriever", "settings"])
def test_a_store_that_is_refused_is_closed(index, name):
    def descriptors():
        paths = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return sorted(os.readlink(path) for path in paths if os.path.lexists(path) and os.path.exists(path))

    damage(index, name)
    before = descriptors()
    caught = []
    for call in (Retriever.load, Store) if name in ("header", "schema", "page") else (Retriever.load,):
        with pytest.raises(StoreError) as error:
            call(index if call is not Store else index / "store.sqlite")
        caught.append(error)  # what holds the error holds the frames in which it was raised
    assert descriptors() == before
