"""Vectors that are given: finite real numbers that fit what they are for, or an error that says what they are."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from cderetrieval import Retriever
from cderetrieval.errors import InputError
from cderetrieval.testing import HashEncoder, WordEncoder
from cderetrieval.types import TermEmbeddings
from cderetrieval.vectors import Layout, as_vectors, canonical, checked, dense_rows, is_vectors


class Short(HashEncoder):
    """Vectors of four dimensions."""

    dimension = 4

    def encode_query(self, texts, *, show_progress=False):
        return super().encode_query(texts)[:, :4]

    encode_document = encode_query


ROWS = np.eye(2, 4, dtype=np.float32)
GOOD = [
    torch.eye(2, 4, dtype=torch.bfloat16),
    torch.eye(2, 4, requires_grad=True),
    torch.eye(2, 4, dtype=torch.int64),
    np.eye(2, 4, dtype=bool),
    np.eye(2, 4, dtype=np.float16),
    np.asfortranarray(np.eye(2, 4)),
    np.ma.masked_array(np.eye(2, 4)),
    [[1, 0, 0, 0], [0, 1, 0, 0]],
    pd.DataFrame(np.eye(2, 4)),
]
BAD = [
    (np.eye(2, 4) * 1j, "hold complex numbers"),
    (torch.eye(2, 4) * 1j, "hold complex numbers"),
    (np.array([["1", "2", "3", "4"]]), "hold text"),
    (np.array([[b"1", b"2", b"3", b"4"]]), "hold bytes"),
    (np.array([[1, 2, 3, 4]], dtype=object), "hold objects"),
    (pd.DataFrame({"a": ["x"], "b": [1], "c": [1], "d": [1]}), "hold objects"),
    (np.zeros((2, 4), "M8[s]"), "hold dates"),
    (np.ma.masked_array(np.eye(2, 4), mask=np.eye(2, 4)), "2 numbers are masked out"),
    ([[1, 2, 3, 4], [1]], "a list, are not a matrix of numbers"),
    (torch.eye(2, 4).to_sparse(), "a Tensor, are not a matrix of numbers"),
    (np.float32(1), r"have shape \(\)"),
    (np.ones(4), r"have shape \(4,\)"),
    (np.array([[1, 1, 1, 1], [1e60, 1, 1, 1]]), "vector of thing 8 has numbers too large to be stored"),
    (np.array([[0, 0, 0, 0], [1e-60, 0, 0, 0]]), "vector of thing 8 has numbers too small to be stored"),
    (np.array([[1, 1, 1, 1], [1, np.nan, 1, 1]]), "vector of thing 8 is not finite"),
]


@pytest.mark.parametrize("vectors", GOOD, ids=lambda some: f"{type(some).__name__} {getattr(some, 'dtype', '')}")
def test_real_numbers_are_taken_in_any_form(vectors):
    found = dense_rows(vectors, 4, "thing")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ROWS)


@pytest.mark.parametrize(("vectors", "expected"), BAD)
def test_all_else_is_refused_by_what_it_is(vectors, expected):
    with pytest.raises(InputError, match=expected):
        dense_rows(vectors, 4, "thing", first=7)


@pytest.mark.parametrize(("vectors", "expected"), [*BAD[:2], *BAD[6:10], *BAD[12:]])
def test_a_retriever_refuses_them_and_stays_as_it_was(vectors, expected):
    retriever = Retriever(Short()).add(["one"])
    with pytest.raises(InputError, match=expected.replace("thing 8", "document 1")):
        retriever.add(["two", "three"], vectors=vectors)
    assert len(retriever) == 1
    if is_vectors(vectors):
        with pytest.raises(InputError):
            retriever(vectors)


def test_a_retriever_takes_tensors_of_bfloat16():
    retriever = Retriever(Short()).add(["one", "two"], vectors=torch.eye(2, 4, dtype=torch.bfloat16))
    hits = retriever(torch.eye(2, 4, dtype=torch.bfloat16), k=1)
    assert [hit[0]["id"] for hit in hits] == [0, 1]


def broken(kind=sparse.csr_array, indices=(0, 1), starts=(0, 1, 2), dtype=np.int32, data=(1.0, 1.0)):
    matrix = kind((2, 4), dtype=np.float32)
    matrix.data = np.array(data, dtype=np.float32)
    matrix.indices, matrix.indptr = np.array(indices, dtype), np.array(starts, dtype)
    return matrix


def coo(rows, columns):
    matrix = sparse.coo_array((np.ones(2), ([0, 1], [0, 1])), shape=(2, 4))
    matrix.coords = (np.array(rows), np.array(columns))
    return matrix


def lil():
    matrix = sparse.lil_array((2, 4))
    matrix.rows[1], matrix.data[1] = [9], [1.0]
    return matrix


def bsr():
    matrix = sparse.bsr_array(np.ones((2, 4)), blocksize=(1, 2))
    matrix.indices = np.array([0, 1, 0, 5], dtype=np.int32)
    return matrix


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (broken(indices=(0, 4)), "row 1 has an entry in column 4"),
        (broken(indices=(-1, 0)), "row 0 has an entry in column -1"),
        (broken(indices=(0, 2**40), dtype=np.int64), f"row 1 has an entry in column {2**40}"),
        (broken(starts=(0, 2, 1)), "ascending places"),
        (broken(starts=(1, 1, 2)), "ascending places"),
        (broken(starts=(0, 2)), "ascending places"),
        (broken(starts=(0, 1, 9)), "rows end at 9"),
        (broken(data=(1.0,)), "its data at 1"),
        (broken(indices=(0, 1.5), dtype=np.float64), "not whole numbers"),
        (broken(sparse.csc_array, indices=(0, 7), starts=(0, 1, 2, 2, 2)), "contradicts itself"),
        (coo([0, 1], [0, 4]), "not all of its entries lie in 4"),
        (coo([0, 2], [0, 1]), "not all of its entries lie in 2"),
        (lil(), "row 1 has an entry in column 9"),
        (bsr(), "contradicts itself"),
        (sparse.csr_array(np.eye(2, 4) * 1j), "hold complex numbers"),
        (sparse.csr_array(np.eye(2, 4) * 1e60), "vector of document 0 has numbers too large"),
    ],
)
def test_a_sparse_matrix_that_contradicts_itself_is_never_stored(matrix, expected):
    encoder = WordEncoder()
    with pytest.raises(InputError, match=expected):
        checked(matrix, Layout("sparse", 4), "document")
    wide = matrix
    if matrix.format == "csr" and "complex" not in expected:
        wide = sparse.csr_array((2, encoder.dimension), dtype=np.float32)
        wide.data, wide.indptr = matrix.data, matrix.indptr
        wide.indices = np.where(matrix.indices > 3, matrix.indices + encoder.dimension, matrix.indices)
        retriever = Retriever(encoder).add(["owl"])
        with pytest.raises(InputError):
            retriever.add(["bee", "moon"], vectors=wide)
        with pytest.raises(InputError):
            retriever(wide)
        assert len(retriever) == 1
        assert retriever("owl")[0][0]["id"] == 0


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_every_sound_form_of_a_sparse_matrix_is_taken(form):
    found = canonical(sparse.csr_array(np.diag([1.0, 2, 3, 4])).asformat(form))
    np.testing.assert_array_equal(found.toarray(), np.diag([1.0, 2, 3, 4]))


def test_terms_are_put_in_order_whatever_the_matrix_believes():
    matrix = sparse.csr_array(np.array([[1.0, 2, 0, 0]]))
    assert matrix.has_canonical_format
    matrix.indices[:] = [1, 0]
    found = canonical(matrix)
    assert (found.indices.tolist(), found.data.tolist()) == ([0, 1], [2.0, 1.0])
    twice = canonical(broken(indices=(1, 1), starts=(0, 2, 2)))
    assert (twice.indices.tolist(), twice.data.tolist()) == ([1], [2.0])
    unsigned = canonical(broken(dtype=np.uint32))
    assert unsigned.indices.tolist() == [0, 1]


def test_term_embeddings_are_checked_the_same_way():
    layout = Layout("sparse-embed", 4, 1)
    outside = TermEmbeddings(broken(indices=(0, 4)), np.ones((2, 1)))
    with pytest.raises(InputError, match="row 1 has an entry in column 4"):
        checked(outside, layout, "document")
    for weights in (broken(indices=(1, 0), starts=(0, 2, 2)), coo([0, 1], [0, 1])):
        with pytest.raises(InputError, match="ascending terms"):
            checked(TermEmbeddings(weights, np.ones((2, 1))), layout, "document")
    with pytest.raises(InputError, match="hold complex numbers"):
        checked(TermEmbeddings(broken(), 1j * np.ones((2, 1))), layout, "document")
    assert checked(TermEmbeddings(broken(), np.ones((2, 1))), layout, "document").shape == (2, 4)


def test_what_has_a_shape_of_its_own_is_left_alone():
    matrix = sparse.csr_array(np.eye(3))
    assert as_vectors(matrix, "document") is matrix
