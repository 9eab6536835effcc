"""The lexical index: BM25 over the words of all documents, by the library bm25s, made from the store's texts.

What a word is worth depends on how many documents hold it, so one more document changes every weight, and bm25s cannot
add. What is kept are therefore the words of each document, as numbers into a vocabulary: a change cuts only the new
texts into words, and the next search weighs all of them anew. Documents that share no word with a query are never
returned; equal scores stand in order of insertion, as in every index.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, Protocol, Self
from unicodedata import name

import numpy as np

from ..errors import InputError, StoreError
from .top_k import top_k

logger = logging.getLogger(__name__)

Texts = Iterator[tuple[np.ndarray, list[str]]]


class WordModel(Protocol):
    """What the index asks of a model: :class:`~cderetrieval.models.bm25.BM25`."""

    def encode_document(self, texts: Sequence[str], *, show_progress: bool = False) -> list[list[str]]:
        """Words of each text."""

    def scorer(self) -> Any:
        """An empty index of the library, with the model's parameters."""

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that cut texts into words and weigh them."""


class LexicalIndex:
    """BM25 of the documents of a store, by number.

    >>> from cderetrieval.models.bm25 import BM25
    >>> index = LexicalIndex(BM25())
    >>> texts = ["Owls hunt at night.", "Bees make honey.", "A bee may sting."]
    >>> index.sync(np.array([1, 2, 5]), lambda after: iter([(np.array([1, 2, 5]), texts)]))
    >>> index.search([["bee", "honey"]], k=10)[1]
    array([[ 2,  5, -1]])
    """

    def __init__(self, model: WordModel) -> None:
        self.model = model
        self._seqs = np.empty(0, dtype=np.int64)
        self._bounds = np.zeros(1, dtype=np.int64)
        self._words = np.empty(0, dtype=np.int32)
        self._vocabulary: dict[str, int] = {}
        self._weights: Any = None
        self._told: set[str] = set()
        self._scripts: set[str] = set()
        self._seen = 0

    @classmethod
    def of(cls, model: WordModel, arrays: Mapping[str, np.ndarray], weights: Any) -> Self:
        """An index from what :meth:`arrays` gave, and the library's index of it."""
        new = cls(model)
        new._seqs, new._bounds, new._words = (arrays[name] for name in ("seqs", "bounds", "words"))
        new._vocabulary = {word: number for word, number in weights.vocab_dict.items() if word}
        new._weights = weights
        return new

    def arrays(self) -> dict[str, np.ndarray]:
        """Numbers of the documents, where the words of each begin, and the words as numbers into the vocabulary."""
        return {"seqs": self._seqs, "bounds": self._bounds, "words": self._words}

    @property
    def seqs(self) -> np.ndarray:
        """Numbers of the documents that can be found, ascending, shape (count,), int64."""
        return self._seqs

    @property
    def count(self) -> int:
        """Documents that can be found."""
        return len(self._seqs)

    def sync(self, live_seqs: np.ndarray, texts_after: Callable[[int], Texts]) -> None:
        """Make the index hold exactly these numbers, with as little work as possible."""
        live = np.asarray(live_seqs, dtype=np.int64)
        known = live[: np.searchsorted(live, self._last, side="right")]
        kept = np.isin(self._seqs, live, assume_unique=True)
        if kept.sum() < len(known):
            logger.warning("The index lacks texts that the store has had for longer; it is built again.")
            kept = np.zeros(len(kept), dtype=bool)
        if not kept.all():
            self._keep(kept)
        fresh = live[np.searchsorted(live, self._last, side="right") :]
        if len(fresh):
            self._append(fresh, texts_after(self._last))

    def search(
        self, queries: Sequence[Sequence[str]], k: int, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Best documents of each query."""
        if k <= 0:
            raise InputError(f"k={k} must be 1 or more.")
        if not isinstance(queries, list):
            raise InputError(f"queries are {type(queries).__name__}; a lexical index has no vectors: pass texts.")
        self._explain(queries)
        shape = (len(queries), min(k, self.count))
        scores = np.full(shape, -np.inf, dtype=np.float32)
        seqs = np.full(shape, -1, dtype=np.int64)
        weights = self.weights()
        for row, words in enumerate(queries):
            known = [word for word in words if word in self._vocabulary]
            if known and weights is not None:
                found = weights.get_scores(known).astype(np.float64)
                values, places = top_k(found if mask is None else np.where(mask, found, 0.0), k)
                scores[row, : len(values)], seqs[row, : len(values)] = values, self._seqs[places]
        return scores, seqs

    def weights(self) -> Any:
        """The library's index of all documents; None where they hold no words."""
        if self._weights is None and len(self._words):
            words = self._words.tolist()
            rows = [words[start:end] for start, end in pairwise(self._bounds.tolist())]
            weights = self.model.scorer()
            weights.index((rows, dict(self._vocabulary)), show_progress=False)
            self._weights = weights
            logger.info("Weighed %d words of %d documents.", len(words), self.count)
        return self._weights

    def _explain(self, queries: Sequence[Sequence[str]]) -> None:
        """Say why the first query that finds nothing because of its language does so."""
        if "query" in self._told or not self._vocabulary:
            return
        for row, words in enumerate(queries):
            if not words:
                self._tell("query", "Query %d finds nothing: it holds no words, or stop words only.", row)
            elif not any(word in self._vocabulary for word in words):
                scripts = _scripts(words)
                if scripts and scripts.isdisjoint(self._known_scripts()):
                    letters = " and ".join(sorted(scripts))
                    self._tell("query", "Query %d finds nothing: its letters are %s, no document's are.", row, letters)

    def _known_scripts(self) -> set[str]:
        """Scripts of the vocabulary, looked at again only where it has grown."""
        if self._seen < len(self._vocabulary):
            self._scripts |= _scripts(islice(self._vocabulary, self._seen, None))
            self._seen = len(self._vocabulary)
        return self._scripts

    def _tell(self, about: str, message: str, *values: Any) -> None:
        """Warn, but once of each thing."""
        if about not in self._told:
            self._told.add(about)
            logger.warning(f"{message} This is said once.", *values)

    @property
    def _last(self) -> int:
        return int(self._seqs[-1]) if len(self._seqs) else -1

    def _keep(self, kept: np.ndarray) -> None:
        """Drop the documents that are not to be kept; the vocabulary stays."""
        lengths = np.diff(self._bounds)
        self._words = self._words[np.repeat(kept, lengths)]
        self._bounds = np.concatenate([[0], np.cumsum(lengths[kept])])
        self._seqs = self._seqs[kept]
        self._weights = None

    def _append(self, fresh: np.ndarray, chunks: Texts) -> None:
        seqs, lengths, words = [self._seqs], [np.diff(self._bounds)], [self._words]
        number = self._vocabulary.setdefault
        for numbers, texts in chunks:
            rows = self.model.encode_document(texts)
            seqs.append(numbers)
            lengths.append(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)))
            found = (number(word, len(self._vocabulary)) for row in rows for word in row)
            words.append(np.fromiter(found, dtype=np.int32))
        together = np.concatenate(seqs)
        if not np.array_equal(together[self.count :], fresh):
            raise StoreError(f"the texts of {len(fresh)} documents were asked for and others given; open it again.")
        lengths_of_all = np.concatenate(lengths)
        empty = np.count_nonzero(lengths_of_all[self.count :] == 0)
        if empty:
            message = "%d of %d new documents hold no words, or stop words only: no query will find them."
            self._tell("documents", message, empty, len(fresh))
        self._seqs, self._words = together, np.concatenate(words)
        self._bounds = np.concatenate([[0], np.cumsum(lengths_of_all)])
        self._weights = None


def _scripts(words: Iterable[str]) -> set[str]:
    """Scripts that words begin in, as the names of their letters say: LATIN, CYRILLIC, CJK."""
    return {name(word[0], "").split(" ")[0] for word in words if word[0].isalpha()}
