import numpy as np
import pytest

from cderetrieval.errors import InputError
from cderetrieval.index.exact import CHUNK, exact_search


def test_against_a_full_sort_over_several_chunks():
    rng = np.random.default_rng(0)
    matrix, queries = rng.standard_normal((2 * CHUNK + 100, 6)), rng.standard_normal((7, 6))
    live = rng.random(len(matrix)) < 0.7
    scores = queries @ matrix.T
    scores[:, ~live] = -np.inf
    order = np.argsort(-scores.round(6), axis=1, kind="stable")[:, :20]
    found_scores, found = exact_search(matrix, queries, 20, live)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_allclose(found_scores, np.take_along_axis(scores, order, axis=1), atol=1e-6)


def test_ties_stand_in_order_of_number_across_chunks():
    matrix = np.tile([[1.0, 0.0]], (2 * CHUNK + 5, 1))
    matrix[3] = [0, 1]
    _, found = exact_search(matrix, np.array([[1.0, 0.0]]), 5)
    assert found.tolist() == [[0, 1, 2, 4, 5]]


def test_fewer_rows_than_k_and_none():
    assert exact_search(np.eye(3), np.eye(3)[:2], 9)[1].shape == (2, 3)
    assert exact_search(np.empty((0, 3)), np.eye(3)[:2], 9)[1].shape == (2, 0)


def test_bad_arguments():
    with pytest.raises(InputError, match="k=0"):
        exact_search(np.eye(3), np.eye(3), 0)
