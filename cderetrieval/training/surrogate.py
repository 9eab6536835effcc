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
from .cache import cached_directory, map_array
from .data import PairData

# Texts that are encoded together: enough to sort by length, few enough to hold.
BLOCK = 8_192


class SurrogateVectors(Protocol):
    """Float32 vectors of texts by position."""

    def query(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' queries, shape (n, d)."""

    def document(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' documents, shape (n, d)."""

    def negative(self, positions: np.ndarray) -> np.ndarray:
        """Vectors of mined negatives by their position in ``PairData.mined``, shape (m, d)."""


@dataclass(frozen=True)
class StoredVectors:
    """Surrogate vectors on disk, float16 mapped into memory, and the fingerprint of the model that made them."""

    queries: np.ndarray
    documents: np.ndarray
    negatives: np.ndarray
    fingerprint: str

    def query(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' queries."""
        return np.asarray(self.queries[rows], dtype=np.float32)

    def document(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' documents."""
        return np.asarray(self.documents[rows], dtype=np.float32)

    def negative(self, positions: np.ndarray) -> np.ndarray:
        """Vectors of mined negatives."""
        return np.asarray(self.negatives[positions], dtype=np.float32)


@dataclass(frozen=True)
class FreshVectors:
    """Surrogate vectors computed at every step: no disk, but a forward pass of the surrogate."""

    data: PairData
    encoder: Encoder

    def query(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' queries."""
        return np.asarray(self.encoder.encode_query(self.data.queries.take(rows)))

    def document(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the rows' documents."""
        return np.asarray(self.encoder.encode_document(self.data.documents.take(rows)))

    def negative(self, positions: np.ndarray) -> np.ndarray:
        """Vectors of mined negatives."""
        return np.asarray(self.encoder.encode_document(self.data.mined.take(positions)))


def load_surrogate(name: str, *, max_length: int | None = None, device: str | None = None) -> Encoder:
    """Load any model by name, a contextual one without a context; it cuts texts at `max_length` tokens."""
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

    `encoder` loads the surrogate, only where vectors have to be computed; `name` names all that changes its vectors.
    """
    columns = {"query": data.queries, "document": data.documents, "negative": data.mined}

    def build(directory: Path) -> dict[str, Any]:
        model = encoder()
        for part, column in columns.items():
            encode = model.encode_query if part == "query" else model.encode_document
            starts = range(0, len(column), BLOCK)
            with open(directory / f"{part}.f16", "wb") as file:
                for start in progress(starts, f"surrogate vectors of {part} texts", show=show_progress):
                    texts = column.take(range(start, min(start + BLOCK, len(column))))
                    file.write(np.asarray(encode(texts), dtype="<f2").tobytes())
        return {"dimension": model.dimension, "fingerprint": model.fingerprint}

    directory, info = cached_directory(cache, "vectors", {"data": data.fingerprint, "surrogate": name}, build)
    queries, documents, negatives = (
        map_array(directory / f"{part}.f16", "<f2", (len(column), info["dimension"]))
        for part, column in columns.items()
    )
    return StoredVectors(queries, documents, negatives, info["fingerprint"])
