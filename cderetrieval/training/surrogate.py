"""Vectors of every query, document and mined negative by a named model: what clusters and filters go by.

The surrogate only has to know which texts are alike; any model that :func:`cderetrieval.load` knows will do.
Its vectors are computed once, kept in half precision, and mapped into memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..runtime import progress
from ..types import Encoder
from .cache import cached_directory, map_array
from .data import PairData, TextColumn

# Texts that are encoded together: enough to sort by length, few enough to hold.
BLOCK = 8_192


class _OnDemand:
    """Rows of vectors that are computed when they are indexed."""

    def __init__(self, encode: Callable[[list[str]], np.ndarray], column: TextColumn) -> None:
        self._encode = encode
        self._column = column

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._encode(self._column.take(rows))


@dataclass(frozen=True)
class SurrogateVectors:
    """Vectors of queries, documents and mined negatives, and the fingerprint of the model that made them.

    Arrays (n, d), (n, d) and (m, d), float16 mapped into memory, or :func:`fresh_vectors`.
    """

    queries: Any
    documents: Any
    negatives: Any
    fingerprint: str


def some(vectors: Any, rows: np.ndarray) -> np.ndarray:
    """Some of the vectors, shape (n, d), float32."""
    return np.asarray(vectors[rows], dtype=np.float32)


def fresh_vectors(data: PairData, encoder: Encoder) -> SurrogateVectors:
    """Vectors computed at every step: no disk, but a forward pass of the surrogate."""
    queries = _OnDemand(encoder.encode_query, data.queries)
    documents, negatives = (_OnDemand(encoder.encode_document, column) for column in (data.documents, data.mined))
    return SurrogateVectors(queries, documents, negatives, encoder.fingerprint)


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
) -> SurrogateVectors:
    """Compute the surrogate's vectors of all texts, or open those of an earlier call.

    `encoder` loads the surrogate, only where vectors have to be computed; `name` names all that changes its vectors.
    """
    columns = data.columns

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
    shapes = {part: (len(column), info["dimension"]) for part, column in columns.items()}
    stored = [map_array(directory / f"{part}.f16", "<f2", shape) for part, shape in shapes.items()]
    return SurrogateVectors(stored[0], stored[1], stored[2], info["fingerprint"])
