import logging

import faiss
import numpy as np
import pytest

from cderetrieval.errors import ConfigError
from cderetrieval.index.choice import choose_factory
from cderetrieval.index.exact import exact_search
from cderetrieval.index.tune import Breadth, measure, parts, tune, widest


def tuned(factory, matrix, target):
    index = faiss.index_factory(matrix.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(matrix)
    index.add(matrix)
    own = np.arange(0, len(matrix), 20)
    near = exact_search(matrix, matrix[own], 11)[1]
    truth = np.array([row[row != position][:10] for row, position in zip(near, own, strict=True)])
    return index, own, truth, *tune(index, matrix[own], own, truth, target)


@pytest.mark.parametrize("factory", ["IVF64,Flat", "HNSW16,Flat", "IVF64,RaBitQ,Refine(SQ8)"])
def test_the_width_is_the_narrowest_that_reaches_the_target(clustered, factory):
    matrix, _ = clustered
    index, own, truth, breadth, reached = tuned(factory, matrix, 0.97)
    assert reached >= 0.97
    measured = measure(index, matrix[own], own, truth, breadth)
    assert measured.mean == reached >= measured.at_least >= 0.97
    if breadth.width > 3:
        narrower = Breadth(breadth.width // 2, breadth.k_factor)
        assert measure(index, matrix[own], own, truth, narrower).at_least < 0.97


def test_recall_holds_for_rows_that_were_not_tuned_on():
    """A breadth that only just reaches the target on a sample misses it on other rows as often as not."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((20, 32))
    matrix = centres[rng.integers(0, 20, 6_000)] + 1.5 * rng.standard_normal((6_000, 32))
    matrix = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
    index = faiss.index_factory(32, "IVF128,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(matrix)
    index.add(matrix)
    near = exact_search(matrix, matrix, 11)[1]
    truth = np.array([row[row != position][:10] for position, row in enumerate(near)])
    everywhere = np.arange(len(matrix))
    met = []
    for seed in range(20):
        own = np.random.default_rng(seed).choice(len(matrix), 200, replace=False)
        breadth, _ = tune(index, matrix[own], own, truth[own], 0.95)
        met.append(measure(index, matrix, everywhere, truth, breadth).mean >= 0.95)
    assert np.mean(met) >= 0.9


def test_a_target_out_of_reach_is_said_and_the_best_is_kept(clustered, caplog):
    matrix, _ = clustered
    with caplog.at_level(logging.WARNING):
        *_, breadth, reached = tuned("IVF16,RaBitQ", matrix, 0.99)
    assert reached < 0.99
    assert breadth.width == 16
    assert "the target is 0.990" in caplog.text


def test_parts_and_limits():
    index = faiss.index_factory(32, "PCA16,IVF8,RaBitQ,Refine(SQ8)")
    assert {type(part) for part in parts(index)} >= {faiss.IndexRefine, faiss.IndexPreTransform}
    assert widest(index) == 8
    assert widest(faiss.index_factory(32, "SQ8")) is None


def test_breadth_is_validated():
    with pytest.raises(ConfigError):
        Breadth(width=0)


@pytest.mark.parametrize(
    ("n", "dimension", "gpu", "expected"),
    [
        (0, 384, False, "Flat"),
        (100_000, 384, False, "Flat"),
        (100_001, 384, False, "IVF1024,RaBitQ,Refine(SQ8)"),
        (1_000_000, 384, False, "IVF2048,RaBitQ,Refine(SQ8)"),
        (10_000_000, 384, False, "IVF8192,RaBitQ,Refine(SQ8)"),
        (200_000, 32, False, "IVF1024,SQ8"),
        (1_000_000, 384, True, "Flat"),
        (2_000_000, 384, True, "IVF4096,SQ8"),
    ],
)
def test_choice(n, dimension, gpu, expected):
    assert choose_factory(n, dimension, gpu=gpu) == expected
    faiss.index_factory(dimension, expected)
