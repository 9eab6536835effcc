"""The terms of each document with their embeddings, in order of documents: what re-scores SparseEmbed's candidates.

The similarity of a query and a document is the sum, over the terms that both have, of the inner products of the term's
two embeddings (Kong et al., SparseEmbed, SIGIR 2023). Only embeddings of shared terms are read: about 15 of a
document's 124, in one stretch of the file, which is why they lie in order of documents and not beside the postings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..vectors import TermEmbeddings, spans
from .checksum import Checksum

# Every float16 as float64, by its bits: four times as fast as numpy's conversion, which has no instruction for it.
with np.errstate(invalid="ignore"):
    _HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Forward:
    """Terms and embeddings of documents."""

    # Where each document's terms begin, and where the last's end, shape (n + 1,), int64.
    starts: np.ndarray
    # Terms, ascending in each document, shape (nnz,), int32.
    terms: np.ndarray
    # Embedding of each of them, shape (nnz, D), float16.
    embeddings: np.ndarray
    # Of the file that both lie in; None where they lie in memory.
    checksum: Checksum | None = None

    @classmethod
    def of(cls, vectors: TermEmbeddings) -> Forward:
        """Those of vectors, in their order."""
        weights = vectors.weights
        return cls(
            weights.indptr.astype(np.int64), weights.indices.astype(np.int32), vectors.embeddings.astype(np.float16)
        )

    @classmethod
    def merge(cls, parts: Sequence[Forward], alive: Sequence[np.ndarray]) -> Forward:
        """What is alive of several, one after the other."""
        for part in parts:
            if part.checksum is not None:
                part.checksum.check()
        lengths = [np.diff(part.starts)[keep] for part, keep in zip(parts, alive, strict=True)]
        begins = [part.starts[:-1][keep] for part, keep in zip(parts, alive, strict=True)]
        chosen = [spans(begin, length) for begin, length in zip(begins, lengths, strict=True)]
        return cls(
            np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
            np.concatenate([part.terms[rows] for part, rows in zip(parts, chosen, strict=True)]),
            np.concatenate([part.embeddings[rows] for part, rows in zip(parts, chosen, strict=True)]),
        )

    def similarities(self, rows: np.ndarray, place: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        """Similarity of some documents to one query."""
        if self.checksum is not None:
            self.checksum.check(rows)
        counts = self.starts[rows + 1] - self.starts[rows]
        entries = spans(self.starts[rows], counts)
        places = place.take(self.terms[entries], mode="clip")
        shared = np.flatnonzero(places >= 0)
        theirs = _HALVES.take(self.embeddings[entries[shared]].view(np.uint16), mode="clip")
        products = np.einsum("ed,ed->e", theirs, embeddings.astype(np.float64)[places[shared]])
        return np.bincount(np.repeat(np.arange(len(rows)), counts)[shared], products, minlength=len(rows))
