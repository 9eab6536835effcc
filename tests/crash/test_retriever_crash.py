"""A process that changes an index is killed with SIGKILL at random moments; the next one finds all it acknowledged.

The child says "start" before each change (add, replace, remove, refresh, save) and "done" once the call has returned.
After the kill the index holds the state after the last "done", or that and the one change that had started: nothing
between, in documents, vectors and context alike.
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

from cderetrieval.index.exact import exact_search
from cderetrieval.testing import HashEncoder

SCRIPT = Path(__file__).with_name("retriever_changes.py")
specification = importlib.util.spec_from_file_location("retriever_changes", SCRIPT)
changes = importlib.util.module_from_spec(specification)
specification.loader.exec_module(changes)

INDEXES, ROUNDS = 4, 6
PROBES = [f"probe {i}" for i in range(8)]


def killed(path, seed, first, delay):
    """Run changes in a child, kill it, and return the numbers of the last change started and the last one done."""
    child = subprocess.Popen([sys.executable, SCRIPT, path, str(seed), str(first)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "open\n"
    killer = threading.Timer(delay, os.kill, (child.pid, signal.SIGKILL))
    killer.start()
    output, _ = child.communicate(timeout=60)
    killer.join()
    assert child.returncode == -signal.SIGKILL
    lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
    last = {word: int(number) for word, number in lines}
    return last.get("start", first - 1), last.get("done", first - 1)


def verify(path, candidates):
    """The index holds one of the candidates, whole; return it."""
    retriever = changes.open_index(path)
    if not len(retriever):
        assert {} in candidates
        retriever.close()
        return {}
    retriever._store.check()
    found = {i: text for i, (_, text) in zip(retriever._store.live()[1], retriever._store.texts(), strict=True)}
    assert [list(found.items())] in [[list(candidate.items())] for candidate in candidates]
    encoder = retriever.encoder
    vectors = encoder.encode_document(list(found.values()))
    stored = np.concatenate([matrix for _, matrix in retriever._store.iter_vectors()])
    np.testing.assert_array_equal(stored, vectors, err_msg="vectors and context belong together")
    assert retriever.context.embeddings.shape == (len(retriever.context), HashEncoder.dimension)
    hits = retriever(PROBES, k=10)
    scores, rows = exact_search(vectors, encoder.encode_query(PROBES), 10)
    ids = list(found)
    assert [[hit["id"] for hit in ranking] for ranking in hits] == [[ids[row] for row in ranking] for ranking in rows]
    np.testing.assert_allclose([[hit["similarity"] for hit in ranking] for ranking in hits], scores, atol=1e-6)
    retriever._store.close()  # without saving the index: the next process must cope with the old one
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("seed", range(INDEXES))
def test_nothing_acknowledged_is_lost_and_nothing_is_half_done(seed, tmp_path):
    rng = random.Random(seed)
    path, documents, first, acknowledged = tmp_path / "index", {}, 0, 0
    for _ in range(ROUNDS):
        started, done = killed(path, seed, first, rng.uniform(0, 0.3))
        for number in range(first, done + 1):
            documents = changes.expected(documents, seed, number)
        candidates = [documents]
        if started > done:
            candidates.append(changes.expected(documents, seed, started))
        found = verify(path, candidates)
        acknowledged += done - first + 1
        # A started change of which nothing shows is the next child's first; add and remove are told by what they did.
        first = done + 1 if found == documents else started + 1
        documents = found
    assert acknowledged > ROUNDS, "children were killed before they did anything"
