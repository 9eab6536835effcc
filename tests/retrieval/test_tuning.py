import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.evaluation.metrics import evaluate_run
from cderetrieval.retrieval.fusion import Fusion, PartRanking, fuse
from cderetrieval.retrieval.tuning import ndcg, search_weights, simplex


@pytest.mark.parametrize(("n_parts", "points"), [(1, 1), (2, 21), (3, 66), (4, 286), (5, 1001), (6, 252)])
def test_the_grid_covers_the_simplex(n_parts, points):
    grid = simplex(n_parts)
    assert grid.shape == (points, n_parts)
    np.testing.assert_allclose(grid.sum(axis=1), 1)
    assert (grid >= 0).all()
    for corner in np.eye(n_parts):
        assert (grid == corner).all(axis=1).any()
    assert len(np.unique(grid, axis=0)) == points


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 12))
def test_ndcg_is_that_of_the_evaluation(seed, k):
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(40, int(rng.integers(1, 20)), replace=False))
    scores = rng.permutation(len(rows)).astype(np.float64)[:, None] + np.zeros((1, 3))
    grades = {int(row): int(rng.integers(0, 4)) for row in rng.choice(45, int(rng.integers(1, 9)), replace=False)}
    run = {"q": {str(row): float(score) for row, score in zip(rows, scores[:, 0], strict=True)}}
    qrels = {"q": {str(row): grade for row, grade in grades.items()}}
    expected = evaluate_run(qrels, run, k_values=[k]).mean()[f"ndcg@{k}"]
    assert ndcg(rows, scores, grades, k) == pytest.approx([expected] * 3)


def test_documents_that_were_not_found_gain_nothing():
    scores = np.array([[1.0, 1.0], [0.0, -np.inf]])
    assert ndcg(np.array([2, 5]), scores, {5: 1}, k=10) == pytest.approx([1 / np.log2(3), 0.0])
    assert ndcg(np.array([2, 5]), scores, {5: 0}, k=10).tolist() == [0, 0]
    assert ndcg(np.array([], dtype=np.int64), np.zeros((0, 2)), {5: 1}, k=10).tolist() == [0, 0]


def rankings(n_queries=40, n=30, seed=0):
    """Two parts that see different halves of the relevance, and one of noise."""
    rng = np.random.default_rng(seed)
    relevant = rng.integers(0, n, n_queries)
    parts = []
    for strength in (1.2, 0.8, 0.0):
        scores = rng.standard_normal((n_queries, n))
        scores[np.arange(n_queries), relevant] += 2 * strength
        rows = np.argsort(-scores, axis=1)
        parts.append(PartRanking(np.take_along_axis(scores, rows, axis=1), rows))
    return parts, [{int(row): 1} for row in relevant]


@pytest.mark.parametrize("method", ["rrf", "weighted"])
def test_what_is_found_is_the_best_of_the_grid(method):
    parts, grades = rankings()
    tuned = search_weights(["a", "b", "noise"], parts, grades, Fusion(method), 10)
    assert list(tuned.weights) == ["a", "b", "noise"]
    assert tuned.score >= max(tuned.parts.values())
    assert tuned.score >= tuned.untuned
    assert tuned.score == pytest.approx(tuned.scores.max())
    assert tuned.weights["noise"] <= min(tuned.weights["a"], 0.2)
    for weights, score in list(zip(tuned.grid, tuned.scores, strict=True))[::13]:
        found = fuse(parts, Fusion(method, tuple(weights)), 10)
        by_hand = [
            ndcg(np.sort(r), s[np.argsort(r)][:, None], g, 10)[0] for (s, r), g in zip(found, grades, strict=True)
        ]
        assert np.mean(by_hand) == pytest.approx(score, abs=1e-9)


def test_of_equal_scores_the_most_even_weights():
    parts, grades = rankings()
    tuned = search_weights(["a", "b"], [parts[0], parts[0]], grades, Fusion("weighted"), 10)
    assert tuned.weights == {"a": 0.5, "b": 0.5}


def test_shown_to_people():
    parts, grades = rankings()
    tuned = search_weights(["a", "b"], parts[:2], grades, Fusion(), 5)
    assert list(tuned.to_frame().columns) == ["a", "b", "ndcg@5"]
    assert len(tuned.to_frame()) == 21
    assert "on 40 queries" in str(tuned)
    assert f"a {tuned.parts['a']:.4f}" in str(tuned)
