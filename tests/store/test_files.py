"""What can be wrong with the file, and what other processes see."""

import contextlib
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from cderetrieval.errors import InputError, LockedError, StoreError
from cderetrieval.store import Store
from cderetrieval.store.lock import WriterLock
from cderetrieval.store.schema import SCHEMA_VERSION, vector_schema, vector_table

TENSORS = {"rows": np.arange(300)}


def fill(store, ids):
    with store.transaction():
        first, count = store.put_documents((i, f"text of {i} " * 5, {"id": i, "n": [1, 2]}) for i in ids)
        store.put_vectors(np.arange(first, first + count), np.arange(count * 16).reshape(count, 16))


def content(store):
    seqs, ids = store.live()
    vectors = [(s.tolist(), m.tolist()) for s, m in store.iter_vectors()]
    metadata, tensors = store.get_context("c")
    context = metadata, {name: tensor.tolist() for name, tensor in tensors.items()}
    settings = store.get_setting("s"), store.generation, store.epoch
    return seqs.tolist(), ids, vectors, list(store.texts()), store.documents(seqs), context, store.contexts(), settings


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        fill(store, [f"d{i}" for i in range(400)])
        store.remove([f"d{i}" for i in range(0, 400, 7)])
        store.put_context("c", {"seed": 1}, TENSORS)
        store.set_setting("s", {"a": 1})
    return path


def test_a_flipped_bit_is_an_error_or_harmless_never_another_answer(path):
    with Store(path) as store:
        expected = content(store)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    positions = [*range(100), *rng.integers(0, len(good), 250).tolist()]
    refused = []
    for position in positions:
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:
            with Store(path) as store:
                assert content(store) == expected, f"byte {position}"
        except StoreError as error:
            refused.append(str(error))
        for name in ("store.sqlite-wal", "store.sqlite-shm"):
            path.with_name(name).unlink(missing_ok=True)
    assert len(refused) > 100
    assert all("store.sqlite" in message for message in refused)


def test_a_truncated_file_is_refused(path):
    good = path.read_bytes()
    for size in (0, 1, 99, 100, 4096, 16384, len(good) // 2, len(good) - 16384, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(StoreError, match=r"store\.sqlite is damaged .*backup"), Store(path):
            pass


@pytest.mark.parametrize("junk", [b"hello", b"x" * 100_000, b"\0" * 20_000])
def test_a_file_that_is_not_sqlite_is_refused(tmp_path, junk):
    path = tmp_path / "s.sqlite"
    path.write_bytes(junk)
    with pytest.raises(StoreError, match=r"s\.sqlite"):
        Store(path)
    assert path.read_bytes() == junk


def test_another_programs_database_is_refused(tmp_path):
    path = tmp_path / "s.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        Store(path)


def test_a_newer_version_is_refused_with_the_remedy(path):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=r"schema version 4.*pip install -U"):
        Store(path)


def test_altered_tables_are_refused(path):
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE vectors ADD COLUMN more INTEGER")
    connection.close()
    with pytest.raises(StoreError, match="tables are not those of a store"):
        Store(path)


@pytest.fixture
def two(tmp_path):
    """A store with the vectors of two models."""
    path = tmp_path / "two.sqlite"
    with Store(path) as store:
        fill(store, "abc")
        store.put_vectors([1, 2, 3], np.eye(3), part=1)
        store.check()
    return path


def alter(path, *statements):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE vectors_1"],
        ["UPDATE settings SET key = 'tablet' WHERE key = 'tables'"],
        [vector_schema(2)],
        ["CREATE VIEW more AS SELECT 1"],
        [  # a trigger by the name of a table, listed before it
            "PRAGMA writable_schema = ON",
            "CREATE TRIGGER passages AFTER INSERT ON documents BEGIN DELETE FROM documents; END",
            "UPDATE sqlite_master SET rowid = 99 WHERE name = 'passages' AND type = 'table'",
        ],
    ],
)
def test_tables_that_no_store_has_are_refused(two, statements):
    alter(two, *statements)
    with pytest.raises(StoreError, match=r"is damaged .*(tables are not those of a store|vectors of . models)"):
        Store(two)


@pytest.mark.parametrize("part", [0, 1])
def test_a_check_notices_a_model_without_any_vector(two, part):
    alter(two, f"DELETE FROM {vector_table(part)}")
    with Store(two) as store, pytest.raises(StoreError, match="3 documents have 0 vectors"):
        store.check()


@pytest.mark.parametrize("key", ["live", "dimension", "next_seq", "s"])
def test_a_flipped_bit_in_the_name_of_a_setting_does_not_unset_it(path, key):
    alter(path, f"UPDATE settings SET key = '{key[:-1]}{chr(ord(key[-1]) ^ 1)}' WHERE key = '{key}'")
    with Store(path) as store, pytest.raises(StoreError, match=r"setting .* does not match its checksum"):
        store.get_setting("s")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(StoreError, match="is a directory"):
        Store(tmp_path)


