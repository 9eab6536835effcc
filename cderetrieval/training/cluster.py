"""Clusters of pairs that would confuse a model: the batches of contextual training are made from them.

A pair (q, d) is hard for another when either its document is near that one's query or the other way round. Both are
points in one space of twice the width: k-means runs on [q; d] and on [d; q] together, so a centre stands for documents
and for queries at once, and a pair goes to the centre nearest to its [q; d]. Domains are clustered apart.
Morris & Rush 2024, section 4.1. All points take part: FAISS's default would train on 256 for each centre.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..runtime import progress
from .cache import cached_directory, map_array, read_info
from .surrogate import StoredVectors

logger = logging.getLogger(__name__)

# Rows that the projection is fitted on.
SVD_ROWS = 100_000


@dataclass(frozen=True)
class ClusterSettings:
    """How pairs are clustered.

    Parameters
    ----------
    size
        Pairs of a cluster, on average.
    dimensions
        Project vectors to so many dimensions first; None: leave them.
    iterations, restarts
        Of k-means; the best of the restarts is kept.
    seed
        Of the starting centres.
    """

    size: int = 512
    dimensions: int | None = 128
    iterations: int = 100
    restarts: int = 3
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("size", "iterations", "restarts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"cluster {name}={getattr(self, name)!r} must be at least 1.")
        if self.dimensions is not None and self.dimensions < 1:
            raise ConfigError(f"cluster dimensions={self.dimensions!r} must be at least 1, or None.")


@dataclass(frozen=True)
class Clusters:
    """Clusters of all pairs.

    Attributes
    ----------
    assignment
        Cluster of each row, shape (n,), int32; -1 where the row is left out.
    centres
        Mean document vector of each cluster, shape (c, d), float32, for the tour.
    """

    assignment: np.ndarray
    centres: np.ndarray

    def sizes(self) -> np.ndarray:
        """Pairs of each cluster, shape (c,)."""
        return np.bincount(self.assignment[self.assignment >= 0], minlength=len(self.centres))

    def report(self) -> dict[str, float]:
        """How many clusters there are, and how large."""
        sizes = self.sizes()
        low, middle, high = np.percentile(sizes, [5, 50, 95]) if len(sizes) else (0.0, 0.0, 0.0)
        return {
            "clusters": float(len(sizes)),
            "size_5%": float(low),
            "size_median": float(middle),
            "size_95%": float(high),
            "size_largest": float(sizes.max(initial=0)),
        }


def cluster_pairs(
    vectors: StoredVectors,
    domain: np.ndarray,
    settings: ClusterSettings,
    cache: str | Path,
    key: dict[str, Any],
    *,
    show_progress: bool = True,
) -> Clusters:
    """Cluster pairs inside their domains, or open the clusters of an earlier call.

    Parameters
    ----------
    vectors
        Surrogate vectors of all rows.
    domain
        Domain of each row; -1 leaves it out.
    settings
        How.
    cache
        Directory of the cache.
    key
        What determines `vectors` and `domain`: the data's fingerprint, the surrogate, the batch size.
    show_progress
        Show a progress bar on a terminal.
    """
    full_key = {**key, "settings": dataclasses.asdict(settings), "surrogate": vectors.fingerprint}

    def build(directory: Path) -> dict[str, Any]:
        clusters = _cluster(vectors, domain, settings, show_progress)
        clusters.assignment.astype("<i4").tofile(directory / "assignment.i32")
        clusters.centres.astype("<f4").tofile(directory / "centres.f32")
        return {"rows": len(domain), "shape": list(clusters.centres.shape)}

    directory = cached_directory(cache, "clusters", full_key, build)
    info = read_info(directory)
    return Clusters(
        map_array(directory / "assignment.i32", "<i4", (info["rows"],)),
        map_array(directory / "centres.f32", "<f4", tuple(info["shape"])),
    )


def _cluster(vectors: StoredVectors, domain: np.ndarray, settings: ClusterSettings, show: bool) -> Clusters:
    project = fit_projection(vectors.queries, vectors.documents, settings.dimensions, settings.seed)
    assignment = np.full(len(domain), -1, dtype=np.int32)
    centres: list[np.ndarray] = []
    count = 0
    for code in progress(np.unique(domain[domain >= 0]).tolist(), "clustering domains", show=show):
        rows = np.flatnonzero(domain == code)
        queries, documents = project(vectors.query(rows)), project(vectors.document(rows))
        found, number = paired_kmeans(queries, documents, settings)
        assignment[rows] = found + count
        centres.append(means(documents, found, number))
        count += number
    return Clusters(assignment, np.concatenate(centres))


class Projection:
    """Projection on the leading directions of the vectors, back to length 1; without directions only the latter."""

    def __init__(self, directions: np.ndarray | None) -> None:
        self._directions = directions

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Shape (n, d) to (n, dimensions), rows of length 1."""
        projected = vectors if self._directions is None else vectors @ self._directions
        return normalized(projected)


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a zero row stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def fit_projection(queries: np.ndarray, documents: np.ndarray, dimensions: int | None, seed: int) -> Projection:
    """Fit a truncated SVD on at most 100,000 vectors, half of them queries, half documents."""
    width = queries.shape[1]
    if dimensions is None or dimensions >= width:
        return Projection(None)
    rows = np.arange(len(queries))
    if len(rows) > SVD_ROWS // 2:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), SVD_ROWS // 2, replace=False))
    sample = np.concatenate([queries[rows], documents[rows]]).astype(np.float32)
    # Directions of X are the eigenvectors of X^T X, which has the width of a vector only.
    _, directions = np.linalg.eigh(sample.T @ sample)
    return Projection(np.ascontiguousarray(directions[:, ::-1][:, :dimensions]))


