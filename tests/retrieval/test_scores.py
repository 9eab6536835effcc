import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.errors import ConfigError
from cderetrieval.retrieval.fusion import Fusion, PartRanking, candidates, fuse


def ranking(*hits, depth=4, unfound=None):
    """A ranking of one query from (row, score) pairs, padded to a depth."""
    rows = [row for row, _ in hits] + [-1] * (depth - len(hits))
    scores = [score for _, score in hits] + [-np.inf] * (depth - len(hits))
    return PartRanking(np.array([scores], dtype=np.float32), np.array([rows]), unfound)


def fused(rankings, fusion, k=10):
    [(scores, rows)] = fuse(rankings, fusion, k)
    return dict(zip(rows.tolist(), scores.tolist(), strict=True))


def test_reciprocal_ranks_by_hand():
    a, b = ranking((3, 0.9), (1, 0.2)), ranking((1, 7.0), (2, 5.0))
    assert fused([a, b], Fusion(rrf_k=60)) == pytest.approx({1: 1 / 62 + 1 / 61, 3: 1 / 61, 2: 1 / 62}, abs=1e-6)
    assert fused([a, b], Fusion(rrf_k=0, weights=(2, 1))) == pytest.approx({3: 2.0, 1: 1 + 1, 2: 0.5})


def test_scores_above_the_floor_in_units_of_the_spread():
    cut = ranking((5, 0.8), (6, 0.6), (7, 0.5), (8, 0.4))  # as many as were asked for: there may be others below 0.4
    whole = ranking((6, 10.0), (9, 5.0), unfound=0.0)  # all that match: others have 0
    found = fused([cut, whole], Fusion("weighted", (0.5, 0.5)))
    assert found == pytest.approx({6: 0.25 + 0.5, 5: 0.5, 9: 0.25, 7: 0.125, 8: 0.0})
    assert list(found) == [6, 5, 9, 7, 8]
    deviation = np.std([0.8, 0.6, 0.5, 0.4])
    alone = fused([cut], Fusion("weighted", (1,), "z-score"))
    assert alone == pytest.approx({5: 0.4 / deviation, 6: 0.2 / deviation, 7: 0.1 / deviation, 8: 0.0}, abs=1e-5)
    full = ranking((6, 10.0), (9, 5.0), depth=2, unfound=0.0)  # cut: what else matches has 5 at most
    assert fused([full], Fusion("weighted", depth=2)) == {6: 1.0, 9: 0.0}
    assert fused([full], Fusion("weighted")) == {6: 1.0, 9: 0.5}, "narrow, but not cut: it was asked for more"


def test_one_hit_no_hit_and_equal_scores():
    none, one = ranking(unfound=0.0), ranking((2, 3.0), unfound=0.0)
    equal = ranking((1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5))
    for fusion in (Fusion(), Fusion("weighted"), Fusion("weighted", normalization="z-score")):
        assert fused([none, none], fusion) == {}
        assert list(fused([none, one], fusion)) == [2]
        assert set(fused([equal, none], fusion)) == {1, 2, 3, 4}
    assert fused([none, one], Fusion("weighted")) == {2: 0.5}
    noisy = PartRanking(np.full((1, 6), 1.1), np.arange(6)[None], 0.0)
    assert np.std(noisy.scores) > 0, "for numpy"
    assert set(fused([noisy, equal], Fusion("weighted", normalization="z-score")).values()) == {0.0}
    assert fused([equal], Fusion("weighted")) == {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0}


@pytest.mark.parametrize("how", ["rrf", "weighted"])
def test_scores_do_not_depend_on_how_many_are_asked_for(how):
    rng = np.random.default_rng(0)
    rankings = []
    for _ in range(2):
        scores = rng.standard_normal((20, 60)).astype(np.float32)
        rows = np.argsort(-scores, axis=1)
        rankings.append(PartRanking(np.take_along_axis(scores, rows, axis=1), rows))
    fusion = Fusion(how, (0.3, 0.7), depth=12)
    everything = fuse(rankings, fusion, 60)
    for k in (1, 5, 12, 13, 30, 59):
        asked = max(k, fusion.depth)
        cut = [PartRanking(ranking.scores[:, :asked], ranking.rows[:, :asked]) for ranking in rankings]
        for (scores, rows), (all_scores, all_rows) in zip(fuse(cut, fusion, k), everything, strict=True):
            assert len(rows) == k
            n = (all_scores[:k] >= 0).sum()  # those that count
            np.testing.assert_array_equal(rows[:n], all_rows[:n])
            np.testing.assert_array_equal(scores[:n], all_scores[:n])
    for scores, rows in everything:
        assert sorted(rows.tolist()) == list(range(60)), "all documents come, each once"
        assert (np.diff(scores) <= 0).all()
        assert scores[-1] > -1
        assert 12 <= (scores >= 0).sum() <= 24


