"""The SQLite store: documents, vectors and contexts on disk."""

from .sqlite import Store

__all__ = ["Store"]
