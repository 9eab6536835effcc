"""A process that changes a hybrid is killed with SIGKILL, at random and right before a commit.

The next process finds the same documents for every model: those after the last change that was acknowledged, or those
and the one change that had started.
"""

import os
import random
import signal
import threading

import numpy as np
import pytest

from ..changes import MODELS, NAMES, Changes, expected_vectors, is_short
from ..children import Child

changes = Changes("hybrid")

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


def run(path, seed, first, moment="", after=0, delay=None):
    """Run changes in a child until it dies; with a delay, kill it so long after so many are done.

    Returns the numbers of the last change started and of the last one done.
    """
    child = Child("hybrid", path, seed, first, moment)
    assert child.stdout.readline() == "open\n"
    last = {}
    while delay is not None and last.get("done", first - 1) < first - 1 + after:
        word, number = child.stdout.readline().split()
        last[word] = int(number)
    if delay is not None:
        threading.Timer(delay, os.kill, (child.pid, signal.SIGKILL)).start()
    lines = [line.split() for line in child.stdout.readlines() if line.endswith("\n")]
    assert child.wait() == -signal.SIGKILL
    child.close()
    last |= {word: int(number) for word, number in lines}
    return last.get("start", first - 1), last.get("done", first - 1)


def verify(path, candidates):
    """The hybrid holds one of the candidates, whole, with the vectors of every model; return it."""
    with changes.open(path) as hybrid:
        found = {i: text for i, text, _ in hybrid.collection.rows()}
        assert list(found.items()) in [list(candidate.items()) for candidate in candidates]
        hybrid.collection.check()
        for part, name in enumerate(NAMES if found else ()):
            stored = np.concatenate([matrix for _, matrix in hybrid.collection.iter_vectors(part=part)])
            np.testing.assert_array_equal(stored, expected_vectors(hybrid.collection, MODELS[name])[0])
        for wanted, text in [pair for pair in found.items() if is_short(pair[1])][:1]:
            assert hybrid(text, k=1)[0][0]["id"] == wanted
    return found


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


def test_killed_before_a_commit(tmp_path):
    path, documents = tmp_path / "index", {}
    for number in range(3):
        assert run(path, 0, number, "commit") == (number, number - 1)
        assert list(verify(path, [documents])) == list(documents), "nothing of the change is there"
        with changes.open(path) as hybrid:
            changes.change(hybrid, 0, number)
        documents = changes.expected(documents, 0, number)
        assert list(verify(path, [documents])) == list(documents)
