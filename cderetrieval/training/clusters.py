"""Clusters of pairs that would confuse a model: the batches of contextual training are made from them.

A pair (q, d) is hard for another if its document is near that one's query, or its query near that one's document. Both
are points in one space of twice the width: k-means runs on [q; d] and on [d; q] together, so a centre is for
documents and queries at once, and a pair goes to the centre nearest to its [q; d]. Domains are clustered apart.
Morris & Rush 2024, section 4.1. All points take part: FAISS's default would train on 256 for each centre.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import progress
from .cache import cached_directory, map_array
from .surrogate import SurrogateVectors, some

# Rows that the projection is fitted on.
SVD_ROWS = 100_000


@dataclass(frozen=True)
class ClusterSettings:
    """Pairs of a cluster on average, dimensions that vectors are projected to (None: all), and how k-means runs."""

    size: int = 512
    dimensions: int | None = 128
    iterations: int = 100
    restarts: int = 3
    seed: int = 42


@dataclass(frozen=True)
class Clusters:
    """Cluster of each row, (n,) int32, -1 where it is left out; and each one's mean document vector, (c, d)."""

    assignment: np.ndarray
    centres: np.ndarray

    def report(self) -> dict[str, float]:
        """How many clusters there are, and how large."""
        sizes = np.bincount(self.assignment[self.assignment >= 0], minlength=len(self.centres))
        low, middle, high = np.percentile(sizes, [5, 50, 95]) if len(sizes) else (0.0, 0.0, 0.0)
        return {
            "clusters": float(len(sizes)),
            "size_5%": float(low),
            "size_median": float(middle),
            "size_95%": float(high),
            "size_largest": float(sizes.max(initial=0)),
        }


def cluster_pairs(
    vectors: SurrogateVectors,
    domain: np.ndarray,
    settings: ClusterSettings,
    cache: str | Path,
    key: dict[str, Any],
    *,
    show_progress: bool = True,
) -> Clusters:
    """Cluster pairs inside their domains (-1: left out), or open the clusters of an earlier call.

    `key` is what determines `vectors` and `domain`: the data's fingerprint, the surrogate, the batch size.
    """

    def build(directory: Path) -> dict[str, Any]:
        clusters = _cluster(vectors, domain, settings, show_progress)
        clusters.assignment.astype("<i4").tofile(directory / "assignment.i32")
        clusters.centres.astype("<f4").tofile(directory / "centres.f32")
        return {"rows": len(domain), "shape": list(clusters.centres.shape)}

    full_key = {**key, "settings": dataclasses.asdict(settings), "surrogate": vectors.fingerprint}
    directory, info = cached_directory(cache, "clusters", full_key, build)
    return Clusters(
        map_array(directory / "assignment.i32", "<i4", (info["rows"],)),
        map_array(directory / "centres.f32", "<f4", tuple(info["shape"])),
    )


def _cluster(vectors: SurrogateVectors, domain: np.ndarray, settings: ClusterSettings, show: bool) -> Clusters:
    directions = leading_directions(vectors.queries, vectors.documents, settings.dimensions, settings.seed)
    assignment = np.full(len(domain), -1, dtype=np.int32)
    centres: list[np.ndarray] = []
    count = 0
    for code in progress(np.unique(domain[domain >= 0]).tolist(), "clustering domains", show=show):
        rows = np.flatnonzero(domain == code)
        queries, documents = some(vectors.queries, rows), some(vectors.documents, rows)
        if directions is not None:
            queries, documents = queries @ directions, documents @ directions
        queries, documents = normalized(queries), normalized(documents)
        found, number = paired_kmeans(queries, documents, settings)
        sums = np.zeros((number, documents.shape[1]), dtype=np.float64)
        np.add.at(sums, found, documents)
        centres.append((sums / np.bincount(found, minlength=number)[:, None]).astype(np.float32))
        assignment[rows] = found + count
        count += number
    return Clusters(assignment, np.concatenate(centres))


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a zero row stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def leading_directions(
    queries: np.ndarray, documents: np.ndarray, dimensions: int | None, seed: int
) -> np.ndarray | None:
    """Directions (d, dimensions) of a truncated SVD of at most 100,000 vectors; None where none are dropped."""
    if dimensions is None or dimensions >= queries.shape[1]:
        return None
    rows = np.arange(len(queries))
    if len(rows) > SVD_ROWS // 2:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), SVD_ROWS // 2, replace=False))
    sample = np.concatenate([queries[rows], documents[rows]]).astype(np.float32)
    # Directions of X are the eigenvectors of X^T X, which has the width of a vector only.
    _, directions = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(directions[:, ::-1][:, :dimensions])


def paired_points(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """[q; d] of all pairs, then [d; q] of all pairs: (n, d) twice to (2n, 2d), rows of length 1."""
    n, width = queries.shape
    points = np.empty((2 * n, 2 * width), dtype=np.float32)
    points[:n, :width] = points[n:, width:] = queries
    points[:n, width:] = points[n:, :width] = documents
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    return points


def paired_kmeans(queries: np.ndarray, documents: np.ndarray, settings: ClusterSettings) -> tuple[np.ndarray, int]:
    """Cluster of each pair of one domain, (n,) int32, none of them empty; and their number."""
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

    kmeans = faiss.Kmeans(
        points.shape[1],
        k,
        niter=settings.iterations,
        nredo=settings.restarts,
        spherical=True,
        seed=settings.seed,
        gpu=hasattr(faiss, "get_num_gpus") and bool(faiss.get_num_gpus()),
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    kmeans.train(points)
    return kmeans


def difficulty(vectors: SurrogateVectors, batches: list[np.ndarray]) -> dict[str, float]:
    """How hard batches of rows are by the surrogate.

    Mean similarity of a query to its own document, to the other documents of its batch, and to the hardest of them;
    and the share of queries that some other document of the batch beats or equals.
    """
    own, others, hardest, beaten = [], [], [], []
    for rows in batches:
        scores = normalized(some(vectors.queries, rows)) @ normalized(some(vectors.documents, rows)).T
        positive = np.diag(scores).copy()
        others.append(float((scores.sum() - positive.sum()) / max(1, scores.size - len(rows))))
        np.fill_diagonal(scores, -np.inf)
        own.append(positive.mean())
        hardest.append(scores.max(axis=1).mean())
        beaten.append((scores.max(axis=1) >= positive).mean())
    measured = {"positive": own, "negative": others, "hardest_negative": hardest, "beaten": beaten}
    return {name: float(np.mean(values)) for name, values in measured.items()}
