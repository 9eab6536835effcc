"""The lexical index: BM25 over the words of all documents, by the library bm25s, made from the store's texts.

What a word is worth depends on how many documents hold it, so one more document changes every weight, and bm25s cannot
add. What is kept are therefore the words of each document, as numbers into a vocabulary: a change cuts only the new
texts into words, and the next search weighs all of them anew. Documents that share no word with a query are never
returned; equal scores stand in order of insertion, as in every index.

On disk (:mod:`.manifest`), the words of each document lie in ``index.safetensors``, the weights in the files of bm25s,
which are mapped and not read. The library writes them in place, and a file that another process has mapped must not
change: so each save takes a directory of a new name, ``weights-<random>``. Other versions of the libraries may cut
texts differently, so an index that they made is not read.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol
from unicodedata import name

import numpy as np

from ..errors import InputError, StoreError
from ..files import read_tensors, write_tensors
from .base import NUMBERS, Written
from .top_k import padded, top_k

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
    array([[2, 5]])
    """

    def __init__(self, model: WordModel) -> None:
        self.model = model
        self._seqs: np.ndarray = np.empty(0, dtype=np.int64)
        self._bounds: np.ndarray = np.zeros(1, dtype=np.int64)
        self._words: np.ndarray = np.empty(0, dtype=np.int32)
        self._vocabulary: dict[str, int] = {}
        self._weights: Any = None
        self._told: set[str] = set()
        self._scripts: set[str] = set()
        self._seen = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What the manifest of a saved index must say for this one to read it."""
        return {"index": "lexical", "versions": self.model.versions()}

    def write(self, folder: Path, mode: int) -> Written | None:
        """Write the words of all documents, and their weights."""
        weights = self.weights()
        if weights is None:
            return None
        place = folder / f"weights-{secrets.token_hex(8)}"
        place.mkdir(mode=0o700, parents=True)
        weights.save(place, show_progress=False)
        files = sorted(place.iterdir())
        for path in files:
            path.chmod(mode)
        place.chmod(mode | (mode & 0o444) >> 2)
        arrays: dict[str, np.ndarray] = {"seqs": self._seqs, "bounds": self._bounds, "words": self._words}
        write_tensors(folder / NUMBERS, arrays, mode=mode)
        names = [NUMBERS, *(f"{place.name}/{path.name}" for path in files)]
        return Written(names, settings={"weights": place.name})

    def read(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Hold what was written, its weights mapped."""
        arrays, _ = read_tensors(folder / NUMBERS)
        weights = type(self.model.scorer()).load(folder / manifest["weights"], mmap=True, show_progress=False)
        vocabulary = {word: number for word, number in weights.vocab_dict.items() if word}
        self._seqs, self._bounds, self._words = (arrays[name] for name in ("seqs", "bounds", "words"))
        self._vocabulary, self._weights = vocabulary, weights

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
        weights = self.weights()
        answers = []
        for words in queries:
            known = [word for word in words if word in self._vocabulary]
            if not known or weights is None:
                answers.append((np.empty(0), np.empty(0, dtype=np.int64)))
                continue
            scores = weights.get_scores(known).astype(np.float64)
            values, places = top_k(scores if mask is None else np.where(mask, scores, 0.0), k)
            answers.append((values, self._seqs[places]))
        return padded(answers)

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
