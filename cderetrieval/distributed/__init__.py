"""Embed a corpus that is too large for one process, and make indexes from ready vectors.

Ray Data schedules, retries, and copes with the death of a machine. Here is only what it cannot know: how a corpus is
cut into blocks, that a context is made once, and what a folder of vectors belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "VectorFolder": "vector_folder",
    "embed_corpus": "embed",
    "index_vectors": "index",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .embed import embed_corpus as embed_corpus
    from .index import index_vectors as index_vectors
    from .vector_folder import VectorFolder as VectorFolder
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
