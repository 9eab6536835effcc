import itertools
import os

import numpy as np
import pytest

from cderetrieval.errors import ConfigError
from cderetrieval.training.batches import greedy_tour
from cderetrieval.training.clusters import (
    ClusterSettings,
    cluster_pairs,
    difficulty,
    leading_directions,
    normalized,
    paired_kmeans,
    paired_points,
)
from cderetrieval.training.samplers import ClusteredBatchSampler, Groups
from cderetrieval.training.surrogate import SurrogateVectors, fresh_vectors, some, store_vectors

RNG = np.random.default_rng(0)
FAST = ClusterSettings(size=8, dimensions=None, iterations=10, restarts=2)


def unit(matrix):
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def blobs(centres=6, each=16, width=8):
    middle = RNG.normal(size=(centres, width)) * 4
    truth = np.repeat(np.arange(centres), each)
    points = [unit(middle[truth] + RNG.normal(size=(len(truth), width)) * 0.3) for _ in "qd"]
    return points[0], points[1], truth


def test_surrogate_vectors_are_stored_once_and_equal_fresh_ones(pairs, letters, tmp_path):
    calls = []
    stored = store_vectors(pairs, lambda: calls.append(1) or letters, "letters", tmp_path)
    again = store_vectors(pairs, lambda: calls.append(1) or letters, "letters", tmp_path)
    fresh = fresh_vectors(pairs, letters)
    rows = np.array([3, 50, 7])
    assert calls == [1]
    for name in ("queries", "documents", "negatives"):
        np.testing.assert_allclose(some(getattr(again, name), rows), some(getattr(fresh, name), rows), atol=1e-3)
    assert stored.negatives.shape == (80, 26)


def test_paired_points_hold_both_orders():
    queries, documents = unit(RNG.normal(size=(3, 2))), unit(RNG.normal(size=(3, 2)))
    points = paired_points(queries, documents)
    np.testing.assert_allclose(points[:3], np.hstack([queries, documents]) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(points[3:], np.hstack([documents, queries]) / np.sqrt(2), rtol=1e-6)


def test_kmeans_finds_separate_groups():
    queries, documents, truth = blobs()
    found, count = paired_kmeans(queries, documents, FAST)
    purity = [np.bincount(truth[found == k]).max() / (found == k).sum() for k in range(count)]
    assert 6 <= count <= 12
    assert np.mean(purity) > 0.9


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_fewer_pairs_than_a_cluster_holds_make_one(n):
    vectors = unit(RNG.normal(size=(n, 4)))
    found, count = paired_kmeans(vectors, vectors, FAST)
    assert (found.tolist(), count) == ([0] * n, 1)


def test_equal_pairs_make_no_empty_cluster():
    vectors = unit(np.ones((40, 4)))
    found, count = paired_kmeans(vectors, vectors, FAST)
    assert count == len(set(found.tolist()))


def test_projection_keeps_the_leading_directions():
    flat = unit(RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 20)))
    projected = normalized(flat @ leading_directions(flat[:100], flat[100:], 3, seed=0))
    np.testing.assert_allclose(projected @ projected.T, flat @ flat.T, atol=1e-4)


def test_clusters_are_per_domain_cached_and_reported(pairs, letters, tmp_path):
    vectors = store_vectors(pairs, lambda: letters, "letters", tmp_path)
    domain = np.where(np.asarray(pairs.domain) == 1, -1, pairs.domain)
    clusters = cluster_pairs(vectors, domain, FAST, tmp_path, {"data": pairs.fingerprint})
    assert (np.asarray(clusters.assignment) == -1).tolist() == (domain == -1).tolist()
    for cluster in range(len(clusters.centres)):
        assert len(set(domain[clusters.assignment == cluster])) == 1
    again = cluster_pairs(vectors, domain, FAST, tmp_path, {"data": pairs.fingerprint})
    np.testing.assert_array_equal(again.assignment, clusters.assignment)
    report = clusters.report()
    assert report["clusters"] == len(clusters.centres)
    assert report["size_largest"] == np.bincount(clusters.assignment[domain >= 0]).max()
    assert len([name for name in os.listdir(tmp_path) if name.startswith("clusters-")]) == 1


