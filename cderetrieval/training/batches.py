"""From clusters to batches: order the clusters of a domain, lay their pairs end to end, cut.

A cluster rarely has exactly a batch of pairs, so most batches join neighbours in the order. In a random order these
have nothing in common; a tour, which goes from each cluster to the nearest one not yet visited, keeps a batch in one
region of the corpus. What is left over at the end of a domain is dropped, other pairs in every epoch.
If the loss treats every other document of a batch as a negative, no text may come twice in it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from .cache import cached_directory, map_array
from .data import PairData, TextColumn
from .recipes import PACKINGS


def greedy_tour(centres: np.ndarray, start: int) -> np.ndarray:
    """Visit every centre once, each time the nearest that is left; O(n^2 d), 20,000 of 128 dimensions in seconds.

    >>> greedy_tour(np.array([[0.0], [9.0], [1.0], [5.0]], dtype=np.float32), start=0)
    array([0, 2, 3, 1])
    """
    n = len(centres)
    tour = np.empty(n, dtype=np.int64)
    left = np.arange(n)
    points = np.ascontiguousarray(centres, dtype=np.float32)
    halves = (points**2).sum(axis=1) / 2
    unvisited = np.ones(n, dtype=bool)
    here = start
    for step in range(n):
        tour[step] = left[here]
        unvisited[here] = False
        if step == n - 1:
            break
        # |x - c|^2 is smallest where x.c - |x|^2 / 2 is largest.
        scores = points @ points[here] - halves
        scores[~unvisited] = -np.inf
        here = int(scores.argmax())
        if 2 * (n - step - 1) < len(left):
            here = int(unvisited[:here].sum())
            left, points, halves = left[unvisited], np.ascontiguousarray(points[unvisited]), halves[unvisited]
            unvisited = np.ones(len(left), dtype=bool)
    return tour


def pack(
    rows: np.ndarray, cluster: np.ndarray, centres: np.ndarray, batch_size: int, packing: str, rng: np.random.Generator
) -> np.ndarray:
    """Cut the rows (n,) of one domain, whose clusters have these centres (c, d), into batches (b, batch_size)."""
    if packing not in PACKINGS:
        raise ConfigError(f"packing={packing!r} is unknown; use one of {', '.join(PACKINGS)}.")
    if packing == "random" or len(centres) <= 2:
        visited = rng.permutation(len(centres))
    else:
        visited = greedy_tour(centres, int(rng.integers(len(centres))))
    place = np.empty(len(centres), dtype=np.int64)
    place[visited] = np.arange(len(centres))
    order = np.lexsort((rng.random(len(rows)), place[cluster]))
    count = len(rows) // batch_size
    # Cut at a random place, so that the pairs left over are not always those of the last cluster.
    shift = int(rng.integers(len(rows) - count * batch_size + 1))
    return rows[order][shift : shift + count * batch_size].reshape(count, batch_size)


@dataclass(frozen=True)
class TextNumbers:
    """A number for each query (n,), document (n,) and mined negative (m,): the same for texts that are the same.

    Texts that differ only in case and white space are the same.
    """

    queries: np.ndarray
    documents: np.ndarray
    mined: np.ndarray
    data: PairData

    def of(self, row: int) -> set[int]:
        """All texts of a row."""
        negatives = self.data.negatives_of(row)
        own = {int(self.queries[row]), int(self.documents[row])}
        return own.union(self.mined[negatives.start : negatives.stop].tolist())


def text_numbers(data: PairData, cache: str | Path) -> TextNumbers:
    """Number all texts, or open the numbers of an earlier call."""
    columns = data.columns

    def build(directory: Path) -> dict[str, int]:
        for name, column in columns.items():
            with open(directory / f"{name}.i64", "wb") as file:
                file.writelines(_number(column, row) for row in range(len(column)))
        return {name: len(column) for name, column in columns.items()}

    directory, counts = cached_directory(cache, "texts", {"data": data.fingerprint}, build)
    queries, documents, mined = (map_array(directory / f"{name}.i64", "<i8", (counts[name],)) for name in columns)
    return TextNumbers(queries, documents, mined, data)


def _number(column: TextColumn, row: int) -> bytes:
    text = " ".join(column[row].casefold().split())
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def distinct_batches(rows: np.ndarray, size: int, numbers: TextNumbers) -> np.ndarray:
    """Cut rows (n,) into batches (b, size) without a repeated text, in their order as far as that allows it.

    A row that shares a text with the batch waits for the next one, where it goes first; what fits no whole batch is
    left over. multi-qa and the all-* models were trained this way. `NoDuplicatesBatchSampler` shuffles all rows, this
    keeps the order of the clusters.
    """
    waiting = deque(rows.tolist())
    batches: list[list[int]] = []
    while len(waiting) >= size:
        batch: list[int] = []
        seen: set[int] = set()
        later: list[int] = []
        while waiting and len(batch) < size:
            row = waiting.popleft()
            texts = numbers.of(row)
            if seen.isdisjoint(texts):
                batch.append(row)
                seen |= texts
            else:
                later.append(row)
        if len(batch) < size:
            break
        batches.append(batch)
        waiting.extendleft(reversed(later))
    return np.array(batches, dtype=np.int64).reshape(-1, size)
