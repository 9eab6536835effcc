"""Posting lists: for each term, the documents that hold it and its weight in them, and what a query scores there.

The lists of n documents over a vocabulary of V terms are the transpose of their sparse rows (CSC): that of term t is
``rows[starts[t]:starts[t + 1]]``, ascending, with ``weights`` beside it. A query costs the lengths of its terms' lists
and nothing else.

Scores are summed in float64. A product of two float32 is exact there and a sum of hundreds of them is off by 1e-15, so
a score depends neither on who computes it (scipy or numba, with fused multiply-add or without) nor on the segment that
a document happens to lie in: rounded to six decimals, equal scores are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .checksum import Checksum
from .kernel import Accumulate


@dataclass(frozen=True, eq=False)
class Postings:
    """The posting lists of some documents."""

    # Where each term's list begins, and where the last one ends, shape (V + 1,), int64.
    starts: np.ndarray
    # Positions of documents, ascending in each list, shape (nnz,), int32.
    rows: np.ndarray
    # Weights of the terms in them, shape (nnz,), float32.
    weights: np.ndarray
    # Number of documents.
    size: int
    # Of the file that the lists lie in; None where they lie in memory.
    checksum: Checksum | None = None

    @classmethod
    def of(cls, matrix: Any) -> Postings:
        """Posting lists of sparse rows, a csr_array of shape (n, V)."""
        return cls._from_lists(matrix.tocsc())

    @classmethod
    def merge(cls, parts: Sequence[Postings], alive: Sequence[np.ndarray]) -> Postings:
        """The lists of the documents that are alive in several parts, one after the other."""
        counts = [int(np.count_nonzero(keep)) for keep in alive]
        size = sum(counts)
        before, merged = size, cast("Any", None)
        # From the last, which is the smallest, so that no large part is copied for each small one.
        for part, keep, count in zip(reversed(parts), reversed(alive), reversed(counts), strict=True):
            if part.checksum is not None:
                part.checksum.check()
            before -= count
            lists = part._csc().T if count == part.size else part._csc().T[:, np.flatnonzero(keep)]
            moved = type(lists)((lists.data, lists.indices + before, lists.indptr), shape=(lists.shape[0], size))
            moved.has_canonical_format = True
            # A sum of matrices merges rows that ascend in both: 8 million postings in 0.04 s.
            merged = moved if merged is None else merged + moved
        return cls._from_lists(merged.T)

    @classmethod
    def _from_lists(cls, lists: Any) -> Postings:
        rows = lists.indices.astype(np.int32, copy=False)
        return cls(lists.indptr.astype(np.int64), rows, lists.data, lists.shape[0])

    def scores(self, terms: np.ndarray, weights: np.ndarray, accumulate: Accumulate) -> np.ndarray:
        """Score of each document for one query, shape (size,), float64."""
        if self.checksum is not None:
            self.checksum.check(terms)
        scores = np.zeros(self.size)
        factors = weights.astype(np.float64)
        accumulate(self.starts[terms], self.starts[terms + 1], factors, self.rows, self.weights, scores)
        return scores

    def _csc(self) -> Any:
        from scipy.sparse import csc_array

        # scipy widens the rows, a copy of them all, where the starts are wider.
        starts = self.starts.astype(np.int32) if len(self.rows) < 2**31 else self.starts
        return csc_array((self.weights, self.rows, starts), shape=(self.size, len(self.starts) - 1))
