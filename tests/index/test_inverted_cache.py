"""The inverted index on disk: believed only where it fits, and then without reading it."""

import json
import logging

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from cderetrieval.index import manifest
from cderetrieval.index.base import DamagedIndexError
from cderetrieval.index.inverted import InvertedIndex
from cderetrieval.types import TermEmbeddings
from cderetrieval.vectors import Layout, take, weights_of

from .stored import Stored

V, D = 50, 3
OWNER = {"epoch": 2, "fingerprint": "model-a"}


def sparse(count, seed=0):
    return csr_array(
        random_array((count, V), density=0.1, rng=np.random.default_rng(seed), format="csr", dtype=np.float32)
    )


def embedded(count, seed=0):
    weights = sparse(count, seed)
    values = np.random.default_rng(seed).random((weights.nnz, D), dtype=np.float32)
    return TermEmbeddings(weights, values.astype(np.float16).astype(np.float32))


MAKERS = {"sparse": sparse, "sparse-embed": embedded}


def layout(kind):
    return Layout(kind, V, D if kind == "sparse-embed" else 0)


def make(kind, count=40):
    index = Stored(InvertedIndex(V, layout(kind).embedding_size))
    vectors = MAKERS[kind](count)
    index.add(np.arange(1, count - 4), take(vectors, np.arange(count - 5)))
    index.add(np.arange(count - 4, count + 1), take(vectors, np.arange(count - 5, count)))
    index.remove([5, 9])
    return index


