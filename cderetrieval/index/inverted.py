"""The sparse index: posting lists in segments, exact, always rebuildable from the store.

Like the dense one it knows no documents, only numbers (``seq``, which grow with insertion). Documents lie in segments
that never change: what is added is a new segment, merged with its neighbours while they are small (each at least twice
the next, so a document is rewritten log2(n) times in its life); what is removed is a tombstone, and a segment more
than a fifth dead is written anew. All of it is in the segments: only a rebuild reads the store.

A score is larger for a nearer vector: the inner product over the terms that query and document share. With term
embeddings that finds candidates, many more than are wanted, whose similarity is the sum of the inner products of the
embeddings of shared terms. Scores are exact, rounded to six decimals, equal ones in order of insertion; a document that
scores nothing is no answer, so a query can have fewer answers than documents. Many threads may search; only one may
change it.

On disk (:mod:`.manifest`), ``index.safetensors`` holds what is small: numbers, tombstones, where lists start, and the
checksum of each. The lists themselves lie in a file for each segment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError
from ..files import read_tensors, write_tensors
from ..vectors import SPARSE, SPARSE_EMBED, Layout, checked, join, take, weights_of
from .base import NUMBERS, Written
from .kernel import Accumulate, Sums
from .scores import settled
from .segment import Segment, merge
from .stream import Chunks, select
from .top_k import best, padded, top_k

logger = logging.getLogger(__name__)

MOST_DEAD = 0.2
# Segments grow no larger than this: their scores, 1 MB, stay in a core's cache. 300,000 documents take 1.18 ms a query
# in three such segments, 1.31 in one, 1.54 in ten.
LARGEST = 131_072
# First-stage candidates that are re-scored by their term embeddings: for each answer wanted, and at least. Where the
# embeddings add much of their own (synthetic data of 10,000 documents), the best ten among 500 candidates hold 0.99 of
# the best ten of all documents, among 200 0.93, among 100 0.81; and 1,000 candidates take twice as long as 500.
CANDIDATES = 10
LEAST_CANDIDATES = 500

# Scores and numbers of documents.
Ranked = tuple[np.ndarray, np.ndarray]


class InvertedIndex:
    """Nearest neighbours of sparse vectors, by number.

    >>> from scipy.sparse import csr_array
    >>> index = InvertedIndex(4)
    >>> vectors = csr_array([[1.0, 0, 0, 2], [1, 1, 0, 0]])
    >>> index.sync(np.array([1, 5]), lambda after: iter([(np.array([1, 5]), vectors)]))
    >>> index.search(csr_array([[2.0, 1, 0, 0], [0, 0, 1, 0]]), k=10)
    (array([[  3.,   2.],
           [-inf, -inf]]), array([[ 5,  1],
           [-1, -1]]))
    """

    def __init__(self, vocabulary: int, embedding_size: int = 0) -> None:
        if vocabulary < 1 or embedding_size < 0:
            raise ConfigError(f"vocabulary={vocabulary} must be positive and embedding_size={embedding_size} not less.")
        self.layout = Layout(SPARSE_EMBED if embedding_size else SPARSE, vocabulary, embedding_size)
        # Oldest first.
        self.segments: tuple[Segment, ...] = ()
        self._sums = Sums()

    @property
    def count(self) -> int:
        """Documents that can be found, if a query has one of their terms."""
        return sum(segment.count for segment in self.segments)

    @property
    def seqs(self) -> np.ndarray:
        """Numbers of the documents that can be found, ascending, shape (count,), int64."""
        none = np.empty(0, dtype=np.int64)
        return np.concatenate([none, *(segment.seqs[segment.alive] for segment in self.segments)])

    @property
    def _last(self) -> int:
        return int(self.segments[-1].seqs[-1]) if self.segments else -1

    @property
    def identity(self) -> dict[str, Any]:
        """What the manifest of a saved index must say for this one to read it."""
        return {"index": "inverted", **self.layout.to_dict()}

    def write(self, folder: Path, mode: int) -> Written:
        """Write the lists of segments that are new, and what is small of all."""
        tensors: dict[str, np.ndarray] = {}
        names = []
        for number, segment in enumerate(self.segments):
            name, small = segment.write(folder, mode)
            names.append(name)
            tensors |= {f"{number}.{key}": array for key, array in small.items()}
        write_tensors(folder / NUMBERS, tensors, mode=mode)
        return Written([NUMBERS], names, {"segments": names})

    def read(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Hold what was written, mapped."""
        tensors, _ = read_tensors(folder / NUMBERS)
        segments = []
        for number, name in enumerate(manifest["segments"]):
            start = f"{number}."
            small = {key.removeprefix(start): array for key, array in tensors.items() if key.startswith(start)}
            segments.append(Segment.read(folder / name, small, self.layout.embedding_size))
        self.segments = tuple(segments)

    def sync(self, live_seqs: np.ndarray, vectors_after: Callable[[int], Chunks]) -> None:
        """Make the index hold exactly these numbers, with as little work as possible."""
        live = np.asarray(live_seqs, dtype=np.int64)
        if not np.isin(live[live <= self._last], self.seqs, assume_unique=True).all():
            logger.warning("The index lacks vectors that the store has had for longer; it is built again.")
            self.segments = ()
        self._hide(lambda numbers: np.isin(numbers, live, assume_unique=True, invert=True))
        fresh = live[live > self._last]
        if len(fresh):
            check = partial(checked, layout=self.layout, what="document")
            for numbers, vectors in _large(select(vectors_after(self._last), fresh, check)):
                self._extend(numbers, vectors)

    def search(self, queries: Any, k: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Nearest documents of each query."""
        found: Any = checked(queries, self.layout, "query")
        if k <= 0:
            raise InputError(f"k={k} must be 1 or more.")
        segments = self.segments  # another thread may change it meanwhile
        out = _hidden(segments, mask)
        weights = weights_of(found)
        depth = k if self.layout.kind == SPARSE else max(LEAST_CANDIDATES, CANDIDATES * k)
        answers = []
        for start, end in pairwise(weights.indptr.tolist()):
            terms, factors = weights.indices[start:end], weights.data[start:end]
            answer = _first_stage(segments, out, terms, factors, self._sums, depth)
            if self.layout.kind != SPARSE:
                embeddings = found.embeddings[start:end]
                answer = _rescored(segments, answer[1], terms, embeddings, self.layout.dimension, k)
            answers.append(answer)
        return padded(answers)

    def _extend(self, numbers: np.ndarray, vectors: Any) -> None:
        """Add segments of these documents, none larger than the largest."""
        for start in range(0, len(numbers), LARGEST):
            own = np.arange(start, min(start + LARGEST, len(numbers)))
            part = vectors if len(own) == len(numbers) else take(vectors, own)
            self._append(Segment.of(numbers[own], part))

    def _append(self, segment: Segment) -> None:
        """Add a segment, merged with those before it that are not at least twice as large."""
        segments, size = [*self.segments, segment], segment.size
        first = len(segments) - 1
        while first and segments[first - 1].size < 2 * size and size + segments[first - 1].size <= LARGEST:
            first -= 1
            size += segments[first].size
        together = segments[first:]
        self.segments = (*segments[:first], merge(together) if len(together) > 1 else segment)

    def _hide(self, gone: Callable[[np.ndarray], np.ndarray]) -> None:
        """Mark documents as removed; write a segment anew, or drop it, where too many are."""
        segments = []
        for segment in self.segments:
            marks = gone(segment.seqs)
            if (marks & segment.alive).any():
                segment = segment.without(marks)
                if segment.size - segment.count > MOST_DEAD * segment.size:
                    segment = merge([segment])
            if segment.size:
                segments.append(segment)
        self.segments = tuple(segments)


def _large(chunks: Chunks) -> Chunks:
    """The same vectors in chunks of about LARGEST, so that a first build merges nothing."""
    numbers: list[np.ndarray] = []
    vectors: list[Any] = []
    for seqs, found in chunks:
        numbers.append(seqs)
        vectors.append(found)
        if sum(map(len, numbers)) >= LARGEST - len(seqs):
            yield np.concatenate(numbers), join(vectors)
            numbers, vectors = [], []
    if numbers:
        yield np.concatenate(numbers), join(vectors)


def _hidden(segments: Sequence[Segment], mask: np.ndarray | None) -> list[np.ndarray | None]:
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


def _first_stage(
    segments: Sequence[Segment],
    hidden: Sequence[np.ndarray | None],
    terms: np.ndarray,
    factors: np.ndarray,
    accumulate: Accumulate,
    k: int,
) -> Ranked:
    """The k best documents by their inner product with a query, given as terms and their weights."""
    found: list[Ranked] = []
    for segment, out in zip(segments, hidden, strict=True):
        scores = segment.postings.scores(terms, factors, accumulate)
        if out is not None:
            scores[out] = 0
        top, rows = top_k(scores, k)
        found.append((top, segment.seqs[rows]))
    if len(found) == 1:
        return found[0]
    scores = np.concatenate([np.empty(0), *(top for top, _ in found)])
    return best(scores, np.concatenate([np.empty(0, dtype=np.int64), *(seqs for _, seqs in found)]), k)


def _rescored(
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
