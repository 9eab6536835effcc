"""Corpora: files and folders, BEIR folders, and retrieval tasks made from what every machine already has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "Dataset": "dataset",
    "Files": "files",
    "SpanDataset": "spans",
    "make_dataset": "dataset",
    "read_beir": "beir_folder",
    "read_documents": "readers",
    "read_files": "files",
    "read_qrels": "qrels",
    "read_spans": "spans",
    "write_beir": "beir_folder",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .beir_folder import read_beir as read_beir
    from .beir_folder import write_beir as write_beir
    from .dataset import Dataset as Dataset
    from .dataset import make_dataset as make_dataset
    from .files import Files as Files
    from .files import read_files as read_files
    from .qrels import read_qrels as read_qrels
    from .readers import read_documents as read_documents
    from .spans import SpanDataset as SpanDataset
    from .spans import read_spans as read_spans
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
