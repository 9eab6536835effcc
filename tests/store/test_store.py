import json
import threading

import numpy as np
import pytest

from cderetrieval.errors import InputError, StoreError
from cderetrieval.store import Store

RNG = np.random.default_rng(0)


def fill(store, ids, dimension=8):
    """Put documents with vectors, as a retriever's add does."""
    with store.transaction():
        first, count = store.put_documents((i, f"text of {i}", {"id": str(i)}) for i in ids)
        for seqs, texts in store.pending(after_seq=first - 1):
            store.put_vectors(seqs, np.array([[len(text)] * dimension for text in texts], dtype=np.float32))
    return first, count


def write_and_fail(store):
    with store.transaction():
        fill(store, ["b"])
        store.set_setting("x", 1)
        raise KeyError


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    with Store(None if request.param == "memory" else tmp_path / "a" / "store.sqlite") as store:
        yield store


def test_ids_of_different_types_stay_distinct_and_come_back(store):
    ids = [1, "1", 1.5, 1.0, True, "true", "", "é\ud800", -0.25, 2**80, np.int64(7)]
    fill(store, ids)
    back = store.live()[1]
    assert back == ids
    assert [type(i) for i in back] == [*map(type, ids[:-1]), int]
    assert store.count() == len(ids)
    assert all(i in store for i in ids)
    assert 2 not in store
    assert store.seqs_of(["1", "nobody", 1]).tolist() == [2, -1, 1]


@pytest.mark.parametrize("bad", [None, (1, 2), float("nan"), float("inf"), b"x", "\ud83d\ude00"])
def test_ids_that_would_not_come_back_are_refused_with_their_row(store, bad):
    with pytest.raises(InputError, match=r"row 1: id"):
        store.put_documents([("ok", "t", {}), (bad, "t", {})])
    assert store.count() == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", 3, {}), "text is int"),
        (("a", "t", {"f": object()}), "field 'f' cannot be stored as JSON"),
        (("a", "t", {3: 1}), "field 3 has a name that is not text"),
    ],
)
def test_bad_rows_name_row_and_field(store, row, message):
    with pytest.raises(InputError, match=f"row 2: .*{message}"):
        store.put_documents([("x", "t", {}), ("y", "t", {}), row])
    assert store.count() == 0


def test_payload_and_text_come_back_as_they_were(store):
    payload = {"s": "a\ud800b", "n": [1, 2.5, None, {"x": True}], "unicode": "漢字 \u0000"}
    store.put_documents([("a", "lone \udfff surrogate", payload)])
    assert store.documents([1, 1]) == [payload, payload]
    assert list(store.texts()) == [(1, "lone \udfff surrogate")]
    first, second = store.documents([1, 1])
    first["extra"] = 1
    assert "extra" not in second


def test_replacing_gives_a_new_number_and_drops_the_vector(store):
    fill(store, ["a", "b", "c"])
    assert fill(store, ["b", "d"]) == (4, 2)
    seqs, ids = store.live()
    assert seqs.tolist() == [1, 3, 4, 5]
    assert ids == ["a", "c", "b", "d"]
    assert store.live_seqs().tolist() == seqs.tolist()
    assert np.concatenate([s for s, _ in store.iter_vectors()]).tolist() == seqs.tolist()
    store.check()


def test_numbers_are_never_given_twice(store):
    fill(store, ["a", "b"])
    assert store.remove(["b", "a"]) == 0
    assert fill(store, ["c"]) == (3, 1)


def test_an_id_twice_in_one_call_is_refused_even_across_chunks(store):
    fill(store, ["old"])
    ids = [*range(700), 3]
    with pytest.raises(InputError, match=r"row 700: id 3 is that of row 3 too"):
        store.put_documents((i, "t", {}) for i in ids)
    with pytest.raises(InputError, match=r"row 1: id 'old' is that of row 0 too"):
        store.put_documents([("old", "t", {}), ("old", "t", {})])
    assert store.live()[1] == ["old"]


def test_remove_counts_what_was_not_there(store):
    fill(store, range(1200))
    assert store.remove([*range(1100), 5, "x", "y"]) == 2
    assert store.count() == 100
    assert store.remove([]) == 0
    store.check()