def test_a_flipped_bit_in_a_large_file_is_found_by_its_checksum(path, monkeypatch):
    monkeypatch.setattr("cderetrieval.store.schema.CHECK_LIMIT", 0)
    data = bytearray(path.read_bytes())
    data[data.index(b"text of d33 ")] ^= 1
    vector = np.arange(33 * 16, 34 * 16, dtype="<f4").tobytes()
    data[data.index(vector)] ^= 1
    path.write_bytes(data)
    with Store(path) as store:
        with pytest.raises(StoreError, match=r"store\.sqlite is damaged \(row 34 does not match"):
            list(store.texts())
        with pytest.raises(StoreError, match="vector of row 34 does not match"):
            list(store.iter_vectors())
        with pytest.raises(StoreError, match="damaged"):
            store.check()


def test_a_second_writer_is_refused_and_a_reader_sees_commits(path):
    code = (
        "import sys\n"
        "from cderetrieval.store import Store\n"
        "from cderetrieval.errors import LockedError\n"
        "store = Store(sys.argv[1])\n"
        "print(store.generation, store.count(), flush=True)\n"
        "input()\n"
        "print(store.generation, store.count(), flush=True)\n"
        "try:\n    store.remove(['d1'])\n"
        "except LockedError as error:\n    print(error, flush=True)\n"
        "input()\n"
        "print(store.remove(['d1']), flush=True)\n"
    )
    with Store(path) as writer, writer.exclusive():
        fill(writer, ["new"])
        assert writer.is_writer
        generation, count = writer.generation, writer.count()
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline().split() == [str(generation), str(count)]
        writer.remove(["new"])
        print(file=child.stdin, flush=True)
        assert child.stdout.readline().split() == [str(generation + 1), str(count - 1)]
        assert f"another process (pid {os.getpid()}) is writing to {path.parent}" in child.stdout.readline()
    print(file=child.stdin, flush=True)
    assert child.stdout.readline().strip() == "0"
    assert child.wait(10) == 0
    with Store(path) as store:
        assert "d1" not in store


def test_a_second_writer_in_this_process_is_refused(path):
    with Store(path) as first, Store(path) as second:
        with first.exclusive():
            first.remove(["d1"])
            assert not second.is_writer
            with pytest.raises(LockedError, match="already open for writing in this process"):
                second.remove(["d2"])
        assert second.count() == first.count()
        second.remove(["d2"])
        assert not first.is_writer
        first.remove(["d3"])


def test_the_lock_is_given_up_after_each_change_and_kept_as_long_as_one_block_wants_it(path):
    with Store(path) as store:
        with store.transaction():
            assert store.is_writer
        assert not store.is_writer
        with store.exclusive():
            with store.exclusive():
                store.remove(["d1"])
            assert store.is_writer
        assert not store.is_writer
        with store.exclusive():
            store.close()
        assert not store.is_writer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_the_lock(path):
    lock, other = WriterLock(path), WriterLock(path)
    lock.acquire()
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(LockedError):
        other.acquire()
    lock.forget()  # what the kernel does when the parent is killed
    other.acquire()
    other.release()
    os.write(go_on[1], b"x")
    os.waitpid(child, 0)
    for end in (*ready, *go_on):
        os.close(end)


def test_a_snapshot_sees_one_generation(path):
    with Store(path) as writer, Store(path) as reader:
        with reader.snapshot():
            before = reader.count()
            writer.remove(["d1", "d2"])
            assert reader.count() == before
            assert len(reader.live()[1]) == before
        assert reader.count() == before - 2


def test_backup_is_a_whole_store_and_replaces_one(path, tmp_path):
    target = tmp_path / "copy" / "store.sqlite"
    with Store(path) as store:
        expected = content(store)
        store.backup(target)
        with Store(target) as copy:
            assert content(copy) == expected
            with copy.exclusive(), pytest.raises(LockedError):
                store.backup(target)
        store.backup(target)
        with pytest.raises(InputError, match="this very store"):
            store.backup(path)
    with Store(target) as copy:
        assert content(copy) == expected
        copy.check()
    assert sorted(p.name for p in target.parent.iterdir()) == ["store.sqlite", "writer.lock"]


def test_backup_over_a_store_with_a_log_left_by_a_crash(path, tmp_path):
    target = tmp_path / "copy" / "store.sqlite"
    target.parent.mkdir()
    code = (
        "import os, sys\nfrom cderetrieval.store import Store\n"
        "s = Store(sys.argv[1])\ns.put_documents([('crashed', 't', {})])\nos._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert target.with_name("store.sqlite-wal").stat().st_size > 0
    with Store(path) as store:
        expected = content(store)
        store.backup(target)
    with Store(target) as copy:
        assert content(copy) == expected


def test_a_store_in_memory_can_be_backed_up(tmp_path):
    with Store() as store:
        fill(store, ["a", "b"])
        store.backup(tmp_path / "s.sqlite")
    with Store(tmp_path / "s.sqlite") as store:
        assert store.live()[1] == ["a", "b"]


def test_what_a_killed_process_left_while_making_the_file_is_cleared_away(tmp_path):
    path = tmp_path / "store.sqlite"
    for name in (".store.sqlite.ab12.tmp", ".store.sqlite.ab12.tmp-journal", ".other.sqlite.ab12.tmp"):
        (tmp_path / name).write_bytes(b"half")
    Store(path).close()
    assert {file.name for file in tmp_path.iterdir()} == {"store.sqlite", "writer.lock", ".other.sqlite.ab12.tmp"}
