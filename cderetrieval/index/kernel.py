"""The sum of posting lists, by scipy until numba would have paid.

The scores are the same, bit for bit, whoever computes them; `benchmarks/sparse.py` measures what each takes. numba is
an extra. Where it is installed, it is loaded once an index has summed so many postings that loading it would have cost
no more than numba would have saved: whatever number of queries follows, at most twice the least time is spent, and an
index that is opened for a few answers never waits for a compiler.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

# Postings after which numba has paid: it saves 0.6 ns a posting, and takes 0.33 s of processor time to load.
MANY = 500_000_000

Accumulate = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


class Sums:
    """What :func:`accumulate` does, for one index. Threads that count at once may lose a count, and nothing else."""

    def __init__(self) -> None:
        self._summed = 0

    def __call__(
        self,
        starts: np.ndarray,
        ends: np.ndarray,
        factors: np.ndarray,
        rows: np.ndarray,
        weights: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        """Add to `scores` the weights of each list times its factor."""
        if self._summed >= MANY and (fast := compiled()):
            fast(starts, ends, factors, rows.view(np.uint32), weights, scores)
            return
        self._summed += int((ends - starts).sum())
        product, pointer = _matvec(), np.zeros(2, dtype=np.int32)
        for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            factor = factors[number : number + 1]
            if product is None:
                np.add.at(scores, rows[start:end], weights[start:end] * factor)
                continue
            pointer[1] = end - start
            product(len(scores), 1, pointer, rows[start:end], weights[start:end], factor, scores)


@cache
def _matvec() -> Callable[..., None] | None:
    """scipy's product of a CSC matrix and a vector, private but copying nothing; `None` where it has changed."""
    try:
        from scipy.sparse._sparsetools import csc_matvec

        product: Callable[..., None] = csc_matvec
        ends, places = np.array([0, 2], dtype=np.int32), np.array([0, 2], dtype=np.int32)
        weights, scores = np.array([0.5, 2.0], dtype=np.float32), np.ones(3)
        product(3, 1, ends, places, weights, np.array([3.0]), scores)
        return product if scores.tolist() == [2.5, 1.0, 7.0] else None
    except Exception:  # whatever a private function has become
        return None


@cache
def compiled() -> Accumulate | None:
    """The compiled :func:`accumulate`; `None` where numba is missing or cannot compile it.

    Signatures are spelt out: arrays in a mapped file are read-only, which numba would take for new types and compile
    for again.
    """
    try:
        from numba import njit, types
    except ImportError:
        return None
    integers, floats = _readonly(types, types.int64), _readonly(types, types.float64)
    lists = _readonly(types, types.uint32), _readonly(types, types.float32)
    signature = types.void(integers, integers, floats, *lists, types.float64[::1])
    for cached in (True, False):  # where it may write nowhere, numba compiles in each process anew
        try:
            fast: Accumulate = njit(signature, cache=cached, nogil=True)(accumulate)
            return fast
        except Exception as error:  # a compiler has many ways to fail, and none of them should stop a search
            reason = error
    logger.warning("numba cannot compile the sparse kernel, scipy is used: %s", reason)
    return None


def _readonly(types: Any, dtype: Any) -> Any:
    return types.Array(dtype, 1, "C", readonly=True)


def accumulate(
    starts: np.ndarray, ends: np.ndarray, factors: np.ndarray, rows: np.ndarray, weights: np.ndarray, scores: np.ndarray
) -> None:
    """Add to `scores`, for each list ``rows[starts[i]:ends[i]]``, its weights times ``factors[i]``.

    Positions and loops count from zero in unsigned numbers: numba asks of any other whether it counts from the end.
    """
    for i in range(len(factors)):
        factor = factors[i]
        places, values = rows[starts[i] : ends[i]], weights[starts[i] : ends[i]]
        for entry in range(len(places)):
            scores[places[entry]] += factor * values[entry]
