"""Documents and vectors of one change, before they are sent: in memory while they are few, in temporary files beyond.

Beyond: a line of JSON a document, numpy arrays one after the other for vectors, written once and read once, in order. A
tenth of the cost of a store, whose guarantees nobody needs here: what is not sent is forgotten.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import IO, Any

import numpy as np

from ..errors import InputError
from ..index.milvus.collection import Row
from ..types import Vectors
from ..vectors import DENSE, Layout, as_vectors, checked

# Bytes that stay in memory, for documents and for vectors: 40,000 vectors of 384 dimensions.
IN_MEMORY = 64 * 2**20
# What a short document takes as Python objects.
OVERHEAD = 1_000
# Vectors that are written, and read back, together.
CHUNK = 4_096


class Spool:
    """Rows without vectors, then vectors, then both together.

    Examples
    --------
    >>> with Spool() as spool:
    ...     count = spool.put([("first text", {"id": "s:a"}), ("second", {"id": "s:b"})])
    ...     numbers, texts = next(spool.pending(10))
    ...     spool.put_vectors(numbers, np.eye(2, dtype=np.float32))
    ...     [(rows, vectors.tolist()) for rows, vectors in spool.read()]
    [([{'id': 's:a'}, {'id': 's:b'}], [[1.0, 0.0], [0.0, 1.0]])]
    """

    def __init__(self) -> None:
        self._first: list[tuple[str, Row]] = []
        self._size = 0
        self._rest: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed by `close`
        self._vectors: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self.layout: Layout | None = None
        self.count = 0
        self._embedded = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything."""
        self._first.clear()
        self._rest.close()
        self._vectors.close()

    def put(self, rows: Iterable[tuple[str, Row]]) -> int:
        """Take texts and rows; returns how many."""
        before = self.count
        self._rest.seek(0, 2)
        for text, row in rows:
            if self._size < IN_MEMORY:
                self._first.append((text, row))
                self._size += OVERHEAD + len(text) + len(row.get("payload", ""))
            else:  # as ASCII: a text may hold a lone surrogate
                self._rest.write(json.dumps([text, row]).encode("ascii"))
                self._rest.write(b"\n")
            self.count += 1
        return self.count - before

    def pending(self, chunk: int) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers, from 1, and texts of all documents."""
        number = 1
        lines = self._lines()
        while texts := [text for text, _ in islice(lines, chunk)]:
            yield np.arange(number, number + len(texts)), texts
            number += len(texts)

    def put_vectors(self, numbers: Sequence[int] | np.ndarray, vectors: Vectors) -> None:
        """Take the vectors of the next documents.

        Raises
        ------
        InputError
            If they are not those of the next documents, or not sound.
        """
        expected = np.arange(self._embedded + 1, self._embedded + 1 + len(numbers))
        given = as_vectors(vectors, "document")
        if not np.array_equal(numbers, expected) or given.shape[0] != len(numbers):
            raise InputError(f"{given.shape[0]} vectors for documents {numbers}: those of {expected} come next.")
        layout = self.layout or Layout.of(given)
        if Layout.of(given) != layout:
            raise InputError(f"these are {Layout.of(given)}; the documents before have {layout}.")
        self.layout = layout
        sound: Any = checked(given, layout, "document", self._embedded)
        self._vectors.seek(0, 2)
        for start in range(0, len(numbers), CHUNK):
            for array in _arrays(sound[start : start + CHUNK], layout):
                np.lib.format.write_array(self._vectors, np.ascontiguousarray(array), allow_pickle=False)
        self._embedded += len(numbers)

    def read(self) -> Iterator[tuple[list[Row], Any]]:
        """Rows and their vectors, in order, some at a time."""
        rows = (dict(row) for _, row in self._lines())  # copies: what a caller adds to them does not stay here
        self._vectors.seek(0)
        done = 0
        while done < self._embedded and self.layout is not None:
            vectors = _read(self._vectors, self.layout)
            yield list(islice(rows, vectors.shape[0])), vectors
            done += vectors.shape[0]

    def _lines(self) -> Iterator[tuple[str, Row]]:
        yield from self._first
        self._rest.seek(0)
        for line in self._rest:
            text, row = json.loads(line)
            yield text, row


def _arrays(vectors: Any, layout: Layout) -> list[np.ndarray]:
    return [vectors] if layout.kind == DENSE else [vectors.data, vectors.indices, vectors.indptr]


def _read(file: IO[bytes], layout: Layout) -> Any:
    if layout.kind == DENSE:
        return np.lib.format.read_array(file, allow_pickle=False)
    from scipy.sparse import csr_array

    data, indices, indptr = (np.lib.format.read_array(file, allow_pickle=False) for _ in range(3))
    return csr_array((data, indices, indptr), shape=(len(indptr) - 1, layout.dimension))
