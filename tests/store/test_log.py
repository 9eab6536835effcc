"""A log that is damaged in front of acknowledged changes is refused; one that a crash cut short is not."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from cderetrieval import Retriever
from cderetrieval.errors import StoreError
from cderetrieval.store import Store
from cderetrieval.testing import HashEncoder

FRAME = 24 + 16_384
WRITER = """
import os, sys
import numpy as np
from cderetrieval.store import Store

store = Store(sys.argv[1])
for change in range(int(sys.argv[2])):
    with store.transaction():
        first, count = store.put_documents((f"d{change}-{i}", "text " * 20, {}) for i in range(int(sys.argv[3])))
        store.put_vectors(np.arange(first, first + count), np.ones((count, 64), np.float32))
"""


def write(path, changes, documents, end="os._exit(0)"):
    subprocess.run([sys.executable, "-c", WRITER + end, str(path), str(changes), str(documents)], check=True)


def state(path):
    with Store(path) as store:
        return store.generation, store.count()


@pytest.fixture(scope="module", params=[(1, 20), (5, 30)], ids=["one change", "five changes"])
def killed(request, tmp_path_factory):
    """A directory as a killed writer left it."""
    directory = tmp_path_factory.mktemp("killed")
    write(directory / "store.sqlite", *request.param)
    return directory


@pytest.fixture
def opened(killed, tmp_path):
    """Opens a copy of it with another log, and with the shared memory or without."""

    def open_with(log, shared):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(killed, copy)
        (copy / "store.sqlite-wal").write_bytes(log)
        if not shared:
            (copy / "store.sqlite-shm").unlink()
        return state(copy / "store.sqlite")

    return open_with


def flipped(log, rng, *positions):
    bad = bytearray(log)
    for position in positions:
        bad[position] ^= 1 << int(rng.integers(8))
    return bytes(bad)


def test_a_flipped_bit_is_refused(killed, opened):
    log, rng = (killed / "store.sqlite-wal").read_bytes(), np.random.default_rng(0)
    expected = opened(log, True)
    header = [0, 3, 6, 9, 13, 17, 21, 25, 30]  # each field of the header, then of the first frame
    for position in [*header, *(32 + 4 * i for i in range(6)), *rng.integers(56, len(log), 20)]:
        with pytest.raises(StoreError, match=r"store\.sqlite-wal is damaged in .* Nothing was changed") as caught:
            opened(flipped(log, rng, position), True)
        assert "delete the index" not in str(caught.value)
    assert opened(log, True) == expected


def test_it_is_refused_in_a_copy_without_the_shared_memory_but_for_the_last_frame(killed, opened):
    log, rng = (killed / "store.sqlite-wal").read_bytes(), np.random.default_rng(1)
    opened(log, False)
    for position in [5, 17, 24, *rng.integers(32, len(log) - FRAME, 20)]:
        with pytest.raises(StoreError, match="wal is damaged in"):
            opened(flipped(log, rng, position), False)


def test_a_log_that_was_cut_short_is_refused_where_the_shared_memory_counts_more(killed, opened):
    log = (killed / "store.sqlite-wal").read_bytes()
    with pytest.raises(StoreError, match="wal is damaged in"):
        opened(log[:-FRAME], True)
    opened(log[:-FRAME], False)
    opened(log[:-1], False)


def test_the_remedy_gives_what_is_before_the_damage(tmp_path):
    path = tmp_path / "store.sqlite"
    write(path, 3, 5)
    log = (tmp_path / "store.sqlite-wal").read_bytes()
    (tmp_path / "store.sqlite-wal").write_bytes(flipped(log, np.random.default_rng(0), len(log) - FRAME // 2))
    with pytest.raises(StoreError, match="wal_checkpoint"):
        state(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert state(path) == (2, 10)


def test_what_an_undone_change_left_in_the_log_is_no_damage(tmp_path):
    path = tmp_path / "store.sqlite"
    undone = """
try:
    with store.transaction():
        store.put_documents((f"undone-{i}", "text " * 200, {}) for i in range(8_000))
        1 / 0
except ZeroDivisionError:
    pass
store.put_documents([("last", "text", {})])
os._exit(0)
"""
    write(path, 2, 20, undone)
    assert (tmp_path / "store.sqlite-wal").stat().st_size > 40 * FRAME, "the undone change was in the log"
    for name in ("store.sqlite-shm", None):
        if name:
            (tmp_path / name).unlink()
        assert state(path) == (3, 41)


def test_a_power_cut_in_the_last_change_is_no_damage(tmp_path):
    """Frames that were not on disk yet may be missing in any order: zeros, in front of the end of the change."""
    path, log, memory = (tmp_path / f"store.sqlite{end}" for end in ("", "-wal", "-shm"))
    last = """
import shutil
shutil.copy(sys.argv[1] + "-shm", sys.argv[1] + "-before")
store.put_documents((f"last-{i}", "text " * 100, {}) for i in range(2_000))
os._exit(0)
"""
    write(path, 2, 5, last)
    shutil.move(tmp_path / "store.sqlite-before", memory)
    frames = int(np.frombuffer(memory.read_bytes(), np.uint32)[4])
    data = bytearray(log.read_bytes())
    middle = 32 + (frames + 3) * FRAME - 4_096
    assert len(data) > middle + 4 * FRAME
    assert any(data[middle : middle + 4_096])
    data[middle : middle + 4_096] = bytes(4_096)
    log.write_bytes(data)
    assert state(path) == (2, 10)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_is_no_damage(tmp_path):
    """Killed at any moment, also while pages of a change are already in the log; what is left opens each time."""
    path, reached = tmp_path / "store.sqlite", 0
    code = WRITER.replace("store = Store", "print(flush=True)\nstore = Store")
    for attempt in range(20):
        child = subprocess.Popen([sys.executable, "-c", code, str(path), "500", "5000"], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(0.3 + 0.03 * (attempt % 5))
        child.kill()
        child.communicate()
        generation, _ = state(path)
        assert generation >= reached
        reached = generation
        if reached > 5:
            break
    assert reached > 0


def test_it_is_noticed_by_a_retriever(tmp_path):
    code = (
        "import os, sys\nfrom cderetrieval import Retriever\nfrom cderetrieval.testing import HashEncoder\n"
        "Retriever(HashEncoder(), on='text', path=sys.argv[1]).add([{'id': 1, 'text': 'owls'}])\nos._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    log = tmp_path / "store.sqlite-wal"
    log.write_bytes(flipped(log.read_bytes(), np.random.default_rng(0), 20_000))
    for call in (lambda: Retriever.load(tmp_path), lambda: Retriever(HashEncoder(), path=tmp_path)):
        with pytest.raises(StoreError, match="wal is damaged"):
            call()


def test_a_store_under_a_living_writer_opens(tmp_path):
    """Logs that grow, begin anew and are cut while they are read raise no alarm."""
    path = tmp_path / "store.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER + "store.close()", str(path), "60", "300"])
    opened = 0
    while writer.poll() is None:
        if path.exists():
            state(path)
            opened += 1
    assert writer.returncode == 0
    assert opened > 3
    assert state(path) == (60, 18_000)
    assert os.listdir(tmp_path).count("store.sqlite-wal") == 0
