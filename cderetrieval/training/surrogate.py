"""Vectors of every query, document and mined negative by a named model: what clusters and filters go by.

The surrogate only has to know which texts are alike; any model that :func:`cderetrieval.load` knows will do.
Its vectors are computed once, kept in half precision, and mapped into memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from ..runtime import progress
from ..types import Encoder
from .cache import cached_directory, map_array, read_info
from .columns import TextColumn
from .data import PairData

# Texts that are encoded together: enough to sort by length, few enough to hold.
BLOCK = 8_192
PARTS = ("query", "document", "negative")


class Vectors(Protocol):
    """Surrogate vectors of rows, float32, by position."""

    def query(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' queries, shape (n, d)."""

    def document(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' documents, shape (n, d)."""

    def negative(self, positions: np.ndarray) -> np.ndarray:
        """Vectors of mined negatives by their position in ``PairData.mined``, shape (m, d)."""


@dataclass(frozen=True)
class StoredVectors:
    """Surrogate vectors on disk.

    Attributes
    ----------
    queries, documents, negatives
        Shapes (n, d), (n, d) and (m, d), float16, mapped into memory.
    fingerprint
        Of the model that made them.
    """

    queries: np.ndarray
    documents: np.ndarray
    negatives: np.ndarray
    fingerprint: str

    def query(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' queries."""
        return self.queries[rows].astype(np.float32)

    def document(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' documents."""
        return self.documents[rows].astype(np.float32)

    def negative(self, positions: np.ndarray) -> np.ndarray:
        """Vectors of mined negatives."""
        return self.negatives[positions].astype(np.float32)


@dataclass(frozen=True)
class FreshVectors:
    """Surrogate vectors computed when they are asked for, step by step: no disk, but a forward pass of the surrogate.

    Attributes
    ----------
    data, encoder
        The pairs and the surrogate.
    """

    data: PairData
    encoder: Encoder

    def query(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' queries."""
        return self.encoder.encode_query(self.data.queries.take(rows))

    def document(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' documents."""
        return self.encoder.encode_document(self.data.documents.take(rows))

    def negative(self, positions: np.ndarray) -> np.ndarray:
        """Vectors of mined negatives."""
        return self.encoder.encode_document(self.data.mined.take(positions))


def load_surrogate(name: str, *, max_length: int | None = None, device: str | None = None) -> Encoder:
    """Load the model that clusters and filters go by.

    Parameters
    ----------
    name
        As for :func:`cderetrieval.load`; a contextual model is used without a context.
    max_length
        Cut texts at so many tokens; None: at the model's own limit.
    device
        Where to compute; None: the best there is.
    """
    from ..models.load import load

    model: Any = load(name, device=device)
    encoder = model.in_context(None) if hasattr(model, "in_context") else model
    if max_length is not None:
        length = min(max_length, encoder.settings.max_length)
        encoder.settings = dataclasses.replace(encoder.settings, max_length=length)
    return cast(Encoder, encoder)


def store_vectors(
    data: PairData, encoder: Callable[[], Encoder], name: str, cache: str | Path, *, show_progress: bool = True
) -> StoredVectors:
    """Compute the surrogate's vectors of all texts, or open those of an earlier call.

    Parameters
    ----------
    data
        The pairs.
    encoder
        Loads the surrogate; called only where vectors have to be computed.
    name
        Names the surrogate with all that changes its vectors; part of the cache's key.
    cache
        Directory of the cache.
    show_progress
        Show progress bars on a terminal.
    """
    key = {"data": data.fingerprint, "surrogate": name}

    def build(directory: Path) -> dict[str, Any]:
        model = encoder()
        counts = {part: _encode(directory, part, column, model, show_progress) for part, column in _columns(data)}
        return {"dimension": model.dimension, "counts": counts, "fingerprint": model.fingerprint}

    directory = cached_directory(cache, "vectors", key, build)
    info = read_info(directory)
    shapes = {part: (info["counts"][part], info["dimension"]) for part in PARTS}
    queries, documents, negatives = (map_array(directory / f"{part}.f16", "<f2", shapes[part]) for part in PARTS)
    return StoredVectors(queries, documents, negatives, info["fingerprint"])


def _columns(data: PairData) -> list[tuple[str, TextColumn]]:
    return list(zip(PARTS, (data.queries, data.documents, data.mined), strict=True))


def _encode(directory: Path, part: str, column: TextColumn, model: Encoder, show_progress: bool) -> int:
    encode = model.encode_query if part == "query" else model.encode_document
    starts = range(0, len(column), BLOCK)
    with open(directory / f"{part}.f16", "wb") as file:
        for start in progress(starts, f"surrogate vectors of {part} texts", show=show_progress):
            texts = column.take(range(start, min(start + BLOCK, len(column))))
            file.write(encode(texts).astype("<f2").tobytes())
    return len(column)
