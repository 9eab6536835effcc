"""Vectors as a store gives them: in chunks of (numbers, vectors), in order, more of them perhaps than fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def scaled(matrix: np.ndarray, factor: float) -> np.ndarray:
    """A matrix times a factor."""
    with np.errstate(over="ignore"):
        return matrix if factor == 1 else matrix * np.float32(factor)


def factor_for(chunks: Chunks) -> float:
    """The factor that gives the first vectors a median length of 1; 1 where they have about that.

    FAISS computes in float32, and its codes and lists are made for such vectors: of vectors a hundredth as long,
    ``IVF4,SQ8`` finds one of ten neighbours, of vectors seven times as long an index of one bit a dimension four.
    """
    found = np.zeros(0)
    for _, matrix in chunks:
        found = np.concatenate([found, lengths(np.asarray(matrix[: FIRST - len(found)], dtype=np.float32))])
        if len(found) >= FIRST:
            break
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
