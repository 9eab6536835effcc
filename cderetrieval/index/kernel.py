"""The same sums compiled by numba, where it is installed: one pass over the posting lists, nothing copied.

100,000 documents, one thread, CPU time: 0.35 ms for a query in place of the 0.80 ms that scipy takes, which copies the
lists and widens them to float64 first. numba is 208 MB, so it is an extra and not a dependency. Signatures are spelt
out: arrays in a mapped file are read-only, which numba would take for new types and compile for again.

Without numba nothing public is faster. The sums alone: columns sliced and multiplied, as here, 0.66 ms; `numpy.add.at`
list by list 0.75, one product of all lists joined 0.70, `numpy.bincount` 1.0, take and put 1.7; scipy's private
`csc_matvec` list by list 0.44, numba 0.25. To skip lists whose largest weights cannot decide (MaxScore) saves half of
the postings, but leaves 500 documents to be looked up in the other half, one search a list: nothing is gained. To skip
the lists of the commonest terms alone, half of all postings, decides 4 queries in 10: 16 per cent less at best. Of the
time without numba a third goes into copying lists, which no public function does without; the sum itself takes what it
takes numba.

Loading it takes 0.8 s, and 3 to 5 s more to compile the first time: too long for a small index, where scipy takes a
tenth of a millisecond. So the size of the index alone decides, and the same query always takes the same path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

# Postings of a segment from which on numba computes: 10,000 documents of 100 terms.
MANY = 1_000_000

Accumulate = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


def kernel_for(postings: int) -> Accumulate | None:
    """The compiled :func:`accumulate` for a segment of so many postings; `None` where scipy is to do it."""
    return compiled() if postings >= MANY else None


@lru_cache(maxsize=1)
def compiled() -> Accumulate | None:
    """The compiled :func:`accumulate`; `None` where numba is missing or cannot compile it."""
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

    Positions and loops count from zero in unsigned numbers: numba asks of any other whether it counts from the end, and
    takes a quarter longer.
    """
    for i in range(len(factors)):
        factor = factors[i]
        places, values = rows[starts[i] : ends[i]], weights[starts[i] : ends[i]]
        for entry in range(len(places)):
            scores[places[entry]] += factor * values[entry]