def test_a_tour_visits_all_and_is_the_greedy_one():
    centres = RNG.normal(size=(60, 5)).astype(np.float32)
    tour = greedy_tour(centres, start=7)
    assert sorted(tour) == list(range(60))
    left = set(range(60)) - {7}
    for here, there in itertools.pairwise(tour):
        nearest = min(left, key=lambda k: np.linalg.norm(centres[k] - centres[here]))
        assert np.isclose(
            np.linalg.norm(centres[nearest] - centres[here]), np.linalg.norm(centres[there] - centres[here])
        )
        left.remove(there)


def test_an_unknown_packing_is_named():
    with pytest.raises(ConfigError, match="packing='tsp'"):
        list(sampler(groups_of([40]), packing="tsp"))


def groups_of(sizes, cluster_size=4, **extra):
    domain = np.repeat(np.arange(len(sizes)), sizes)
    cluster = np.concatenate([100 * code + np.arange(size) // cluster_size for code, size in enumerate(sizes)])
    names, cluster = np.unique(cluster, return_inverse=True)
    return Groups(domain, cluster, RNG.normal(size=(len(names), 3)).astype(np.float32), **extra)


def sampler(groups, batch_size=8, **extra):
    return ClusteredBatchSampler(range(len(groups.domain)), batch_size, seed=3, groups=groups, **extra)


@pytest.mark.parametrize("packing", ["random", "tour"])
def test_batches_are_full_and_inside_a_domain(packing):
    groups = groups_of([40, 21, 9])
    batches = list(sampler(groups, packing=packing))
    assert len(batches) == len(sampler(groups)) == 5 + 2 + 1
    assert all(len(batch) == 8 and len(set(groups.domain[batch])) == 1 for batch in batches)
    rows = [row for batch in batches for row in batch]
    assert len(rows) == len(set(rows))


def test_epochs_differ_and_every_process_finds_the_same():
    groups = groups_of([64, 64])
    one, other = sampler(groups), sampler(groups)
    first = list(one)
    assert first == list(other) == list(one)
    one.set_epoch(1)
    second = list(one)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}
    other.set_epoch(1)
    assert second == list(other)
    one.set_epoch(0)
    assert first == list(one)


def test_clusters_stay_together():
    groups = groups_of([64], cluster_size=8)
    for batch in sampler(groups):
        assert len(set(groups.cluster[batch])) == 1


def test_left_out_rows_stay_out():
    groups = groups_of([16, 16])
    groups.domain[groups.domain == 1] = -1
    assert max(row for batch in sampler(groups) for row in batch) < 16


def test_ranks_share_a_domain():
    groups = groups_of([40, 40])
    batches = list(sampler(groups, ranks=2))
    assert len(batches) == 8
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        assert len(set(groups.domain[first + second])) == 1
        assert len(set(first + second)) == 16


def test_weights_decide_how_often_a_data_set_comes():
    sizes = [2000, 80]
    groups = groups_of(sizes, dataset=np.repeat([0, 1], sizes), weights=(1.0, 3.0))
    batches = list(sampler(groups))
    share = np.mean([groups.dataset[batch[0]] for batch in batches])
    assert len(batches) == 260
    assert 0.65 < share < 0.85
    small = [tuple(sorted(batch)) for batch in batches if groups.dataset[batch[0]] == 1]
    assert len(set(small)) > 20, "a data set that runs out is packed anew"
    assert [*sampler(groups)] == batches


def test_groups_must_fit():
    groups = groups_of([16])
    with pytest.raises(ConfigError, match="groups are of 16 rows, the data set has 3"):
        ClusteredBatchSampler(range(3), 8, groups=groups)
    with pytest.raises(ConfigError, match="no domain has 32 rows"):
        sampler(groups, batch_size=16, ranks=2)


def test_batches_of_neighbours_are_harder_than_random_ones():
    queries, documents, _ = blobs(centres=12, each=16)
    shuffled = RNG.permutation(len(queries))
    vectors = SurrogateVectors(queries[shuffled], documents[shuffled], np.zeros((0, 8)), "blobs")
    found, count = paired_kmeans(vectors.queries, vectors.documents, FAST)
    domain = np.zeros(len(queries), dtype=int)
    centres = np.stack([vectors.documents[found == k].mean(axis=0) for k in range(count)])
    near = list(sampler(Groups(domain, found, centres)).plan(0))
    far = list(sampler(Groups.without_clusters(domain)).plan(0))
    hard, easy = difficulty(vectors, near), difficulty(vectors, far)
    assert hard["negative"] > easy["negative"] + 0.2
    assert hard["hardest_negative"] > easy["hardest_negative"]
    assert hard["positive"] == pytest.approx(easy["positive"], abs=0.05)
