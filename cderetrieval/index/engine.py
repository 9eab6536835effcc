"""Which index serves what: FAISS dense vectors, posting lists sparse ones, BM25 words, behind the same few calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError
from ..vectors import DENSE, Layout
from .stream import Chunks

logger = logging.getLogger(__name__)


class Index(Protocol):
    """What a view of a store asks of an index."""

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


def load_index(
    directory: Path, layout: Layout, factory: str, *, epoch: int, fingerprint: str, digest: str | None
) -> Index | None:
    """The index that :func:`save_index` left, where it fits the store; else `None`, and the reason in the log."""
    owner: dict[str, Any] = {"epoch": epoch, "fingerprint": fingerprint, "digest": digest}
    if layout.kind == DENSE:
        from . import cache

        return cache.load(directory, dimension=layout.dimension, factory=factory, **owner)
    from . import inverted_cache

    return inverted_cache.load(directory, layout, **owner)


def open_lexical(
    directory: Path | None, model: Any, *, epoch: int, fingerprint: str | None, digest: str | None
) -> Index:
    """The index of words that :func:`save_index` left, where it fits the store; else an empty one."""
    from . import lexical_cache
    from .lexical import LexicalIndex

    owner: dict[str, Any] = {"epoch": epoch, "fingerprint": fingerprint, "digest": digest}
    cached = None if directory is None else lexical_cache.load(directory, model, **owner)
    return LexicalIndex(model) if cached is None else cached


def save_index(
    index: Any, directory: Path, layout: Layout | None, *, epoch: int, generation: int, fingerprint: str
) -> str | None:
    """Write an index beside its store; the digest is for the store to keep. An index of words has no layout."""
    owner: dict[str, Any] = {"epoch": epoch, "generation": generation, "fingerprint": fingerprint}
    if layout is None:
        from . import lexical_cache

        return lexical_cache.save(index, directory, **owner)
    if layout.kind == DENSE:
        from . import cache

        return cache.save(index, directory, **owner)
    from . import inverted_cache

    return inverted_cache.save(index, directory, **owner)
