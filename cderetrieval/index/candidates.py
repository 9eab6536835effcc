"""From a query to the documents of several segments that answer it: the best by weights, then by term embeddings.

Nothing here depends on how documents are spread over segments: the best of each are merged before anything is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..errors import InputError
from .scores import settled
from .segment import Segment
from .top_k import sort, top_k


@dataclass(frozen=True, eq=False)
class Part:
    """A segment, and the positions in it that are no answers (`None`: all are)."""

    segment: Segment
    hidden: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Candidates:
    """Documents found for one query, best first: scores, numbers, and where they lie (number of the part, position)."""

    scores: np.ndarray
    seqs: np.ndarray
    owners: np.ndarray
    rows: np.ndarray

    def take(self, order: np.ndarray) -> Candidates:
        """Those at these positions."""
        return Candidates(self.scores[order], self.seqs[order], self.owners[order], self.rows[order])


NAMES = [field.name for field in fields(Candidates)]


def visible(segments: Sequence[Segment], mask: np.ndarray | None) -> list[Part]:
    """Segments with what is not to be found in them: the removed, and what a mask over all others leaves out."""
    count = sum(segment.count for segment in segments)
    if mask is not None and (np.shape(mask) != (count,) or np.asarray(mask).dtype != bool):
        raise InputError(f"mask has shape {np.shape(mask)}; one boolean for each of {count} documents is expected.")
    parts, before = [], 0
    for segment in segments:
        shown = segment.alive
        if mask is not None:
            shown = shown.copy()
            shown[segment.alive] = mask[before : before + segment.count]
            before += segment.count
        parts.append(Part(segment, None if shown.all() else np.flatnonzero(~shown)))
    return parts


def first_stage(parts: Sequence[Part], terms: np.ndarray, factors: np.ndarray, k: int) -> Candidates:
    """The k best documents by their inner product with a query, given as terms and their weights."""
    found = []
    for number, part in enumerate(parts):
        scores = part.segment.postings.scores(terms, factors)
        if part.hidden is not None:
            scores[part.hidden] = 0
        top, rows = top_k(scores, k)
        found.append(Candidates(top, part.segment.seqs[rows], np.full(len(rows), number), rows))
    if len(found) == 1:
        return found[0]
    none = Candidates(np.empty(0), *(np.empty(0, dtype=np.int64) for _ in range(3)))
    together = Candidates(*(np.concatenate([getattr(part, name) for part in [none, *found]]) for name in NAMES))
    return together.take(sort(together.scores, together.seqs, k))


def rescored(
    parts: Sequence[Part], found: Candidates, terms: np.ndarray, embeddings: np.ndarray, vocabulary: int, k: int
) -> Candidates:
    """The k best of some candidates by the embeddings of the terms that they share with a query."""
    place = np.full(vocabulary, -1, dtype=np.int32)
    place[terms] = np.arange(len(terms))
    scores = np.zeros(len(found.seqs))
    for number, part in enumerate(parts):
        own = found.owners == number
        assert part.segment.forward is not None
        scores[own] = part.segment.forward.similarities(found.rows[own], place, embeddings)
    again = Candidates(settled(scores), found.seqs, found.owners, found.rows)
    return again.take(sort(again.scores, again.seqs, k))


def padded(answers: Sequence[Candidates]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and numbers of several queries as two matrices; short rows end in -inf and -1."""
    width = max((len(answer.seqs) for answer in answers), default=0)
    scores = np.full((len(answers), width), -np.inf)
    seqs = np.full((len(answers), width), -1, dtype=np.int64)
    for row, answer in enumerate(answers):
        scores[row, : len(answer.seqs)], seqs[row, : len(answer.seqs)] = answer.scores, answer.seqs
    return scores, seqs
