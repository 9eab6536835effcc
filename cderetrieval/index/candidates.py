"""From a query to the documents of several segments that answer it: the best by weights, then by term embeddings.

Nothing here depends on how documents are spread over segments: the best of each are merged before anything is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .scores import settled
from .segment import Segment
from .top_k import best, top_k

# Scores and numbers of documents.
Ranked = tuple[np.ndarray, np.ndarray]


def hidden(segments: Sequence[Segment], mask: np.ndarray | None) -> list[np.ndarray | None]:
    """Positions in each segment that are no answers: the removed, and what a mask over all others leaves out."""
    count = sum(segment.count for segment in segments)
    if mask is not None and (np.shape(mask) != (count,) or np.asarray(mask).dtype != bool):
        raise InputError(f"mask has shape {np.shape(mask)}; one boolean for each of {count} documents is expected.")
    found: list[np.ndarray | None] = []
    before = 0
    for segment in segments:
        shown = segment.alive
        if mask is not None:
            shown = shown.copy()
            shown[segment.alive] = mask[before : before + segment.count]
            before += segment.count
        found.append(None if shown.all() else np.flatnonzero(~shown))
    return found


def first_stage(
    segments: Sequence[Segment],
    hidden: Sequence[np.ndarray | None],
    terms: np.ndarray,
    factors: np.ndarray,
    k: int,
) -> Ranked:
    """The k best documents by their inner product with a query, given as terms and their weights."""
    found: list[Ranked] = []
    for segment, out in zip(segments, hidden, strict=True):
        scores = segment.postings.scores(terms, factors)
        if out is not None:
            scores[out] = 0
        top, rows = top_k(scores, k)
        found.append((top, segment.seqs[rows]))
    if len(found) == 1:
        return found[0]
    scores = np.concatenate([np.empty(0), *(top for top, _ in found)])
    return best(scores, np.concatenate([np.empty(0, dtype=np.int64), *(seqs for _, seqs in found)]), k)


def rescored(
    segments: Sequence[Segment],
    seqs: np.ndarray,
    terms: np.ndarray,
    embeddings: np.ndarray,
    vocabulary: int,
    k: int,
) -> Ranked:
    """The k best of some documents by the embeddings of the terms that they share with a query."""
    place = np.full(vocabulary, -1, dtype=np.int32)
    place[terms] = np.arange(len(terms))
    scores = np.zeros(len(seqs))
    for segment in segments:  # numbers ascend from segment to segment
        own = (seqs >= segment.seqs[0]) & (seqs <= segment.seqs[-1])
        assert segment.forward is not None
        rows = np.searchsorted(segment.seqs, seqs[own])
        scores[own] = segment.forward.similarities(rows, place, embeddings)
    return best(settled(scores), seqs, k)
