"""One change of a collection: gathered on this machine first, then sent.

Documents are checked, embedded and spooled (:mod:`.spool`), so whatever is wrong with them, or with the model, shows
before the server has heard of the change. Sending is by row: a server has no transaction over many. So a change that is
cut off while it is sent has written some of its rows, each of them whole, and the same call again completes it: rows
are written by id, and one that is there is replaced.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..documents import document_text
from ..errors import InputError, ServerError
from ..index.milvus.breadth import Probe
from ..index.milvus.collection import Collection, Row, sparse_rows
from ..index.milvus.rows import decode_payload, encode_payload, key_of, metadata_of
from ..index.milvus.schema import VECTOR
from ..store.codec import encode_id, encode_json
from ..store.documents import Row as Document
from ..types import Vectors
from ..vectors import DENSE, checked, is_vectors
from .guard import Guard
from .spool import Spool

# Rows of one request: a server takes 64 MiB, and a payload may have 64 KiB.
MOST_ROWS = 1_000
MOST_BYTES = 16 * 2**20

_last_seq = 0


class Change:
    """What one transaction is going to do.

    Attributes
    ----------
    values
        Settings that were set.
    contexts
        Contexts that were put: digest to metadata and arrays.
    removed
        Keys of rows to delete.
    rebuilt
        What is written into a new collection, where all vectors are made anew.
    guard
        Of the new collection that is being built, if one is.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.contexts: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}
        self.removed: list[str] = []
        self.rebuilt: Rebuild | None = None
        self.guard: Guard | None = None
        self.spool = Spool()

    def close(self) -> None:
        """Forget what was gathered, and what was built and not published."""
        self.spool.close()
        if self.guard is not None:
            with contextlib.suppress(ServerError):  # the next build clears it away
                self.guard.release()

    def put_documents(self, rows: Iterable[Document], on: Sequence[str] | None) -> tuple[int, int]:
        """Spool documents; their first number, and how many there are.

        Raises
        ------
        InputError
            If one cannot be held by a server; the message names the row.
        """
        first = self.spool.count + 1
        return first, self.spool.put(_encoded(rows, on))


class Rebuild:
    """All documents of a collection, embedded anew and written into another.

    Parameters
    ----------
    source
        The collection as it is.
    target
        The new one, empty.
    on
        Fields of the text.
    """

    def __init__(self, source: Collection, target: Collection, on: Sequence[str] | None) -> None:
        self._source = source
        self.target = target
        self._on = on
        self._held: dict[int, Row] = {}
        self.read = 0
        self.probe = Probe()

    def pending(self, chunk: int) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers, of this walk alone, and texts of all documents."""
        rows = (row for part in self._source.scan(["seq", "payload"]) for row in part)
        while some := list(islice(rows, chunk)):
            numbers = np.arange(self.read, self.read + len(some))
            self.read += len(some)
            self._held = dict(zip(numbers.tolist(), some, strict=True))
            yield numbers, [stored_text(row["payload"], self._on) for row in some]

    def put(self, numbers: np.ndarray, vectors: Vectors) -> None:
        """Write vectors of documents that :meth:`pending` gave last."""
        rows = []
        for number in numbers.tolist():
            held = self._held.pop(number)
            document, _ = decode_payload(held["payload"])
            row = {name: held[name] for name in ("id", "seq", "payload")}
            rows.append({**row, "metadata": metadata_of(document)})
        write(self.target, rows, vectors, self.probe)


def send(spool: Spool, collection: Collection, probe: Probe | None = None) -> int:
    """Write spooled documents into a collection; returns how many."""
    seq = reserve(spool.count)
    for rows, vectors in spool.read():
        for row in rows:
            row["seq"] = seq
            seq += 1
        write(collection, rows, vectors, probe)
    return spool.count


def write(collection: Collection, rows: Sequence[Row], vectors: Vectors, probe: Probe | None) -> None:
    """Write rows and their vectors, in requests of a size that servers take."""
    layout = collection.layout
    given: Any = checked(vectors if is_vectors(vectors) else np.asarray(vectors), layout, "document")
    if layout.kind == DENSE:
        # Lists: pymilvus takes twice as long over numpy rows.
        sent: Sequence[Any] = given.tolist()
        if probe is not None:
            probe.offer([row["id"] for row in rows], given)
    else:
        if given.nnz and given.data.min() < 0:
            raise InputError("a sparse vector has a negative weight, which Milvus does not take.")
        # Milvus takes no empty vector: one without a term gets a term that no query has.
        sent = [terms or {layout.dimension: 1.0} for terms in sparse_rows(given)]
    start = size = 0
    for number, row in enumerate(rows):
        row[VECTOR] = sent[number]
        size += 4 * layout.dimension if layout.kind == DENSE else 12 * len(sent[number])
        size += 2 * len(row["payload"]) + 200
        if number + 1 - start >= MOST_ROWS or size >= MOST_BYTES or number + 1 == len(rows):
            collection.upsert(rows[start : number + 1])
            start, size = number + 1, 0


def stored_text(payload: str, on: Sequence[str] | None) -> str:
    """The text that was embedded for a stored document."""
    document, text = decode_payload(payload)
    return document_text(document, on, 0) if text is None else text


def keys_of(ids: Iterable[Hashable]) -> list[str]:
    """Primary keys of ids."""
    return [key_of(encode_id(document_id)) for document_id in ids]


def reserve(count: int) -> int:
    """The first of `count` numbers above all that this process has given: microseconds since 1970.

    Processes that write at the same time order their documents by their clocks.
    """
    global _last_seq
    first = max(time.time_ns() // 1_000, _last_seq + 1)
    _last_seq = first + count
    return first


def _encoded(rows: Iterable[Document], on: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    """Texts, and rows without number and vector."""
    for number, (document_id, text, document) in enumerate(rows):
        try:
            key = key_of(encode_id(document_id))
            try:
                payload = encode_payload(document, _kept(document, text, on))
            except (TypeError, RecursionError):
                encode_json(document)  # names the field that is no JSON
                raise
            row = {"id": key, "payload": payload, "metadata": metadata_of(document)}
        except InputError as error:
            raise InputError(f"row {number} (id {document_id!r}): {error}") from error
        yield text, row


def _kept(document: Mapping[str, Any], text: str, on: Sequence[str] | None) -> str | None:
    """The text, where it does not follow from the document."""
    try:
        return None if document_text(document, on, 0) == text else text
    except InputError:
        return text
