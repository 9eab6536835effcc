"""Embedding a corpus that is too large for one process, and indexes made from ready vectors.

The engine is Ray Data's; scheduling, retries and the death of a machine are its business. What is ours is what it
cannot know: how a corpus is cut into blocks, that a context is made once, and what a folder of vectors belongs to.
"""

from .embed import embed_corpus
from .folder import VectorFolder
from .index import index_vectors

__all__ = ["VectorFolder", "embed_corpus", "index_vectors"]
