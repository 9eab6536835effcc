import json
import logging

import numpy as np
import pytest

from cderetrieval.index import manifest
from cderetrieval.index.faiss import FaissIndex

from .stored import Stored

OWNER = {"epoch": 2, "fingerprint": "model-a"}


def make(clustered, factory="Flat", n=1_000):
    index = Stored(FaissIndex(32, factory))
    index.add(np.arange(1, n + 1), clustered[0][:n])
    index.remove([5, 9])
    return index


@pytest.fixture
def saved(clustered, tmp_path):
    manifest.save(make(clustered, n=40), tmp_path, generation=7, **OWNER)
    return tmp_path


def load(folder, factory="Flat", **changes):
    try:
        digest = json.loads((folder / "index.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        digest = None  # damaged; what the store knows is tested by name
    index = FaissIndex(32, changes.pop("factory", factory))
    return index if manifest.load(index, folder, **{**OWNER, "digest": digest, **changes}) else None


@pytest.mark.parametrize("factory", ["auto", "HNSW16,SQ8", "IVF16,RaBitQ,Refine(SQ8)", "SQfp16"])
def test_round_trip_then_add_remove_and_sync(clustered, tmp_path, factory):
    matrix, queries = clustered
    index = make(clustered, factory)
    manifest.save(index, tmp_path, generation=7, **OWNER)
    back = load(tmp_path, factory)
    assert (back.build.factory, back.build.recall, back.build.breadth, back.count) == (
        index.build.factory,
        index.build.recall,
        index.build.breadth,
        index.count,
    )
    for a, b in zip(index.search(queries, 10), back.search(queries, 10), strict=True):
        np.testing.assert_array_equal(a, b)
    # Adding to what lies in a mapped file would end the process.
    back = Stored(back)
    back.remove([11])
    back.add([1_001], matrix[1_000:1_001])
    assert back.search(matrix[1_000:1_001], 1)[1].tolist() == [[1_001]]
    manifest.save(back, tmp_path, generation=8, **OWNER)
    again = load(tmp_path, factory)
    assert again.seqs.tolist() == back.seqs.tolist()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.faiss", "index.json", "index.safetensors"]
    live = np.setdiff1d(np.arange(1, 1_021), [5, 9, 11])
    again.sync(live, lambda after: iter([(np.arange(after + 1, 1_021), matrix[after:1_020])]))
    assert again.seqs.tolist() == live.tolist()


def test_the_manifest_says_what_the_index_is(saved):
    found = json.loads((saved / "index.json").read_text())
    assert (found["epoch"], found["generation"], found["fingerprint"]) == (2, 7, "model-a")
    assert (found["factory"], found["requested"], found["recall"]) == ("Flat", "Flat", 1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": 3}, "epoch is 2, not 3"),
        ({"fingerprint": "model-b"}, "fingerprint is 'model-a', not 'model-b'"),
        ({"factory": "auto"}, "requested is 'Flat', not 'auto'"),
        ({"digest": "0" * 64}, "the store does not know it"),
        ({"digest": None}, "the store does not know it"),
    ],
)
def test_an_index_of_something_else_is_not_used(saved, caplog, change, reason):
    assert load(saved, **change) is None
    assert reason in caplog.text
    assert "built again" in caplog.text


@pytest.mark.parametrize("name", ["index.faiss", "index.safetensors", "index.json"])
def test_any_flipped_bit_truncation_or_missing_file_is_noticed(saved, caplog, name):
    path = saved / name
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in {*range(40), *rng.integers(0, len(good), 150).tolist(), len(good) - 1}:
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        assert load(saved) is None, f"byte {position}"
    for size in (0, 1, len(good) // 2, len(good) - 2):
        path.write_bytes(good[:size])
        assert load(saved) is None
    path.write_bytes(good + b"x")
    assert load(saved) is None or name == "index.json"
    path.write_bytes(good)
    assert load(saved).count == 38
    path.unlink()
    assert load(saved) is None


def test_files_of_two_saves_do_not_mix(clustered, saved, tmp_path):
    numbers = (saved / "index.safetensors").read_bytes()
    manifest.save(make(clustered, n=41), saved, generation=8, **OWNER)
    (saved / "index.safetensors").write_bytes(numbers)
    assert load(saved) is None


def test_a_folder_without_a_cache_is_no_warning(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="cderetrieval"):
        assert load(tmp_path) is None
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_what_faiss_cannot_read_is_not_used(saved, monkeypatch):
    def refuse(*_):
        raise RuntimeError("unknown index type")

    monkeypatch.setattr("cderetrieval.index.faiss.faiss.read_index", refuse)
    assert load(saved) is None
