"""Which index serves what: FAISS dense vectors, posting lists sparse ones, BM25 words, behind the same few calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError
from ..vectors import DENSE, Layout
from .stream import Chunks

logger = logging.getLogger(__name__)

# Where each kind of index is saved and opened.
CACHES = {"dense": ".cache", "sparse": ".inverted_cache", "words": ".lexical_cache"}


class Index(Protocol):
    """What a collection asks of an index."""

    def sync(self, live_seqs: np.ndarray, vectors_after: Callable[[int], Chunks]) -> None:
        """Make the index hold exactly these numbers."""

    def search(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the best, best first, both (q, at most k); short rows end in -inf and -1."""


def new_index(layout: Layout, factory: str) -> Index:
    """An empty index."""
    if layout.kind == DENSE:
        from .faiss import FaissIndex

        return FaissIndex(layout.dimension, factory)
    if factory != "auto":
        raise ConfigError(
            f"index={factory!r} is a FAISS index, and FAISS holds no {layout}. Leave index='auto', which takes the "
            "inverted index for them."
        )
    from .inverted import InvertedIndex

    return InvertedIndex(layout.dimension, layout.embedding_size)


def usable(layout: Layout, factory: str) -> str:
    """The factory string of a store that holds vectors, or ``"auto"`` where it was taken before it was tried."""
    if factory == "auto":
        return factory
    try:
        new_index(layout, factory)
    except ConfigError as error:
        logger.warning("index='auto' is used for this index: %s", error)
        return "auto"
    return factory


def load_index(directory: Path, layout: Layout, factory: str, **owner: Any) -> Index | None:
    """The index that :func:`save_index` left, where it fits the store; else `None`, and the reason in the log."""
    if layout.kind == DENSE:
        found: Index | None = _cache(layout).load(directory, dimension=layout.dimension, factory=factory, **owner)
    else:
        found = _cache(layout).load(directory, layout, **owner)
    return found


def open_lexical(directory: Path | None, model: Any, **owner: Any) -> Index:
    """The index of words that :func:`save_index` left, where it fits the store; else an empty one."""
    from .lexical import LexicalIndex

    cached: Index | None = None if directory is None else _cache(None).load(directory, model, **owner)
    return LexicalIndex(model) if cached is None else cached


def save_index(index: Any, directory: Path, layout: Layout | None, **owner: Any) -> str | None:
    """Write an index beside its store; the digest is for the store to keep. An index of words has no layout."""
    digest: str | None = _cache(layout).save(index, directory, **owner)
    return digest


def _cache(layout: Layout | None) -> Any:
    """The module that saves and opens an index of this kind of vectors; imported on first use, as faiss is large."""
    kind = "words" if layout is None else "dense" if layout.kind == DENSE else "sparse"
    return import_module(CACHES[kind], __package__)