def test_documents_that_are_gone_raise(store):
    fill(store, ["a"])
    with pytest.raises(StoreError, match=r"number 9 \(1 in all\) is not in the store"):
        store.documents([1, 9])


def test_vectors_round_trip_in_chunks(store):
    matrix = RNG.standard_normal((1000, 12)).astype(np.float32)
    with store.transaction():
        first, count = store.put_documents((i, "t", {}) for i in range(1000))
        store.put_vectors(np.arange(first, first + count), matrix)
    chunks = list(store.iter_vectors(chunk=300))
    assert [len(seqs) for seqs, _ in chunks] == [300, 300, 300, 100]
    assert all(seqs.dtype == np.int64 and rows.dtype == np.float32 for seqs, rows in chunks)
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in chunks]), matrix)
    (seqs, rows), *_ = store.iter_vectors(after_seq=990)
    assert seqs.tolist() == list(range(991, 1001))
    np.testing.assert_array_equal(rows, matrix[990:])


def test_bad_vectors_are_refused(store):
    store.put_documents([("a", "t", {}), ("b", "t", {})])
    bad = np.ones((2, 3), dtype=np.float32)
    bad[1, 2] = np.nan
    with pytest.raises(InputError, match="the vector of document 1 is not finite"):
        store.put_vectors([1, 2], bad)
    with pytest.raises(InputError, match="2 rows of one length"):
        store.put_vectors([1, 2], np.ones((3, 3)))
    with pytest.raises(InputError, match=r"numbers \[7\]"):
        store.put_vectors([1, 7], np.ones((2, 3)))
    with pytest.raises(InputError, match="given twice"):
        store.put_vectors([1, 1], np.ones((2, 3)))
    store.put_vectors([1], np.ones((1, 3)))
    with pytest.raises(InputError, match="4 dimensions; the store holds dense vectors of 3"):
        store.put_vectors([2], np.ones((1, 4)))
    with pytest.raises(InputError, match="has its vector already"):
        store.put_vectors([1], np.ones((1, 3)))
    assert [seqs.tolist() for seqs, _ in store.pending()] == [[2]]


def test_pending_may_be_answered_between_chunks(store):
    with store.transaction():
        store.put_documents((i, f"{i}", {}) for i in range(250))
        seen = []
        for seqs, texts in store.pending(chunk=100):
            seen += texts
            store.put_vectors(seqs, np.ones((len(seqs), 2)))
    assert seen == [f"{i}" for i in range(250)]
    assert list(store.pending()) == []


def test_clearing_vectors_starts_an_epoch_and_frees_the_dimension(store):
    fill(store, ["a", "b"], dimension=4)
    assert (store.epoch, store.layout.dimension) == (0, 4)
    with store.transaction():
        store.clear_vectors()
        store.put_vectors([1, 2], np.ones((2, 6)))
    assert (store.epoch, store.layout.dimension) == (1, 6)


def test_a_failed_transaction_leaves_nothing(store):
    fill(store, ["a"])
    before = store.generation
    with pytest.raises(KeyError):
        write_and_fail(store)
    assert store.live()[1] == ["a"]
    assert store.get_setting("x") is None
    assert store.generation == before


def test_a_failed_call_inside_a_transaction_leaves_nothing_of_either(store):
    def change():
        with store.transaction():
            store.put_documents([("a", "t", {})])
            with pytest.raises(InputError):
                store.put_documents([*((i, "t", {}) for i in range(600)), (None, "t", {})])
            store.put_documents([("b", "t", {})])

    with pytest.raises(StoreError, match="nothing of it is kept"):
        change()
    assert store.live()[1] == []
    store.check()