def test_what_lies_below_by_hand():
    a, b = ranking((1, 9.0), (2, 8.0), (3, 7.0)), ranking((1, 5.0), (3, 4.0), (4, 3.0), (2, 1.0))
    found = fused([a, b], Fusion(weights=(1, 1), rrf_k=0, depth=1))
    tail = {3: (1 / 3 + 1 / 2) / 2 - 1, 2: (1 / 2 + 1 / 4) / 2 - 1, 4: 1 / 3 / 2 - 1}
    assert found == pytest.approx({1: 2.0, **tail}, abs=1e-6)
    assert list(fused([a, b], Fusion(weights=(1, 0), rrf_k=0, depth=1))) == [1, 2, 3]
    assert list(fused([a, b], Fusion(depth=1), k=1)) == [1]


def test_a_part_of_weight_zero_adds_no_documents():
    a, b = ranking((1, 0.9), (2, 0.1)), ranking((3, 5.0), (4, 1.0))
    assert list(fused([a, b], Fusion("weighted", (1, 0)))) == [1, 2]
    assert list(fused([a, b], Fusion(weights=(0, 1)))) == [3, 4]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from(["rrf", "min-max", "z-score"]), st.integers(1, 12))
def test_equals_a_plain_loop(seed, n_parts, how, k):
    rng = np.random.default_rng(seed)
    if how == "rrf":
        fusion = Fusion(weights=tuple(rng.random(n_parts) + 0.1), rrf_k=60)
    else:
        fusion = Fusion("weighted", None, how, depth=5)
    rankings, lists = [], []
    for _ in range(n_parts):
        n, depth = int(rng.integers(0, 6)), 5
        rows = rng.choice(9, n, replace=False)
        scores = np.sort(rng.integers(1, 6, n).astype(np.float32))[::-1]
        rankings.append(ranking(*zip(rows.tolist(), scores.tolist(), strict=True), depth=depth, unfound=0.0))
        lists.append((rows.tolist(), scores.tolist(), n == depth))
    expected = {}
    for weight, (rows, scores, is_cut) in zip(fusion.vector(n_parts), lists, strict=True):
        floor = scores[-1] if is_cut else 0.0
        unit = (max(scores) - floor if how == "min-max" else float(np.std(scores))) if scores else 0.0
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1):
            gain = 1 / (60 + rank) if how == "rrf" else (score - floor) / unit if unit else 0.0
            expected[row] = expected.get(row, 0.0) + weight * gain
    order = sorted(expected, key=lambda row: (-round(expected[row], 6), row))[:k]
    found = fused(rankings, fusion, k)
    assert list(found) == order
    assert found == pytest.approx({row: expected[row] for row in order}, abs=1e-6)


def test_candidates_hold_what_each_part_adds():
    a, b = ranking((3, 0.9), (1, 0.2)), ranking((1, 7.0))
    [(rows, matrix, found)] = candidates([a, b], Fusion(rrf_k=0))
    assert rows.tolist() == [1, 3]
    assert matrix.tolist() == [[0.5, 1.0], [1.0, 0.0]]
    assert found.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "borda"}, "fusion='borda' is unknown; use 'rrf' or 'weighted'"),
        ({"normalization": "none"}, "normalization='none' is unknown; use 'min-max' or 'z-score'"),
        ({"weights": (0.5, -0.1)}, r"weights=\[0.5, -0.1\] must be finite, none negative, and not all zero"),
        ({"weights": (0, 0)}, "not all zero"),
        ({"weights": (float("nan"), 1)}, "must be finite"),
        ({"weights": ()}, "not all zero"),
        ({"weights": 0.5}, "weights=0.5 are not a list of numbers, one for each part"),
        ({"weights": {"a": 1}}, "are not a list of numbers"),
        ({"rrf_k": -1}, "rrf_k=-1 must be a number of at least 0"),
        ({"rrf_k": float("nan")}, "rrf_k=nan must be"),
        ({"depth": 0}, "depth=0 must be a whole number of at least 1"),
        ({"depth": 2.5}, "depth=2.5 must be"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Fusion(**arguments)


def test_as_many_weights_as_parts():
    with pytest.raises(ConfigError, match="3 weights were given for 2 parts; give one for each"):
        Fusion(weights=(1, 1, 1)).vector(2)
    assert Fusion().vector(3).tolist() == [1, 1, 1]
    assert Fusion("weighted").vector(4).tolist() == [0.25] * 4