def load(folder, kind="sparse", **changes):
    try:
        digest = json.loads((folder / "index.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        digest = None
    wanted = changes.pop("layout", layout(kind))
    index = InvertedIndex(wanted.dimension, wanted.embedding_size)
    return index if manifest.load(index, folder, **{**OWNER, "digest": digest, **changes}) else None


@pytest.fixture(params=MAKERS)
def kind(request):
    return request.param


@pytest.fixture
def saved(kind, tmp_path):
    manifest.save(make(kind), tmp_path, generation=7, **OWNER)
    return tmp_path


def same(a, b, kind):
    queries = MAKERS[kind](8, seed=3)
    for x, y in zip(a.search(queries, 30), b.search(queries, 30), strict=True):
        np.testing.assert_array_equal(x, y)


def test_round_trip_then_change_and_save_again(saved, kind):
    index, back = make(kind), Stored(load(saved, kind))
    assert back.seqs.tolist() == index.seqs.tolist()
    assert [segment.size for segment in back.segments] == [segment.size for segment in index.segments]
    same(index, back, kind)
    files = {path.name: path.stat().st_mtime_ns for path in saved.glob("postings-*.bin")}
    assert len(files) == 2
    for changed in (index, back):
        changed.remove([11])
        changed.add(np.arange(41, 44), MAKERS[kind](3, seed=9))
    same(index, back, kind)
    manifest.save(back, saved, generation=8, **OWNER)
    again = load(saved, kind)
    assert again.seqs.tolist() == index.seqs.tolist()
    same(index, again, kind)
    left = {path.name: path.stat().st_mtime_ns for path in saved.glob("postings-*.bin")}
    assert len(left) == 2
    kept = files.items() & left.items()
    assert len(kept) == 1, "the large segment lies where it lay, the two small ones are one new file"
    assert not list(saved.glob("*.tmp"))


def test_the_manifest_says_what_the_index_is(saved, kind):
    found = json.loads((saved / "index.json").read_text())
    assert (found["epoch"], found["generation"], found["fingerprint"]) == (2, 7, "model-a")
    assert (found["index"], found["kind"], found["dimension"]) == ("inverted", kind, V)


def test_an_index_of_something_else_is_not_used(saved, kind, caplog):
    for change, reason in (
        ({"epoch": 3}, "epoch is 2, not 3"),
        ({"fingerprint": "model-b"}, "fingerprint is 'model-a', not 'model-b'"),
        ({"digest": "0" * 64}, "the store does not know it"),
        ({"digest": None}, "the store does not know it"),
        ({"layout": Layout(kind, V + 1, layout(kind).embedding_size)}, "dimension is 50, not 51"),
        ({"layout": Layout("sparse-embed", V, D + 1)}, "not 'sparse-embed'|embedding_size is 3, not 4"),
    ):
        caplog.clear()
        assert load(saved, kind, **change) is None
        assert "built again" in caplog.text
        assert any(part in caplog.text for part in reason.split("|"))


def merged_again(index):
    """Remove every other document: more than a fifth of each segment, which is then written anew."""
    index.sync(index.seqs[::2], lambda after: iter(()))


def first_answer(folder, kind):
    """Answers of the index in a folder; None where it is found not to be what was saved."""
    index = load(folder, kind)
    if index is None:
        return None
    try:
        return index.search(MAKERS[kind](40), 40)
    except DamagedIndexError:
        return None


@pytest.mark.parametrize("which", ["index.json", "index.safetensors", 0, 1])
def test_any_flipped_bit_truncation_or_missing_file_is_noticed(saved, kind, which):
    path = saved / which if isinstance(which, str) else sorted(saved.glob("postings-*.bin"))[which]
    expected = first_answer(saved, kind)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    noticed = 0
    for position in {*range(20), *rng.integers(0, len(good), 100).tolist(), len(good) - 1}:
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        found = first_answer(saved, kind)
        noticed += found is None
        if found is not None:  # a list that no query asked for
            assert path.suffix == ".bin"
            np.testing.assert_array_equal(found[1], expected[1])
            with pytest.raises(DamagedIndexError):
                merged_again(load(saved, kind))
    assert noticed > 50
    for size in (0, 1, len(good) // 2, len(good) - 2):
        path.write_bytes(good[:size])
        assert load(saved, kind) is None
    path.write_bytes(good + b"x")
    assert load(saved, kind) is None or which == "index.json"
    path.write_bytes(good)
    assert load(saved, kind).count == 38
    path.unlink()
    assert load(saved, kind) is None


def test_a_damaged_file_is_written_anew_and_not_taken_for_good(saved, kind):
    path = max(saved.glob("postings-*.bin"), key=lambda file: file.stat().st_size)
    good = path.read_bytes()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    assert first_answer(saved, kind) is None
    manifest.save(make(kind), saved, generation=8, **OWNER)
    assert path.read_bytes() == good
    same(load(saved, kind), make(kind), kind)


def test_files_of_two_saves_do_not_mix(saved, kind):
    numbers = (saved / "index.safetensors").read_bytes()
    manifest.save(make(kind, 41), saved, generation=8, **OWNER)
    (saved / "index.safetensors").write_bytes(numbers)
    assert load(saved, kind) is None


def test_opening_reads_no_list(saved, kind):
    index = load(saved, kind)
    segment = index.segments[0]
    assert segment.postings.checksum._unseen.sum() == (np.diff(segment.postings.starts) > 0).sum()
    assert not segment.postings.rows.flags.writeable
    assert np.shares_memory(segment.postings._csc().indices, segment.postings.rows), "scipy has no copy of its own"
    query = take(MAKERS[kind](1, seed=3), [0])
    index.search(query, 5)
    seen = np.flatnonzero(~segment.postings.checksum._unseen & (np.diff(segment.postings.starts) > 0))
    assert set(seen) <= set(weights_of(query).indices.tolist())


def test_a_folder_without_a_cache_is_no_warning(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="cderetrieval"):
        assert load(tmp_path) is None
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_an_index_of_empty_documents_round_trips(tmp_path):
    index = Stored(InvertedIndex(V))
    index.add([3, 4], csr_array((2, V), dtype=np.float32))
    manifest.save(index, tmp_path, generation=1, **OWNER)
    back = load(tmp_path)
    assert back.seqs.tolist() == [3, 4]
    assert back.search(sparse(1), 5)[1].shape == (1, 0)
