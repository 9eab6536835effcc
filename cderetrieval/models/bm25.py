"""BM25: words and how rare they are, the baseline that every learned model has to beat.

    score(q, d) = sum over the words t of q of  idf(t) * tf / (tf + k1 * (1 - b + b * length(d) / mean length))
    idf(t) = ln(1 + (N - n + 0.5) / (n + 0.5)),  N documents, n of them with t

This is Lucene's form (Robertson and Zaragoza 2009; variants in Kamphuis et al. 2020). The weight of a word depends on
the whole collection, so a text has no vector: this model cuts texts into words (:mod:`.words`), and the index
(:mod:`cderetrieval.index.lexical`) weighs them by the library bm25s.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from types import ModuleType
from typing import Any

from ..errors import ConfigError, needs
from ..runtime import check_texts, progress

NAME = "bm25"
# Languages for which bm25s brings a list of stop words; the others keep all words.
STOP_WORDS = {
    "dutch",
    "english",
    "french",
    "german",
    "italian",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
}
# Lucene's English list, which bm25s brings, has "a" and no pronoun. Questions are full of this one.
PRONOUN = "i"


class BM25:
    """BM25 as a model of a :class:`~cderetrieval.retrieval.retriever.Retriever`; its kind is ``"lexical"``.

    Parameters
    ----------
    language
        Whose stop words are left out and whose endings are cut off (Snowball): ``"english"``, ``"german"``, ...; None:
        all words as they are. Texts of other languages are cut into words too, with all their endings.
    k1
        How soon a further occurrence of a word stops to count.
    b
        How much long documents are held back, from 0 to 1.

    Raises
    ------
    MissingDependencyError
        If bm25s, regex or PyStemmer is not installed.
    ConfigError
        If the language is unknown or a number out of range.

    Examples
    --------
    >>> BM25().encode_query(["How do owls hunt?"])
    [['how', 'do', 'owl', 'hunt']]
    >>> BM25(language=None).encode_query(["How do owls hunt?"])
    [['how', 'do', 'owls', 'hunt']]
    """

    kind = "lexical"
    dimension = 0

    def __init__(self, language: str | None = "english", *, k1: float = 1.5, b: float = 0.75) -> None:
        if not k1 >= 0 or not 0 <= b <= 1:
            raise ConfigError(f"k1={k1!r} must be at least 0, and b={b!r} from 0 to 1.")
        library()
        _words()
        self.language, self.k1, self.b = language, k1, b
        self._stemmer()

    def __repr__(self) -> str:
        return f"BM25({self.language!r}, k1={self.k1}, b={self.b})"

    @cached_property
    def fingerprint(self) -> str:
        """Digest of language and numbers, and of how texts are cut into words."""
        return _digest([NAME, self.language, self.k1, self.b, _words().VERSION])

    @property
    def other_fingerprints(self) -> tuple[str, ...]:
        """Fingerprint from before texts were cut into words this way; such an index is built again from its texts."""
        return (_digest([NAME, self.language, self.k1, self.b]),)

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> list[list[str]]:
        """Words of each text, in order, repeated as they are."""
        cut, dotless = _words().words, self.language == "turkish"
        counted = _Counted(self._stop_words, self._stemmer()).__getitem__
        bar = progress(check_texts(texts), "cutting texts into words", show=show_progress)
        return [list(filter(None, map(counted, cut(text, dotless=dotless)))) for text in bar]

    encode_document = encode_query

    def scorer(self) -> Any:
        """An empty index of the library, with this model's numbers."""
        return library().BM25(k1=self.k1, b=self.b, method="lucene")

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that cut texts into words and weigh them."""
        used = ["bm25s", "regex"] if self.language is None else ["bm25s", "regex", "PyStemmer"]
        return {name: version(name) for name in used} | {"words": str(_words().VERSION)}

    @cached_property
    def _stop_words(self) -> frozenset[str]:
        if self.language not in STOP_WORDS:
            return frozenset()
        lists = importlib.import_module("bm25s.stopwords")
        if self.language == "english":
            return frozenset({*lists.STOPWORDS_EN, PRONOUN})
        return frozenset(map(_words().fold, getattr(lists, f"STOPWORDS_{self.language.upper()}")))

    def _stemmer(self) -> Any:
        """Make a new stemmer for each call: one must not be shared between threads."""
        if self.language is None:
            return None
        with needs("PyStemmer", NAME):
            import Stemmer
        try:
            return Stemmer.Stemmer(self.language)
        except KeyError as error:
            raise ConfigError(
                f"language={self.language!r} is unknown; use None or one of {', '.join(Stemmer.algorithms())}."
            ) from error


class _Counted(dict[str, str]):
    """Word to what is counted in its place: its stem; a stop word has none."""

    def __init__(self, stop_words: frozenset[str], stemmer: Any) -> None:
        super().__init__(dict.fromkeys(stop_words, ""))
        self._stem = str if stemmer is None else stemmer.stemWord

    def __missing__(self, word: str) -> str:
        self[word] = stem = self._stem(word)
        return stem


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _words() -> ModuleType:
    """What cuts texts into words, imported when it is needed."""
    with needs("regex", NAME):
        from . import words
    return words


def library() -> ModuleType:
    """Import the library."""
    is_new = "bm25s" not in sys.modules
    with needs("bm25s", NAME):
        import bm25s
    if is_new:
        # It sets its logger to DEBUG, which any program with a handler would then print.
        logging.getLogger("bm25s").setLevel(logging.NOTSET)
    module: ModuleType = bm25s
    return module
