"""Which index serves what: FAISS dense vectors, posting lists sparse ones, BM25 words."""

from __future__ import annotations

import logging
from typing import Any

from ..errors import ConfigError
from ..vectors import DENSE, Layout
from .base import Index

logger = logging.getLogger(__name__)


def new_index(layout: Layout | None, factory: str = "auto", words: Any = None) -> Index:
    """An empty index; without a layout one of `words`, a model that cuts texts into them."""
    if layout is None:
        from .lexical import LexicalIndex

        return LexicalIndex(words)
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