def test_several_models_have_vectors_of_their_own(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.put_documents([("a", "x", {}), ("b", "y", {})])
        store.put_vectors([1, 2], np.eye(2, dtype=np.float32))
        store.put_vectors([1, 2], np.ones((2, 3), dtype=np.float32), part=2)
        assert [seqs.tolist() for seqs, _ in store.pending(part=1)] == [[1, 2]]
        assert not list(store.pending(part=2))
        store.remove(["a"])
        store.clear_vectors(part=2)
        assert store.epoch_of(2) == 1
        assert (store.epoch, store.layout_of(2)) == (0, None)
        store.put_vectors([2], np.ones((1, 5), dtype=np.float32), part=2)
    with Store(tmp_path / "s.sqlite") as store:
        assert (store.layout.dimension, store.layout_of(1), store.layout_of(2).dimension) == (2, None, 5)
        assert [seqs.tolist() for seqs, _ in store.iter_vectors(part=2)] == [[2]]
        store.check()


def test_generation_counts_commits_that_changed_something(store):
    assert store.generation == 0
    fill(store, ["a"])
    assert store.generation == 1
    store.remove(["nobody"])
    with store.transaction():
        pass
    assert store.generation == 1
    store.set_setting("x", {"y": [1]})
    assert store.generation == 2
    assert store.get_setting("x") == {"y": [1]}
    assert store.get_setting("z", 5) == 5


def test_settings_of_the_store_itself_are_refused(store):
    with pytest.raises(InputError, match="kept by the store"):
        store.set_setting("generation", 7)
    with pytest.raises(InputError, match="'x' cannot be stored as JSON"):
        store.set_setting("x", object())


def test_contexts(store):
    tensors = {"embeddings": RNG.standard_normal((5, 3)).astype(np.float32), "rows": np.arange(4)[::2]}
    store.put_context("abc", {"seed": 3, "ids": ["a", 1]}, tensors)
    store.put_context("def", {}, {})
    metadata, back = store.get_context("abc")
    assert metadata == {"seed": 3, "ids": ["a", 1]}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)
    store.put_context("abc", {"seed": 4}, {})
    assert store.get_context("abc") == ({"seed": 4}, {})
    assert store.contexts() == ["abc", "def"]
    with pytest.raises(StoreError, match="no context 'xyz'"):
        store.get_context("xyz")


def test_a_snapshot_refuses_writes_and_ends(store):
    with store.snapshot(), pytest.raises(StoreError, match="only reads"):
        store.put_documents([("a", "t", {})])
    fill(store, ["a"])
    assert store.count() == 1


def test_threads_share_a_store(store):
    fill(store, range(50))
    errors = []

    def work(n):
        try:
            for i in range(10):
                fill(store, [f"{n}-{i}"])
                assert len(store.live()[1]) == store.count() or n < 4
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert store.count() == 90
    store.check()


def test_a_closed_store_says_so(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    store.close()
    store.close()
    with pytest.raises(StoreError, match=r"s\.sqlite cannot be used .* Open it again"):
        store.count()


def test_ids_are_stored_as_ascii_json(tmp_path):
    import sqlite3

    with Store(tmp_path / "s.sqlite") as store:
        fill(store, ["é"])
    (row,) = sqlite3.connect(tmp_path / "s.sqlite").execute("SELECT id FROM documents").fetchall()
    assert row == ('"\\u00e9"',)
    assert json.loads(row[0]) == "é"


def test_rows_come_back_as_they_were_put():
    store = Store()
    rows = [(f"d{i}", f"text {i} \ud83d", {"n": i}) for i in range(7)] + [(1.0, "one", {}), (True, "two", {"a": None})]
    store.put_documents(rows)
    assert [repr(row) for row in store.rows(chunk=3)] == [repr(row) for row in rows]
    assert list(store.rows(after_seq=8)) == rows[8:]
    other = Store()
    other.put_documents(store.rows())
    assert other.live()[1] == store.live()[1]


def test_what_was_added_since_is_told_from_what_was_changed(store):
    fill(store, ["a", "b"])
    seqs, _ = store.live()
    state = store.state()
    fresh, names = store.added(state, int(seqs[-1]))
    assert (fresh.tolist(), names) == ([], [])
    fill(store, ["c", 7])
    fresh, names = store.added(state, int(seqs[-1]))
    assert names == ["c", 7]
    np.testing.assert_array_equal(np.concatenate([seqs, fresh]), store.live()[0])
    fill(store, ["a"])  # replaced
    assert store.added(state, int(seqs[-1])) is None
    seqs, state = store.live()[0], store.state()
    store.remove(["c"])
    assert store.added(state, int(seqs[-1])) is None
    fill(store, ["c"])
    assert store.added(state, int(seqs[-1])) is None, "as many as before, but not the same"
