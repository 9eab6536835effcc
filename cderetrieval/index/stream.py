"""Vectors as a store gives them: in chunks of (numbers, vectors), in order, more of them perhaps than fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import StoreError
from ..vectors import take
from .scores import lengths, near_one

Chunks = Iterator[tuple[np.ndarray, Any]]
# Vectors whose lengths are looked at.
FIRST = 256
# Factors that float32 holds.
FACTORS = (1e-37, 1e37)


@dataclass(frozen=True)
class Scaled:
    """Dense vectors brought to about length 1, all by one factor.

    FAISS computes in float32, and its codes and lists are made for such vectors: of vectors a hundredth as long,
    ``IVF4,SQ8`` finds one of ten neighbours, of vectors seven times as long an index of one bit a dimension four.
    """

    # Gives all vectors, in chunks of (numbers, matrix).
    vectors: Callable[[], Chunks]
    # What they are multiplied with.
    factor: float

    def __call__(self) -> Chunks:
        """All vectors, multiplied."""
        for numbers, matrix in self.vectors():
            scaled = self.by(matrix, self.factor)
            if self.factor > 1 and not np.isfinite(scaled).all():
                raise RuntimeError("their lengths differ too much")
            yield numbers, scaled

    @staticmethod
    def by(matrix: np.ndarray, factor: float) -> np.ndarray:
        """A matrix times a factor."""
        with np.errstate(over="ignore"):
            return matrix if factor == 1 else matrix * np.float32(factor)

    @staticmethod
    def factor_for(vectors: Callable[[], Chunks]) -> float:
        """The factor that gives the first vectors a median length of 1; 1 where they have about that."""
        first: list[np.ndarray] = []
        for _, matrix in vectors():
            first.append(np.asarray(matrix[: FIRST - sum(map(len, first))], dtype=np.float32))
            if sum(map(len, first)) >= FIRST:
                break
        found = lengths(np.concatenate(first)) if first else np.zeros(0)
        found = found[found > 0]
        return float(np.clip(1 / near_one(np.median(found, keepdims=True))[0], *FACTORS)) if len(found) else 1.0


def select(chunks: Chunks, seqs: np.ndarray, check: Callable[[Any], Any]) -> Chunks:
    """Those rows of the chunks whose numbers are in `seqs`; all of `seqs` must turn up, in order."""
    seen = 0
    for numbers, vectors in chunks:
        found = check(vectors)
        if not len(numbers):
            continue
        expected = seqs[seen : np.searchsorted(seqs, numbers[-1], side="right")]
        if len(expected) < len(numbers):  # rows that the index is not to hold
            wanted = np.isin(numbers, expected, assume_unique=True)
            numbers, found = numbers[wanted], take(found, wanted)
        if not np.array_equal(numbers, expected):
            raise _missing(np.setdiff1d(expected, numbers))
        seen += len(numbers)
        if len(numbers):
            yield numbers, found
    if seen != len(seqs):
        raise _missing(seqs[seen:])


def _missing(numbers: np.ndarray) -> StoreError:
    return StoreError(f"document number {numbers[0]} has no vector ({len(numbers)} or more lack one). Add it again.")
