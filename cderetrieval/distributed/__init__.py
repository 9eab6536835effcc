"""Embedding a corpus that is too large for one process, and indexes made from ready vectors.

The engine is Ray Data's; scheduling, retries and the death of a machine are its business. What is ours is what it
cannot know: how a corpus is cut into blocks, that a context is made once, and what a folder of vectors belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "VectorFolder": "folder",
    "embed_corpus": "embed",
    "index_vectors": "index",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .embed import embed_corpus as embed_corpus
    from .folder import VectorFolder as VectorFolder
    from .index import index_vectors as index_vectors
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
