"""A process that changes a hybrid is killed with SIGKILL, at random and between the commits of two parts.

The next process finds the same documents in every part: those after the last change that was acknowledged, or those
and the one change that had started.
"""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cderetrieval import Retriever
from cderetrieval.errors import StoreError

SCRIPT = Path(__file__).with_name("hybrid_changes.py")
specification = importlib.util.spec_from_file_location("hybrid_changes", SCRIPT)
changes = importlib.util.module_from_spec(specification)
specification.loader.exec_module(changes)

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


def run(path, seed, first, moment="", after=0, delay=None):
    """Run changes in a child until it dies; with a delay, kill it so long after so many are done.

    Returns the numbers of the last change started and of the last one done.
    """
    command = [sys.executable, SCRIPT, path, str(seed), str(first), moment]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "open\n"
    last = {}
    while delay is not None and last.get("done", first - 1) < first - 1 + after:
        word, number = child.stdout.readline().split()
        last[word] = int(number)
    if delay is not None:
        threading.Timer(delay, os.kill, (child.pid, signal.SIGKILL)).start()
    # Not communicate(): it reads past what readline() has buffered.
    lines = [line.split() for line in child.stdout.readlines() if line.endswith("\n")]
    child.stdout.close()
    assert child.wait(60) == -signal.SIGKILL
    last |= {word: int(number) for word, number in lines}
    return last.get("start", first - 1), last.get("done", first - 1)


def documents_of(part):
    return {i: text for i, text, _ in part._store.rows()}


def verify(path, candidates):
    """All parts hold one of the candidates, whole, with their own vectors; return it."""
    with changes.open_hybrid(path) as hybrid:
        found = [documents_of(part) for part in hybrid.parts.values()]
        assert all(list(other.items()) == list(found[0].items()) for other in found)
        assert list(found[0].items()) in [list(candidate.items()) for candidate in candidates]
        for name, part in hybrid.parts.items():
            part._store.check()
            if found[0]:
                stored = np.concatenate([matrix for _, matrix in part._store.iter_vectors()])
                np.testing.assert_array_equal(stored, changes.MODELS[name].encode_document(list(found[0].values())))
        if found[0]:
            wanted, text = next(iter(found[0].items()))
            assert hybrid(text, k=1)[0][0]["id"] == wanted
    return found[0]


def numbers(path):
    """How many documents each part holds, without repairing anything."""
    counts = []
    for number in range(len(changes.NAMES)):
        with Retriever.load(path / f"part-{number}") as part:
            counts.append(len(part))
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random(seed, tmp_path):
    rng = random.Random(seed)
    path, documents, first = tmp_path / "index", {}, 0
    for _ in range(6):
        started, done = run(path, seed, first, after=rng.randint(0, 3), delay=rng.uniform(0, 0.1))
        for number in range(first, done + 1):
            documents = changes.expected(documents, seed, number)
        candidates = [documents]
        if started > done:
            candidates.append(changes.expected(documents, seed, started))
        found = verify(path, candidates)
        first = done + 1 if found == documents else started + 1
        documents = found


@pytest.mark.parametrize("moment", ["commit-1", "commit-2"])
def test_killed_between_two_commits(moment, tmp_path):
    path, documents = tmp_path / "index", {}
    for number in range(4):  # the first add of all, two that replace, and whatever the plan has next
        assert run(path, 0, number, moment) == (number, number - 1)
        documents = changes.expected(documents, 0, number)
        assert list(verify(path, [documents])) == list(documents)


def test_killed_between_two_commits_and_again_in_the_repair(tmp_path):
    path = tmp_path / "index"
    with changes.open_hybrid(path) as hybrid:
        changes.change(hybrid, 0, 0)
    before = changes.expected({}, 0, 0)
    number = next(n for n in range(1, 50) if len(changes.expected(before, 0, n)) != len(before))
    after = changes.expected(before, 0, number)
    run(path, 0, number, "commit-1")
    assert numbers(path) == [len(before), len(before), len(after)]
    command = [sys.executable, SCRIPT, path, "0", "99", "repair"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert numbers(path) == [len(before), len(before), len(after)]
    verify(path, [after])
    assert numbers(path) == [len(after)] * 3


def test_a_reader_waits_for_a_writer_between_two_commits(tmp_path):
    path = tmp_path / "index"
    with changes.open_hybrid(path) as hybrid:
        changes.change(hybrid, 0, 0)
        reader = changes.open_hybrid(path)
        store = next(iter(hybrid.parts.values()))._store
        execute, pause, go_on = store._execute, threading.Event(), threading.Event()

        def slow(statement, values=()):
            if statement == "COMMIT":
                pause.set()
                go_on.wait(10)
            return execute(statement, values)

        store._execute = slow
        writer = threading.Thread(target=hybrid.add, args=([{"id": "new", "text": "zebra"}],))
        writer.start()
        assert pause.wait(10)
        threading.Timer(0.2, go_on.set).start()
        assert reader("zebra", k=1)[0][0]["id"] == "new", "it saw the change in all parts or in none"
        writer.join()
        reader.close()


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    for name, seed in (("one", 0), ("other", 1)):
        with changes.open_hybrid(tmp_path / name) as hybrid:
            changes.change(hybrid, seed, 0)
    (tmp_path / "one" / "part-1").rename(tmp_path / "away")
    (tmp_path / "other" / "part-1").rename(tmp_path / "one" / "part-1")
    with pytest.raises(StoreError, match="do not belong together; was one of them put back from a copy"):
        changes.Hybrid.load(tmp_path / "one", models=changes.MODELS)
