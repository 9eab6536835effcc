"""Search among the documents that a filter lets pass, with an index on this machine.

The payloads of all documents are looked through once for each filter and state of the store (0.5 s for 100,000), and
the search is exact, over the vectors of those that pass: FAISS's approximate indexes find too little where few rows may
be answers. Posting lists take the selection as a mask. Where filters must be fast on millions of documents, a server
holds the fields in columns (``index="milvus://..."``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .filters import Filter
from .index.engine import Index
from .index.exact import exact_stream
from .store import Store
from .vectors import DENSE, checked

PAYLOADS = 4_096


def passing(store: Store, seqs: np.ndarray, wanted: Filter) -> np.ndarray:
    """Numbers, among `seqs`, of the documents that a filter lets pass, ascending."""
    found: list[int] = []
    for start in range(0, len(seqs), PAYLOADS):
        chunk = seqs[start : start + PAYLOADS]
        documents = store.documents(chunk)
        found += [seq for seq, document in zip(chunk.tolist(), documents, strict=True) if wanted.holds(document)]
    return np.array(found, dtype=np.int64)


def search_among(
    index: Index, store: Store, allowed: np.ndarray, queries: Any, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and numbers of the nearest documents among those allowed; as :meth:`Index.search`."""
    layout = store.layout
    if layout is None or layout.kind != DENSE:  # an index of words, or of sparse vectors
        masked: Any = index
        found: tuple[np.ndarray, np.ndarray] = masked.search(
            queries, k, mask=np.isin(masked.seqs, allowed, assume_unique=True)
        )
        return found
    vectors = checked(queries, layout, "query")
    return exact_stream(_among(store, allowed), np.asarray(vectors), k)


def _among(store: Store, allowed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for seqs, vectors in store.iter_vectors():
        passes = np.isin(seqs, allowed, assume_unique=True)
        if passes.any():
            yield seqs[passes], np.asarray(vectors)[passes]