def paired_points(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """[q; d] of all pairs, then [d; q] of all pairs: (n, d) twice to (2n, 2d), rows of length 1."""
    n, width = queries.shape
    points = np.empty((2 * n, 2 * width), dtype=np.float32)
    points[:n, :width] = points[n:, width:] = queries
    points[:n, width:] = points[n:, :width] = documents
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return points


def paired_kmeans(queries: np.ndarray, documents: np.ndarray, settings: ClusterSettings) -> tuple[np.ndarray, int]:
    """Cluster the pairs of one domain.

    Parameters
    ----------
    queries, documents
        Shape (n, d), rows of length 1.
    settings
        How.

    Returns
    -------
    tuple
        Cluster of each pair, shape (n,), int32, without empty clusters; and their number. Fewer pairs than a cluster
        holds make one cluster.
    """
    n = len(queries)
    k = -(-n // settings.size)
    if k <= 1:
        return np.zeros(n, dtype=np.int32), 1
    points = paired_points(queries, documents)
    kmeans = spherical_kmeans(points, k, settings)
    _, nearest = kmeans.index.search(points[:n], 1)
    _, found = np.unique(nearest[:, 0], return_inverse=True)
    return found.astype(np.int32), int(found.max()) + 1


def spherical_kmeans(points: np.ndarray, k: int, settings: ClusterSettings) -> Any:
    """Run ``faiss.Kmeans`` on all points, on a GPU where FAISS has one."""
    import faiss

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    kmeans = faiss.Kmeans(
        points.shape[1],
        k,
        niter=settings.iterations,
        nredo=settings.restarts,
        spherical=True,
        seed=settings.seed,
        gpu=bool(gpus),
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    kmeans.train(points)
    return kmeans


def means(vectors: np.ndarray, assignment: np.ndarray, count: int) -> np.ndarray:
    """Mean vector of each cluster, shape (count, d), float32."""
    sums = np.zeros((count, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, assignment, vectors)
    sizes = np.bincount(assignment, minlength=count)
    return (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)


def difficulty(vectors: StoredVectors, batches: list[np.ndarray]) -> dict[str, float]:
    """How hard batches are by the surrogate: what clustering is for, as numbers.

    Parameters
    ----------
    vectors
        Surrogate vectors of all rows.
    batches
        Rows of some batches.

    Returns
    -------
    dict
        Mean similarity of a query to its own document, to the other documents of its batch, and to the hardest of
        them; and the share of queries that some other document of the batch beats or equals.
    """
    own, others, hardest, beaten = [], [], [], []
    for rows in batches:
        scores = normalized(vectors.query(rows)) @ normalized(vectors.document(rows)).T
        positive = np.diag(scores).copy()
        others.append(float((scores.sum() - positive.sum()) / max(1, scores.size - len(rows))))
        np.fill_diagonal(scores, -np.inf)
        own.append(positive.mean())
        hardest.append(scores.max(axis=1).mean())
        beaten.append((scores.max(axis=1) >= positive).mean())
    measured = {"positive": own, "negative": others, "hardest_negative": hardest, "beaten": beaten}
    return {name: float(np.mean(values)) for name, values in measured.items()}
