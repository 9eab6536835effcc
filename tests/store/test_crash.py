"""Kill a writer with SIGKILL at random moments; everything acknowledged must be there, and nothing by halves."""

import os
import random
import runpy
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cderetrieval.store import Store

# `make campaign` kills by thousands.
ROUNDS = int(os.environ.get("CDE_KILLS", "8"))

# Batch n is a function of n alone, so the parent can compute the state after any batch.
WRITER = """
import sys
import numpy as np
from cderetrieval.store import Store

def rows(n):
    return [(f"d{(n * 17 + i * 3) % 150}", f"batch {n}", {"batch": n}) for i in range(40)]

def gone(n):
    return [f"d{(n * 31 + i * 7) % 150}" for i in range(15)]

def write(store, n):
    with store.transaction():
        first, count = store.put_documents(rows(n))
        store.put_vectors(np.arange(first, first + count), np.full((count, 32), n))
        if n % 3 == 0:
            store.remove(gone(n))
        if n % 11 == 0:
            store.clear_vectors()
            for seqs, texts in store.pending():
                store.put_vectors(seqs, np.array([[int(text.split()[1])] * 32 for text in texts]))
        store.set_setting("batch", n)

if __name__ == "__main__":
    with Store(sys.argv[1]) as store:
        n = store.get_setting("batch", 0)
        while True:
            n += 1
            write(store, n)
            print(n, flush=True)
"""


def model(batches, writer):
    """Ids to batches after this many batches."""
    state = {}
    for n in range(1, batches + 1):
        for document_id, _, _ in writer["rows"](n):
            state.pop(document_id, None)
            state[document_id] = n
        if n % 3 == 0:
            for document_id in writer["gone"](n):
                state.pop(document_id, None)
    return state


def verify(path, acknowledged, writer):
    with Store(path) as store:
        store.check()
        batch = store.get_setting("batch", 0)
        assert batch in (acknowledged, acknowledged + 1)
        seqs, ids = store.live()
        state = model(batch, writer)
        assert ids == list(state)
        assert [payload["batch"] for payload in store.documents(seqs)] == list(state.values())
        vectors = list(store.iter_vectors())
        if ids:
            assert np.concatenate([s for s, _ in vectors]).tolist() == seqs.tolist()
            assert np.concatenate([m for _, m in vectors])[:, 31].tolist() == list(state.values())
        writer["write"](store, batch + 1)
        return batch + 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path):
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    writer = runpy.run_path(str(script), run_name="writer")
    path = tmp_path / "data" / "store.sqlite"
    rng = random.Random(0)
    written = 0
    for round_number in range(ROUNDS):
        child = subprocess.Popen([sys.executable, str(script), str(path)], stdout=subprocess.PIPE, text=True)
        if round_number < 3:
            time.sleep(rng.uniform(0.1, 0.3))  # while the file is being made
        else:
            child.stdout.readline()
            time.sleep(rng.expovariate(1 / 0.05))
        child.kill()
        acknowledged = [int(line) for line in child.stdout.read().split()]
        child.wait()
        # The line that was read above is part of what was acknowledged.
        written = verify(path, max([*acknowledged, written + (round_number >= 3)]), writer)
    assert written > ROUNDS
    assert not list(path.parent.glob("*.tmp"))
