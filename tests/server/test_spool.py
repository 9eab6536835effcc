"""What is spooled comes back, in memory and from files."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from cderetrieval.errors import InputError
from cderetrieval.server import spool as module
from cderetrieval.server.spool import Spool


@pytest.mark.parametrize("memory", [1, 2**20])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_rows_and_vectors_come_back_together(monkeypatch, memory, kind):
    monkeypatch.setattr(module, "IN_MEMORY", memory)
    monkeypatch.setattr(module, "CHUNK", 7)
    rng = np.random.default_rng(0)
    full = rng.standard_normal((50, 5)).astype(np.float32) * (rng.random((50, 5)) < 0.5)
    vectors = full if kind == "dense" else csr_array(full)
    with Spool() as spool:
        assert spool.put((f"text {i} \ud83d", {"id": f"s:{i}", "payload": "é"}) for i in range(30)) == 30
        assert spool.put((f"text {i}", {"id": f"s:{i}"}) for i in range(30, 50)) == 20
        seen = []
        for numbers, texts in spool.pending(8):
            seen += texts
            spool.put_vectors(numbers, vectors[numbers - 1])
        assert len(seen) == spool.count == 50
        assert seen[0] == "text 0 \ud83d"
        rows, parts = zip(*spool.read(), strict=True)
        assert [row["id"] for some in rows for row in some] == [f"s:{i}" for i in range(50)]
        assert [len(some) for some in rows] == [part.shape[0] for part in parts]
        back = np.concatenate([part if kind == "dense" else part.toarray() for part in parts])
        np.testing.assert_array_equal(back, full)


def test_vectors_out_of_order_or_of_another_kind_are_refused():
    with Spool() as spool:
        spool.put((str(i), {}) for i in range(4))
        with pytest.raises(InputError, match="come next"):
            spool.put_vectors([2], np.eye(1))
        with pytest.raises(InputError, match="come next"):
            spool.put_vectors([1, 2], np.eye(3))
        spool.put_vectors([1, 2], np.eye(2))
        with pytest.raises(InputError, match="the documents before have dense vectors of 2"):
            spool.put_vectors([3], np.eye(3)[:1])
        with pytest.raises(InputError, match="vector of document 2 is not finite"):
            spool.put_vectors([3, 4], np.full((2, 2), np.nan))
