"""From clusters to batches: order the clusters of a domain, lay their pairs end to end, cut.

A cluster rarely has exactly a batch of pairs, so most batches join neighbours in the order. In a random order these
have nothing in common; a tour, which goes from each cluster to the nearest one not yet visited, keeps the whole batch
in one region of the corpus. What is left over at the end of a domain is dropped, other pairs in every epoch.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError

PACKINGS = ("random", "tour")


def greedy_tour(centres: np.ndarray, start: int) -> np.ndarray:
    """Visit every centre once, each time the nearest that is left; O(n^2 d), 20,000 of 128 dimensions in seconds.

    Parameters
    ----------
    centres
        Shape (n, d), float32.
    start
        The first.

    Returns
    -------
    numpy.ndarray
        An order of the centres, shape (n,).

    Examples
    --------
    >>> greedy_tour(np.array([[0.0], [9.0], [1.0], [5.0]], dtype=np.float32), start=0)
    array([0, 2, 3, 1])
    """
    n = len(centres)
    tour = np.empty(n, dtype=np.int64)
    left = np.arange(n)
    points = np.ascontiguousarray(centres, dtype=np.float32)
    halves = (points**2).sum(axis=1) / 2
    open_ = np.ones(n, dtype=bool)
    here = start
    for step in range(n):
        tour[step] = left[here]
        open_[here] = False
        if step == n - 1:
            break
        # |x - c|^2 is smallest where x.c - |x|^2 / 2 is largest.
        scores = points @ points[here] - halves
        scores[~open_] = -np.inf
        here = int(scores.argmax())
        if 2 * (n - step - 1) < len(left):
            here = int(open_[:here].sum())
            left, points, halves = left[open_], np.ascontiguousarray(points[open_]), halves[open_]
            open_ = np.ones(len(left), dtype=bool)
    return tour


def order_clusters(centres: np.ndarray, packing: str, rng: np.random.Generator) -> np.ndarray:
    """Order of the clusters of one domain: ``"random"``, or a ``"tour"`` from a random start."""
    if packing not in PACKINGS:
        raise ConfigError(f"packing={packing!r} is unknown; use one of {', '.join(PACKINGS)}.")
    if packing == "random" or len(centres) <= 2:
        return rng.permutation(len(centres))
    return greedy_tour(centres, int(rng.integers(len(centres))))


def pack(
    rows: np.ndarray, cluster: np.ndarray, centres: np.ndarray, batch_size: int, packing: str, rng: np.random.Generator
) -> np.ndarray:
    """Cut the pairs of one domain into batches.

    Parameters
    ----------
    rows
        The domain's rows, shape (n,).
    cluster
        Their clusters, 0 to c - 1, shape (n,).
    centres
        Shape (c, d).
    batch_size
        Rows of a batch.
    packing
        See :func:`order_clusters`.
    rng
        Decides the order of the clusters and of the rows inside each.

    Returns
    -------
    numpy.ndarray
        Rows of each batch, shape (n // batch_size, batch_size).
    """
    place = np.empty(len(centres), dtype=np.int64)
    place[order_clusters(centres, packing, rng)] = np.arange(len(centres))
    order = np.lexsort((rng.random(len(rows)), place[cluster]))
    count = len(rows) // batch_size
    # Cut at a random place, so that the pairs left over are not always those of the last cluster.
    shift = int(rng.integers(len(rows) - count * batch_size + 1))
    return rows[order][shift : shift + count * batch_size].reshape(count, batch_size)
