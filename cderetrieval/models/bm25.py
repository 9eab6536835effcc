"""BM25: words and how rare they are, the baseline that every learned model has to beat.

    score(q, d) = sum over the words t of q of  idf(t) * tf / (tf + k1 * (1 - b + b * length(d) / mean length))
    idf(t) = ln(1 + (N - n + 0.5) / (n + 0.5)),  N documents, n of them with t

This is Lucene's form (Robertson and Zaragoza 2009; variants in Kamphuis et al. 2020). The weight of a word depends on
the whole collection, so a text has no vector: this model cuts texts into words, and the index
(:mod:`cderetrieval.index.lexical`) weighs them, both with the library bm25s.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from types import ModuleType
from typing import Any

from ..errors import ConfigError, missing_dependency
from ..runtime import check_texts

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


class BM25:
    """BM25 as a model of a :class:`~cderetrieval.retriever.Retriever`; its kind is ``"lexical"``.

    Parameters
    ----------
    language
        Whose stop words are left out and whose endings are cut off (Snowball): ``"english"``, ``"german"``, ...; None:
        all words as they are.
    k1
        How soon a further occurrence of a word stops to count.
    b
        How much long documents are held back, from 0 to 1.

    Raises
    ------
    MissingDependencyError
        If bm25s or PyStemmer is not installed.
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
        self.language, self.k1, self.b = language, k1, b
        self._stemmer()

    def __repr__(self) -> str:
        return f"BM25({self.language!r}, k1={self.k1}, b={self.b})"

    @cached_property
    def fingerprint(self) -> str:
        """Digest of language and numbers."""
        return hashlib.sha256(json.dumps([NAME, self.language, self.k1, self.b]).encode()).hexdigest()

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> list[list[str]]:
        """Words of each text, in order, repeated as they are."""
        tokens: list[list[str]] = library().tokenize(
            check_texts(texts),
            stopwords=self.language if self.language in STOP_WORDS else None,
            stemmer=self._stemmer(),
            return_ids=False,
            show_progress=show_progress,
            leave=False,
        )
        # The library marks a text without words by an empty one.
        return [[word for word in words if word] for words in tokens]

    encode_document = encode_query

    def scorer(self) -> Any:
        """An empty index of the library, with this model's numbers."""
        return library().BM25(k1=self.k1, b=self.b, method="lucene")

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that cut texts into words and weigh them."""
        used = ["bm25s"] if self.language is None else ["bm25s", "PyStemmer"]
        return {name: version(name) for name in used}

    def _stemmer(self) -> Any:
        """Make a stemmer anew for each call: one must not be shared between threads."""
        if self.language is None:
            return None
        try:
            import Stemmer
        except ImportError as error:
            raise missing_dependency("PyStemmer", NAME) from error
        try:
            return Stemmer.Stemmer(self.language)
        except KeyError as error:
            raise ConfigError(
                f"language={self.language!r} is unknown; use None or one of {', '.join(Stemmer.algorithms())}."
            ) from error


def library() -> ModuleType:
    """Import the library.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    is_new = "bm25s" not in sys.modules
    try:
        import bm25s
    except ImportError as error:
        raise missing_dependency("bm25s", NAME) from error
    if is_new:
        # It sets its logger to DEBUG, which any program with a handler would then print.
        logging.getLogger("bm25s").setLevel(logging.NOTSET)
    return bm25s


def named(name: str) -> BM25 | None:
    """The model of a name: ``"bm25"``, ``"bm25:german"``, ``"bm25:none"``; None where it is no such name.

    >>> named("bm25").language, named("bm25:german").language, named("bm25:none").language, named("cde-minilm")
    ('english', 'german', None, None)
    """
    family, separator, language = name.partition(":")
    if family != NAME:
        return None
    if not separator:
        return BM25()
    return BM25(None if language == "none" else language)
