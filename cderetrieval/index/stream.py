"""Vectors as a store gives them: in chunks of (numbers, vectors), in order, more of them perhaps than fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import InputError, StoreError
from ..vectors import take

Chunks = Iterator[tuple[np.ndarray, Any]]


def select(chunks: Chunks, seqs: np.ndarray, check: Callable[[Any], Any]) -> Chunks:
    """Those rows of the chunks whose numbers are in `seqs`; all of `seqs` must turn up, in order.

    Parameters
    ----------
    chunks
        Numbers, ascending, and their vectors.
    seqs
        The wanted numbers, ascending, shape (n,).
    check
        Gives vectors in the form that the index holds, or raises.

    Raises
    ------
    StoreError
        If one of `seqs` has no vector.
    """
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


def rising(seqs: Any, count: int, last: int) -> np.ndarray:
    """Numbers of `count` new vectors as int64; they must grow, from above `last` on.

    Raises
    ------
    InputError
        If there are not as many, or one is not above the one before it.
    """
    numbers = np.asarray(seqs, dtype=np.int64)
    if numbers.shape != (count,):
        raise InputError(f"{count} vectors were given with numbers of shape {numbers.shape}.")
    falling = np.flatnonzero(np.diff(numbers, prepend=last) <= 0)
    if len(falling):
        raise InputError(f"row {falling[0]}: number {numbers[falling[0]]} is not above the one before it.")
    return numbers


def _missing(numbers: np.ndarray) -> StoreError:
    return StoreError(f"document number {numbers[0]} has no vector ({len(numbers)} or more lack one). Add it again.")
