"""Sparse vectors in the store: what goes in comes back, and nothing else does."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from cderetrieval.errors import InputError, MismatchError, StoreError
from cderetrieval.store import Store
from cderetrieval.types import TermEmbeddings
from cderetrieval.vectors import Layout, weights_of

V, D = 40, 3


def sparse(rows, vocabulary=V):
    """A csr_array of rows given as dictionaries of term to weight."""
    matrix = np.zeros((len(rows), vocabulary), dtype=np.float32)
    for row, weights in zip(matrix, rows, strict=True):
        for term, weight in weights.items():
            row[term] = weight
    return csr_array(matrix)


def embedded(rows, vocabulary=V, size=D):
    weights = sparse(rows, vocabulary)
    values = np.arange(weights.nnz * size, dtype=np.float32).reshape(weights.nnz, size) / 8
    return TermEmbeddings(weights, values)


ROWS = [{3: 1.5, 39: 0.25}, {}, {0: 7.0}, {1: 0.5, 2: 0.5, 3: 0.125}]
MAKERS = {"sparse": sparse, "sparse-embed": embedded}


def store_of(vectors, path=None):
    store = Store(path)
    count = vectors.shape[0]
    store.put_documents((i, f"text {i}", {}) for i in range(count))
    store.put_vectors(np.arange(1, count + 1), vectors)
    return store


def equal(found, expected):
    a, b = weights_of(found), weights_of(expected)
    assert a.dtype == np.float32
    assert a.shape == b.shape
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert isinstance(found, TermEmbeddings) == isinstance(expected, TermEmbeddings)
    if isinstance(expected, TermEmbeddings):
        assert found.embeddings.dtype == np.float16
        np.testing.assert_array_equal(found.embeddings, expected.embeddings.astype(np.float16))


@pytest.mark.parametrize("kind", MAKERS)
def test_vectors_come_back_as_they_went_in(kind, tmp_path):
    vectors = MAKERS[kind](ROWS)
    store_of(vectors, tmp_path / "store.sqlite").close()
    with Store(tmp_path / "store.sqlite") as store:
        assert store.layout == Layout(kind, V, D if kind == "sparse-embed" else 0)
        assert store.layout.dimension == V
        ((seqs, found),) = store.iter_vectors()
        assert seqs.tolist() == [1, 2, 3, 4]
        equal(found, vectors)
        store.remove([0])
        chunks = list(store.iter_vectors(chunk=2))
        assert [s.tolist() for s, _ in chunks] == [[2, 3], [4]]
        equal(chunks[0][1], MAKERS[kind](ROWS[1:3]) if kind == "sparse" else vectors.take([1, 2]))
        store.check()


@given(
    rows=st.lists(
        st.dictionaries(st.integers(0, V - 1), st.floats(0.0078125, 128, width=32), max_size=8), min_size=1, max_size=6
    ),
    kind=st.sampled_from(list(MAKERS)),
)
@settings(deadline=None, max_examples=40)
def test_any_rows_round_trip(rows, kind):
    vectors = MAKERS[kind](rows)
    with store_of(vectors) as store:
        ((_, found),) = store.iter_vectors()
        equal(found, vectors)


def test_a_matrix_in_another_form_is_stored_in_one():
    unsorted = csr_array((np.array([2.0, 1.0, 4.0, 0.0]), np.array([5, 2, 2, 1]), np.array([0, 4])), shape=(1, V))
    with store_of(unsorted.copy()) as store:
        ((_, found),) = store.iter_vectors()
        equal(found, sparse([{2: 5.0, 5: 2.0}]))
    assert unsorted.indices.tolist() == [5, 2, 2, 1], "the caller's matrix is as it was"
    with store_of(sparse(ROWS).tocoo()) as store:
        equal(next(store.iter_vectors())[1], sparse(ROWS))


def test_one_store_holds_one_layout():
    store = store_of(sparse(ROWS))
    store.put_documents([("new", "t", {})])
    for other, named in (
        (np.ones((1, V), dtype=np.float32), "these are dense vectors of 40 .*; the store holds sparse vectors"),
        (sparse([{1: 1.0}], vocabulary=41), "a vocabulary of 41 terms; the store holds .* of 40 terms"),
        (embedded([{1: 1.0}]), "with embeddings of 3 dimensions; the store holds"),
    ):
        with pytest.raises(InputError, match=named):
            store.put_vectors([5], other)
    with store.transaction():
        store.clear_vectors()
        assert store.layout is None
        store.put_vectors(np.arange(1, 6), embedded([*ROWS, {1: 1.0}]))
    assert store.layout == Layout("sparse-embed", V, D)
    assert store.epoch == 1


def test_bad_sparse_vectors_are_refused():
    store = Store()
    store.put_documents([("a", "t", {}), ("b", "t", {})])
    bad = sparse([{1: 1.0}, {2: 1.0}])
    bad.data[1] = np.nan
    with pytest.raises(InputError, match="the vector of document 1 is not finite"):
        store.put_vectors([1, 2], bad)
    large = embedded([{1: 1.0}, {2: 1.0}])
    large.embeddings[1, 0] = 70_000
    with pytest.raises(InputError, match="holds 70000; term embeddings are stored in float16, up to 65504"):
        store.put_vectors([1, 2], large)
    large.embeddings[1, 0] = np.inf
    with pytest.raises(InputError, match="the vector of document 1 is not finite"):
        store.put_vectors([1, 2], large)
    zeros = embedded([{1: 1.0}, {2: 1.0}])
    zeros.weights.data[0] = 0
    with pytest.raises(InputError, match="no zeros stored"):
        store.put_vectors([1, 2], zeros)
    store.put_vectors([1], embedded([{1: 1.0}]))
    with pytest.raises(InputError, match=r"of 2 dimensions; the store holds .* of 3 dimensions"):
        store.put_vectors([2], embedded([{1: 1.0}], size=2))
    assert store.count() == 2


def embed_again(store, seqs):
    with store.transaction():
        store.clear_vectors()
        store.put_vectors(seqs, sparse([{1: 1.0}]))


def version(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def test_only_sparse_vectors_raise_the_version_of_the_file(tmp_path):
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        store.put_documents([("a", "t", {})])
        assert version(path) == 1
        store.put_vectors([1], np.ones((1, 4)))
        assert version(path) == 1, "a program that knows only dense vectors can read this one"
        with pytest.raises(InputError, match="numbers \\[7\\]"):
            embed_again(store, [7])
        assert version(path) == 1
        embed_again(store, [1])
    assert version(path) == 2
    with Store(path) as store:
        assert store.layout == Layout("sparse", V)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_flipped_bit_is_found(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("cderetrieval.store.schema.CHECK_LIMIT", 0)
    path = tmp_path / "store.sqlite"
    store_of(MAKERS[kind]([{7: 1234.5}]), path).close()
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(1234.5).tobytes())] ^= 1
    path.write_bytes(data)
    with Store(path) as store, pytest.raises(StoreError, match="vector of row 1 does not match its checksum"):
        list(store.iter_vectors())


@pytest.mark.parametrize(
    ("records", "named"),
    [
        ([(3, 1.0), (3, 1.0)], "do not ascend"),
        ([(3, 1.0), (2, 1.0)], "do not ascend"),
        ([(V, 1.0)], "do not ascend within sparse vectors over a vocabulary of 40"),
        ([(-1, 1.0)], "do not ascend"),
    ],
)
def test_a_blob_that_is_no_vector_is_damage(records, named, tmp_path):
    """Whole by its checksum, but not what this version writes."""
    import zlib

    path = tmp_path / "store.sqlite"
    store_of(sparse([{1: 1.0}, {2: 1.0}]), path).close()
    blob = np.array(records, dtype="<i4,<f4").tobytes()
    for payload, expected in ((blob, named), (blob[:-1], "part of a term")):
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE vectors SET vector = ?, checksum = ? WHERE seq = 2", (payload, zlib.crc32(payload, 2))
            )
        connection.close()
        with Store(path) as store, pytest.raises(StoreError, match=expected):
            list(store.iter_vectors())


def test_query_vectors_of_another_vocabulary_are_named():
    from cderetrieval.vectors import checked

    with pytest.raises(MismatchError, match=r"query vectors have shape \(1, 41\), and this index a vocabulary of 40"):
        checked(sparse([{1: 1.0}], vocabulary=41), Layout("sparse", V), "query")
    with pytest.raises(InputError, match="query vectors are 'dense'"):
        checked(np.ones((1, V)), Layout("sparse", V), "query")
