"""One change of a collection: gathered on this machine first, then sent.

Documents are checked, embedded and held in a temporary store, so whatever is wrong with them, or with the model, shows
before the server has heard of the change. Sending is by row: a server has no transaction over many. So a change that is
cut off while it is sent has written some of its rows, each of them whole, and the same call again completes it: rows
are written by id, and one that is there is replaced.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..documents import document_text
from ..errors import InputError, ServerError
from ..index.milvus.breadth import Probe
from ..index.milvus.collection import Collection, Row, sparse_rows
from ..index.milvus.rows import decode_payload, encode_payload, key_of, metadata_of
from ..index.milvus.schema import VECTOR
from ..store import Store
from ..store.codec import encode_id
from ..store.documents import Row as StagedRow
from ..types import Vectors
from ..vectors import DENSE, Layout, checked, is_vectors
from .guard import Guard

# Rows of one request: a server takes 64 MiB, and a payload may have 64 KiB.
MOST_ROWS = 1_000
MOST_BYTES = 16 * 2**20
STAGED_VECTORS = 4_096

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
        self._open = contextlib.ExitStack()
        self._staged: Store | None = None

    def close(self) -> None:
        """Forget what was staged, and what was begun and not published."""
        self._open.close()
        if self.guard is not None:
            with contextlib.suppress(ServerError):
                self.guard.release()

    @property
    def staged(self) -> Store:
        """Documents and vectors that are to be added, in a temporary directory."""
        if self._staged is None:
            folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="cderetrieval-"))
            self._staged = self._open.enter_context(Store(Path(folder) / "staged.sqlite"))
            self._open.enter_context(self._staged.transaction())
        return self._staged

    def put_documents(self, rows: Iterable[StagedRow], on: Sequence[str] | None) -> tuple[int, int]:
        """Stage documents; as :meth:`Store.put_documents`.

        Raises
        ------
        InputError
            If one cannot be held by a server.
        """
        return self.staged.put_documents(_encoded(rows, on))

    @property
    def adds(self) -> bool:
        """Whether documents are to be added."""
        return self._staged is not None and self._staged.count() > 0


class Rebuild:
    """All documents of a collection, embedded anew and written into another.

    Parameters
    ----------
    source
        The collection as it is.
    target
        The new one, made when its first vectors come.
    on
        Fields of the text.
    """

    def __init__(self, source: Collection, target: str, on: Sequence[str] | None) -> None:
        self._source = source
        self._target = target
        self._on = on
        self._held: dict[int, Row] = {}
        self.read = 0
        self.probe = Probe()
        self.collection: Collection | None = None

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
        layout = Layout.of(vectors)
        if self.collection is None:
            self.collection = Collection(self._source.connection, self._target, layout)
            self.collection.create()
        rows = []
        for number in numbers.tolist():
            held = self._held.pop(number)
            document, _ = decode_payload(held["payload"])
            row = {name: held[name] for name in ("id", "seq", "payload")}
            rows.append({**row, "metadata": metadata_of(document)})
        write(self.collection, rows, vectors, self.probe)


def send(staged: Store, collection: Collection, probe: Probe | None = None) -> int:
    """Write staged documents into a collection; returns how many."""
    first = reserve(staged.count()) - 1
    for seqs, vectors in staged.iter_vectors(chunk=STAGED_VECTORS):
        rows = staged.documents(seqs)
        for seq, row in zip(seqs.tolist(), rows, strict=True):
            row["seq"] = first + seq
        write(collection, rows, vectors, probe)
    return staged.count()


def write(collection: Collection, rows: Sequence[Row], vectors: Vectors, probe: Probe | None) -> None:
    """Write rows and their vectors, in requests of a size that servers take."""
    layout = collection.layout
    given: Any = checked(vectors if is_vectors(vectors) else np.asarray(vectors), layout, "document")
    if layout.kind == DENSE:
        sent: Sequence[Any] = list(given)
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


def _encoded(rows: Iterable[StagedRow], on: Sequence[str] | None) -> Iterator[StagedRow]:
    """Documents whose payloads are rows of the collection, all but number and vector."""
    for number, (document_id, text, document) in enumerate(rows):
        try:
            key = key_of(encode_id(document_id))
            payload = encode_payload(document, _kept(document, text, on))
            row = {"id": key, "payload": payload, "metadata": metadata_of(document)}
        except InputError as error:
            raise InputError(f"row {number} (id {document_id!r}): {error}") from error
        yield document_id, text, row


def _kept(document: Mapping[str, Any], text: str, on: Sequence[str] | None) -> str | None:
    """The text, where it does not follow from the document."""
    try:
        return None if document_text(document, on, 0) == text else text
    except InputError:
        return text
