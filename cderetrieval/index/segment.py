"""A segment: some documents of an inverted index, written once and never changed.

What is removed is marked (a tombstone) and kept out of the answers; what is marked is left behind when segments are
merged. So adding a thousand documents to a million is the work of a thousand, and nothing that a search reads, or that
lies in a mapped file, ever moves under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..vectors import TermEmbeddings
from .forward import Forward
from .postings import Postings


@dataclass(frozen=True, eq=False)
class Segment:
    """Posting lists of documents, their numbers, and which of them can be found."""

    # Numbers of the documents, ascending, shape (n,), int64.
    seqs: np.ndarray
    # Which of them can be found, shape (n,), booleans.
    alive: np.ndarray
    # Their posting lists.
    postings: Postings
    # Their terms' embeddings; None where terms have none.
    forward: Forward | None = None

    @classmethod
    def of(cls, seqs: np.ndarray, vectors: Any) -> Segment:
        """A segment of sparse vectors, a csr_array or term embeddings."""
        embedded = isinstance(vectors, TermEmbeddings)
        postings = Postings.of(vectors.weights if embedded else vectors)
        return cls(seqs, np.ones(len(seqs), dtype=bool), postings, Forward.of(vectors) if embedded else None)

    @property
    def size(self) -> int:
        """Documents, removed ones included."""
        return len(self.seqs)

    @property
    def count(self) -> int:
        """Documents that can be found."""
        return int(np.count_nonzero(self.alive))

    def without(self, gone: np.ndarray) -> Segment:
        """The same segment with more tombstones; `gone` holds one boolean for each document."""
        return replace(self, alive=self.alive & ~gone)


def merge(segments: Sequence[Segment]) -> Segment:
    """One segment of what can be found in several that follow each other."""
    alive = [segment.alive for segment in segments]
    forwards = [segment.forward for segment in segments if segment.forward is not None]
    seqs = np.concatenate([segment.seqs[segment.alive] for segment in segments])
    return Segment(
        seqs,
        np.ones(len(seqs), dtype=bool),
        Postings.merge([segment.postings for segment in segments], alive),
        Forward.merge(forwards, alive) if forwards else None,
    )
