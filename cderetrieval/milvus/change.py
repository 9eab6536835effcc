"""One change of a collection: gathered on this machine first, then sent.

Documents are checked, embedded and kept in a temporary store, so whatever is wrong with them, or with the model, shows
before the server has heard of the change. Sending is by row: a server has no transaction over many. So a change that is
cut off while it is sent has written some of its rows, each of them whole, and the same call again completes it: rows
are written by id, and one that is there is replaced.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, count, islice
from typing import Any

import numpy as np

from ..documents import Row as Document
from ..documents import document_text
from ..errors import InputError, ServerError
from ..passages import Passages, Splitter, title_of
from ..splitting import Span
from ..store import Store
from ..store.codec import encode_id, encode_json
from ..store.database import TAKING
from ..vectors import DENSE, Layout, Vectors, as_vectors, checked
from .breadth import Probe
from .fields import VECTOR
from .leases import Lease
from .remote import BOUNDED, STRONG, RemoteCollection, Row, sparse_rows
from .rows import decode_payload, decode_row, encode_payload, key_of, metadata_of, passage_key, signed

# Rows of one request: a server takes 64 MiB, and a payload may have 64 KiB.
MOST_ROWS = 1_000
MOST_BYTES = 16 * 2**20
# Requests at a time: one is made ready while a server works on another. Milvus Lite works in this process, where
# threads would only take turns (6 per cent more time).
UNDER_WAY = 2
# Vectors that are read back together: whole requests.
CHUNK = 4 * MOST_ROWS

_last_seq = 0


class Change:
    """What one transaction is going to do."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.taking = False
        self.values: dict[str, Any] = {}
        self.read: dict[str, Any] = {}
        self.contexts: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}
        self.removed: list[str] = []
        self.rebuilt: Rebuild | None = None
        self.documents = Store()

    def close(self) -> None:
        """Forget what was gathered, and what was built and not published."""
        self.documents.close()
        with contextlib.suppress(ServerError):  # the next build clears it away
            self.lease.release()

    def join(self) -> None:
        """Refuse to become part of this change while what yields its documents is asked for the next one."""
        if self.taking:
            raise InputError(TAKING)

    def put_documents(
        self, rows: Iterable[Document], on: Sequence[str] | None, cut: Splitter | None
    ) -> tuple[int, int]:
        """Keep documents; their first number, and how many there are."""
        spans: deque[list[Span]] = deque()
        return self.documents.put_documents(_encoded(rows, on, cut, spans), lambda *_: spans.popleft())

    def spans_of(self, seqs: Sequence[int] | np.ndarray) -> dict[int, list[Span]]:
        """The spans of those of the documents to embed that were cut, by number."""
        if self.rebuilt is None:
            return self.documents.spans_of(seqs)
        return {seq: self.rebuilt.spans[seq] for seq in np.asarray(seqs).tolist() if seq in self.rebuilt.spans}

    def titles_of(self, texts: Mapping[int, str], on: Sequence[str] | None, passages: Passages) -> dict[int, str]:
        """The titles of documents to embed, given as number to text."""
        if self.rebuilt is None:
            payloads = [stored(row["payload"], on)[1] for row in self.documents.documents(list(texts))]
        else:
            payloads = [self.rebuilt.payloads[seq] for seq in texts]
        documents = zip(texts.items(), payloads, strict=True)
        return {seq: title_of(text, payload, on, passages) for (seq, text), payload in documents}


