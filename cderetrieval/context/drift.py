"""Whether the corpus has moved away from its context.

The documents that the context was sampled from and a fresh sample of today's corpus are two samples of first-stage
embeddings. Their distance is the maximum mean discrepancy under a Gaussian kernel whose width is the median distance
(Gretton et al. 2012); its p-value is the share of random relabellings with a distance at least as large. The context is
stale when p is small AND the shift is: with many documents, even a harmless shift is significant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 499
# Shift of MiniLM embeddings of five packages' docstrings, samples of 512 (of 64): another package 0.03 to 0.18 (0.03 to
# 0.19); half of the documents from another 0.01 to 0.05, median 0.03 (the same); a fifth at most 0.007 (0.009); two
# samples of one package at most 0.001 (0.010). So a changed half is found in 7 of 10 pairs of packages, no fifth is.
STALE_SHIFT = 0.02
STALE_P = 0.01


@dataclass(frozen=True)
class Drift:
    """Distance between a context and the corpus it stands for.

    Attributes
    ----------
    shift
        Squared maximum mean discrepancy: 0 for two samples of one corpus, up to about 1.
    p_value
        Probability of so large a shift if the corpus had not changed.
    stale
        Whether to call ``retriever.refresh()``.
    """

    shift: float
    p_value: float
    stale: bool


def measure_drift(context: np.ndarray, fresh: np.ndarray, *, seed: int = 0) -> Drift:
    """Compare the context's embeddings with those of a fresh sample."""
    points = np.concatenate([context, fresh]).astype(np.float64)
    kernel = _gaussian_kernel(points)
    labels = np.concatenate([np.ones(len(context)), np.zeros(len(fresh))])
    shift = _discrepancy(kernel, labels)
    rng = np.random.default_rng(seed)
    larger = sum(_discrepancy(kernel, rng.permutation(labels)) >= shift for _ in range(PERMUTATIONS))
    p_value = (1 + larger) / (1 + PERMUTATIONS)
    return Drift(float(shift), float(p_value), bool(shift > STALE_SHIFT and p_value < STALE_P))


def _gaussian_kernel(points: np.ndarray) -> np.ndarray:
    """Gaussian kernel matrix with the median distance as its width, diagonal 0."""
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0)
    off_diagonal = distances[~np.eye(len(points), dtype=bool)]
    width = np.median(off_diagonal) if off_diagonal.size else 1.0
    kernel: np.ndarray = np.exp(-distances / max(float(width), 1e-12))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _discrepancy(kernel: np.ndarray, labels: np.ndarray) -> float:
    """Unbiased squared discrepancy between the rows with label 1 and those with label 0."""
    first, second = labels, 1 - labels
    m, n = first.sum(), second.sum()
    if m < 2 or n < 2:
        return 0.0
    within = first @ kernel @ first / (m * (m - 1)) + second @ kernel @ second / (n * (n - 1))
    return float(within - 2 * (first @ kernel @ second) / (m * n))