class Rebuild:
    """All documents of a collection, embedded anew and written into another."""

    def __init__(self, source: RemoteCollection, target: RemoteCollection, on: Sequence[str] | None) -> None:
        self._source = source
        self.target = target
        self._on = on
        self._held: dict[int, Row] = {}
        # Documents that were read, and the number of the next; each has as many numbers as passages.
        self.read = self._next = 0
        # Spans and payloads of those that were read last.
        self.spans: dict[int, list[Span]] = {}
        self.payloads: dict[int, dict[str, Any]] = {}
        self.probe = Probe()

    def pending(self, chunk: int) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers, of this walk alone, and texts of all documents."""
        rows = (row for part in self._source.scan(["seq", "payload"]) for row in part)
        while some := list(islice(rows, chunk)):
            self._held, self.spans, self.payloads = {}, {}, {}
            texts = []
            for row in some:
                number, spans = self._next, decode_row(row["payload"])[2]
                self._held[number] = row
                text, self.payloads[number] = stored(row["payload"], self._on)
                texts.append(text)
                if spans:
                    self.spans[number] = spans
                self._next += max(1, len(spans))
            self.read += len(some)
            yield np.array(list(self._held)), texts

    def put(self, numbers: np.ndarray, vectors: Vectors) -> None:
        """Write vectors of documents that :meth:`pending` gave last."""
        rows: list[Row] = []
        for number in numbers.tolist():
            if number in self._held:
                row = {name: self._held[number][name] for name in ("id", "seq", "payload")}
                row["metadata"] = metadata_of(self.payloads[number])
                if self.target.cut:
                    row["passages"] = signed(self.spans.get(number, ()))
                rows += passage_rows(row)
        with Sender(self.target) as sender:
            write(sender, rows, vectors, self.probe)


def send(documents: Store, collection: RemoteCollection, probe: Probe | None = None, *, filled: bool = False) -> int:
    """Write kept documents into a collection; returns how many were there, if it is `filled`."""
    seqs = count(reserve(documents.count()))
    whole = ({"id": key, "seq": seq, **row} for (key, _, row), seq in zip(documents.rows(), seqs, strict=False))
    rows = chain.from_iterable(map(passage_rows, whole))
    with Sender(collection, filled=filled) as sender:
        for numbers, vectors in documents.iter_vectors(chunk=CHUNK):
            write(sender, list(islice(rows, len(numbers))), vectors, probe)
    return sender.replaced


def passage_rows(row: Row) -> Iterator[Row]:
    """The row of a document, and those of its further passages."""
    yield row
    for number in range(1, abs(row.get("passages", 1))):
        yield {**row, "id": passage_key(row["id"], number), "payload": "", "passages": 0}


class Sender:
    """Requests under way: while a server works on one, the next is made ready.

    Into a collection that has documents, a request also finds out which of its own are there, and removes those of
    their passages that they do not have any more.
    """

    def __init__(self, collection: RemoteCollection, *, filled: bool = False) -> None:
        self.collection = collection
        # Documents that were there.
        self.replaced = 0
        self._filled = filled
        lite = collection.connection.location.lite
        self._pool = None if lite else ThreadPoolExecutor(UNDER_WAY, thread_name_prefix="cderetrieval-send")
        self._sent: deque[Future[int]] = deque()
        self._begun = False

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                while self._sent:
                    self.replaced += self._sent.popleft().result()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)

    def send(self, rows: Sequence[Row]) -> None:
        """Write rows; an error shows in a later call, or at the end."""
        if self._pool is None or not self._begun:
            # Sees what others wrote until now; so do later reads of that replica, which need not wait for own writes.
            self.replaced += self._write(rows, STRONG)
            self._begun = True
            return
        if len(self._sent) == UNDER_WAY:
            self.replaced += self._sent.popleft().result()
        self._sent.append(self._pool.submit(self._write, rows, BOUNDED))

    def _write(self, rows: Sequence[Row], consistency: str) -> int:
        """Write rows; returns how many documents were there."""
        counts = {row["id"]: abs(row.get("passages", 1)) for row in rows if row["payload"]} if self._filled else {}
        there = self.collection.shorten(counts, consistency=consistency)
        self.collection.upsert(rows)
        return there


def write(sender: Sender, rows: Sequence[Row], vectors: Vectors, probe: Probe | None) -> None:
    """Write rows and their vectors, in requests of a size that servers take."""
    layout = sender.collection.layout
    given: Any = checked(as_vectors(vectors, "document"), layout, "document")
    if layout.kind == DENSE and probe is not None:
        probe.offer([row["id"] for row in rows], given)
    if layout.kind != DENSE and given.nnz and given.data.min() < 0:
        raise InputError("a sparse vector has a negative weight, which Milvus does not take.")
    width = 4 * layout.dimension if layout.kind == DENSE else 12 * given.nnz // max(1, len(rows))
    start = size = 0
    for number, row in enumerate(rows, start=1):
        size += width + 2 * len(row["payload"]) + 200
        if number - start >= MOST_ROWS or size >= MOST_BYTES or number == len(rows):
            some = rows[start:number]
            for one, vector in zip(some, _as_sent(given[start:number], layout), strict=True):
                one[VECTOR] = vector
            sender.send(some)
            start, size = number, 0


def _as_sent(vectors: Any, layout: Layout) -> list[Any]:
    """Vectors of rows as pymilvus takes them."""
    if layout.kind == DENSE:
        return list(vectors)
    # Milvus takes no empty vector: one without a term gets a term that no query has.
    return [terms or {layout.dimension: 1.0} for terms in sparse_rows(vectors)]


def stored(payload: str, on: Sequence[str] | None) -> tuple[str, dict[str, Any]]:
    """The text that was embedded for a stored document, and the document."""
    document, text = decode_payload(payload)
    return document_text(document, on, 0) if text is None else text, document


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


def _encoded(
    rows: Iterable[Document], on: Sequence[str] | None, cut: Splitter | None, spans: deque[list[Span]]
) -> Iterator[tuple[str, str, Row]]:
    """Keys, texts, and the other fields of rows but number and vector; `spans` takes those of each document."""
    for number, (document_id, text, document) in enumerate(rows):
        try:
            key, own = key_of(encode_id(document_id)), [] if cut is None else cut(text, document)
            spans.append(own)
            try:
                payload = encode_payload(document, _kept(document, text, on), own)
            except (TypeError, ValueError, RecursionError):
                encode_json(document)  # names the field that is no JSON
                raise
            row: Row = {"payload": payload, "metadata": metadata_of(document)}
            if cut is not None:
                row["passages"] = signed(own)
        except InputError as error:
            raise InputError(f"row {number} (id {document_id!r}): {error}") from error
        yield key, text, row


def _kept(document: Mapping[str, Any], text: str, on: Sequence[str] | None) -> str | None:
    """The text, where it does not follow from the document."""
    try:
        return None if document_text(document, on, 0) == text else text
    except InputError:
        return text
