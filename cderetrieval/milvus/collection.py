"""A collection on a Milvus server: documents, vectors, contexts and settings of one retriever.

A corpus that outgrows one machine cannot have its one source of truth in a file of that machine, so here the server
holds everything. Nothing is kept on this machine but what has been read lately: which collection is behind the alias,
and what it says of itself. That is read again every five seconds, before each change, and whenever the collection turns
out to be gone, so a process follows when another one has refreshed the context.

Similarities are settled as on this machine; a server does not say how long vectors are, so the scale of a dense one is
the power of ten above the query's best answer. Equal ones may come in any order.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..documents import Row
from ..errors import InputError, MismatchError, ServerError, StoreError
from ..files import PRIVATE, make_directory, write_json
from ..filters import parse_filter
from ..passages import Passages, Splitter
from ..retrieval.collection import EMPTY, PLAIN, SERVER_FILE, Collection, Settings, Want
from ..splitting import Span
from ..store.documents import taken
from ..store.turns import Turns
from ..types import Encoder
from ..vectors import DENSE, SPARSE, Layout, Vectors, checked, take
from .answers import Current, answers_of, most_answers
from .change import Change, Rebuild, keys_of, send, stored
from .connection import CollectionGoneError, Connection
from .expressions import EVERYTHING
from .fields import OF_PASSAGES, VECTOR, Identity, check_schema, check_sparse, choose_index
from .leases import Lease, overtaken
from .location import parse_location
from .rebuild import Build, put_next_id
from .records import SUFFIX, Records, identity_record, measured_record
from .remote import RemoteCollection
from .rows import decode_row, expression, ids_of

T = TypeVar("T")

# Seconds after which a reader looks whether the alias has moved.
STALE = 5.0
# How often it looks again where the collection is replaced while it does.
ATTEMPTS = 3
OF_IDENTITY = {
    "retriever": "settings",
    "fingerprint": "fingerprint",
    "context": "context",
    **{name: name for name in OF_PASSAGES},
}


class _Own(threading.local):
    """The change that a thread is in, the collection that it began with, and what its last change replaced."""

    change: Change | None = None
    current: Current | None = None
    replaced = 0


class MilvusCollection(Collection):
    """Documents, vectors, contexts and settings of one retriever, on a server; there is one model, part 0."""

    def __init__(self, settings: Settings) -> None:
        self.location = parse_location(settings.index)
        self.settings = replace(settings, index=str(self.location))
        self._on: Sequence[str] | None = settings.on
        self._connection = Connection(self.location)
        self._records = Records(self._connection, self.location.collection)
        self._current: Current | None = None
        self._own, self._turns = _Own(), Turns()
        self._wrote, self._said = False, Passages(None)
        try:
            self.refind()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection; a Milvus Lite file is flushed first: reading its log back takes 1 s for 1,000 rows."""
        try:
            if self._wrote and self.location.lite and self._current is not None:
                self._connection.flush(self._current.collection.name)
        finally:
            self._wrote = False
            self._connection.close()

    def refind(self) -> None:
        """Find out which collection stands behind the alias now."""
        for _ in range(ATTEMPTS):
            self._looked = time.monotonic()
            try:
                described = self._connection.call("describe_collection", self.location.collection)
            except CollectionGoneError:
                self._current = None
                return
            name = described["collection_name"]
            if self._current is not None and self._current.collection.name == name:
                return
            found = self._records.get_many([identity_record(name), measured_record(name)])
            if identity_record(name) in found:
                self._current = self._checked(described, found)
                self._on = self._current.identity.settings["on"]
                return
            # Another process may have replaced the collection between these two questions.
        raise StoreError(
            f"{self.location} is a collection that this package did not make (or that has lost its "
            f"{self._records.collection!r}). Use another name, or remove it first."
        )

    def _checked(self, described: Mapping[str, Any], found: Mapping[str, Any]) -> Current:
        """The collection, once it is found to be what its records say."""
        name, where = described["collection_name"], str(self.location)
        identity = Identity.of(found[identity_record(name)], where)
        cut = identity.passages is not None
        check_schema(described, identity.layout, cut, where)
        choose_index(self.location.index, identity.kind, lite=self.location.lite)
        before = self._current.identity if self._current is not None else None
        if before and before.context == identity.context and before.fingerprint != identity.fingerprint:
            raise MismatchError(f"{where} was replaced by a collection of another model. Open it again.")
        measured = found.get(measured_record(name)) or {"parameters": {}}
        return Current(RemoteCollection(self._connection, name, identity.layout, cut), identity, measured)

    @property
    def current(self) -> Current | None:
        """The collection behind the alias, looked up at most five seconds ago; None before the first `add`."""
        if self._own.change is not None:
            return self._own.current
        if time.monotonic() - self._looked > STALE:
            self.refind()
        return self._current

    @property
    def passages(self) -> Passages:
        """How documents are cut: as the collection says, else as the user does."""
        said, current = self._said, self._current
        if current is None or current.identity.passages == said.how:
            return said
        return replace(Passages.stored(current.identity.passages), ready=said.ready)

    @passages.setter
    def passages(self, said: Passages) -> None:
        self._said = said

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A block that reads; it ends early, to be read again, where the collection is replaced meanwhile."""
        before = self._current
        try:
            yield
        except CollectionGoneError as error:
            if self._own.change is not None:
                raise overtaken(self.location) from error
            self.refind()
            if self._current is before:
                raise

    def _retried(self, call: Callable[[], T]) -> T:
        while True:
            with self.reading():
                return call()

    def layout_of(self, part: int = 0) -> Layout | None:
        """Kind and dimension of the vectors; None before there are any."""
        current = self.current
        return None if current is None else current.identity.layout

    def get_setting(self, key: str, default: Any = None) -> Any:
        """The value of a setting, or `default`."""
        if self._own.change is not None and key in self._own.change.values:
            return self._own.change.values[key]
        current = self.current
        if current is None:
            return default
        if key in OF_IDENTITY:
            return getattr(current.identity, OF_IDENTITY[key])
        read = {} if self._own.change is None else self._own.change.read
        if key not in read:
            read[key] = self._records.get(key, strong=False)
        return default if read[key] is None else read[key]

    def get_context(self, digest: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Metadata and arrays of a context."""
        if self._own.change is not None and digest in self._own.change.contexts:
            return self._own.change.contexts[digest]
        return self._records.get_context(digest)

    def names(self) -> list[str]:
        """Names of the collections that this package made there."""
        found: list[str] = self._connection.call("list_collections")
        return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))

    def count(self) -> int:
        """Number of documents."""
        return self._retried(lambda: 0 if self.current is None else self.current.collection.count())

    def lookup(self, ids: Sequence[Hashable]) -> list[tuple[str, dict[str, Any]] | None]:
        """Text and payload of each of the documents; None for one that is not there."""
        rows = self._fetched(keys := keys_of(ids), ["payload"])
        return [stored(rows[key]["payload"], self._on) if key in rows else None for key in keys]

    def holds(self, ids: Sequence[Hashable]) -> list[bool]:
        """Whether each of the documents is there; only keys are read."""
        rows = self._fetched(keys := keys_of(ids), [])
        return [key in rows for key in keys]

    def _fetched(self, keys: Sequence[str], fields: Sequence[str]) -> dict[str, Any]:
        return self._retried(lambda: {} if self.current is None else self.current.collection.fetch(keys, fields))

    def rows(self) -> Iterator[Row]:
        """Id, text and payload of each document, in no special order."""
        current = self.current
        if current is None:
            return
        for some in current.collection.scan(["payload"]):
            for document_id, row in zip(ids_of([row["id"] for row in some]), some, strict=True):
                yield document_id, *stored(row["payload"], self._on)

    def texts(self) -> Iterator[tuple[int, str]]:
        """Number, of this walk alone, and text of each document."""
        for number, (_, text, _) in enumerate(self.rows()):
            yield number, text

    def iter_vectors(self, after_seq: int = 0, chunk: int = 0, part: int = 0) -> Iterator[tuple[np.ndarray, Any]]:
        """Numbers, as :meth:`texts` gives them, and vectors, of dense ones."""
        current, number = self.current, 0
        if current is None or current.identity.kind != DENSE:
            return
        for some in current.collection.scan([VECTOR]):
            yield np.arange(number, number + len(some)), np.array([row[VECTOR] for row in some], dtype=np.float32)
            number += len(some)

    def check_encoder(self, encoder: Encoder, part: int = 0) -> None:
        """Refuse an encoder whose vectors Milvus cannot hold, before documents are embedded for it."""
        choose_index(self.location.index, encoder.kind, lite=self.location.lite)
        if encoder.kind == SPARSE and not self.location.lite:
            check_sparse(str(self._connection.call("get_server_version")))

    def check_filled(self) -> None:
        """Refuse to search where there is no collection yet; one without documents shows in its answers."""
        if self.current is None:
            raise InputError(EMPTY)

    def search(
        self, queries: Sequence[Any], k: int, parts: Sequence[int] = (0,), want: Want = PLAIN
    ) -> list[list[dict[str, Any]]]:
        """The hits of each query, those that a filter lets pass, with their documents if wanted."""
        current = self.current
        if current is None:
            raise InputError(EMPTY)
        layout = current.identity.layout
        given: Any = checked(queries[0], layout, "query")
        wanted = EVERYTHING if want.filter is None else expression(parse_filter(want.filter))
        asked = np.arange(given.shape[0])
        if layout.kind == SPARSE:  # a query without a term has no answers, and Milvus takes none
            asked = np.flatnonzero(np.diff(given.indptr))
        k = most_answers(k, current.collection)
        found = answers_of(current, take(given, asked), k, wanted, want) if len(asked) else []
        if not any(found) and current.collection.count() == 0:
            raise InputError(EMPTY)
        answers = dict(zip(asked.tolist(), found, strict=True))
        return [answers.get(row, []) for row in range(given.shape[0])]

    def save(self, path: Path) -> None:
        """Write down in a directory where the collection is."""
        self.check_filled()
        write_json(make_directory(path) / SERVER_FILE, {"index": self.settings.index}, mode=PRIVATE)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Gather a change, and send it when the block ends. An error in the block leaves the server as it was."""
        if self._own.change is not None:
            self._own.change.join()
            yield
            return
        with self._turns.turn("change"):  # of one thread after the other
            self.refind()
            lease = Lease(self._connection, self._records, self.location.collection)
            lease.check_free()
            change = Change(lease)
            self._own.change, self._own.current = change, self._current
            try:
                yield
                self._send(change)
            finally:
                self._own.change = None
                change.close()

    def set_setting(self, key: str, value: Any) -> None:
        """Set a value, as part of a change."""
        self._open_change.values[key] = value

    def put_context(self, digest: str, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Put a context, as part of a change."""
        self._open_change.contexts[digest] = dict(metadata), dict(tensors)

    def spans_of(self, seqs: Sequence[int] | np.ndarray) -> dict[int, list[Span]]:
        """The spans of those of the documents that were cut, by number: of a change, else of a walk."""
        if self._own.change is not None:
            return self._own.change.spans_of(seqs)
        walk = () if self.current is None else chain.from_iterable(self.current.collection.scan(["payload"]))
        spans = {
            number: decode_row(row["payload"])[2] for number, row in enumerate(islice(walk, max(seqs, default=-1) + 1))
        }
        return {number: found for number, found in spans.items() if found}

    def titles_of(self, texts: Mapping[int, str]) -> dict[int, str]:
        """The titles of documents to embed, given as number to text."""
        return self._open_change.titles_of(texts, self._on, self.passages)

    def taken(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows; while the caller's iterable is asked for the next one, it must not change this collection."""
        return taken(rows, self._open_change)

    def put_documents(self, rows: Iterable[Row], cut: Splitter | None = None) -> tuple[int, int]:
        """Keep documents; see :meth:`cderetrieval.store.Store.put_documents`."""
        return self._open_change.put_documents(rows, self._on, cut)

    def remove(self, ids: Iterable[Hashable]) -> None:
        """Remove documents, as part of a change."""
        self._open_change.removed += keys_of(ids)

    def pending(self, chunk: int, after_seq: int = 0, part: int = 0) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers and texts of documents to embed: those that were put, or all, after :meth:`clear_vectors`."""
        change = self._open_change
        return change.documents.pending(chunk) if change.rebuilt is None else change.rebuilt.pending(chunk)

    def put_vectors(self, seqs: Sequence[int] | np.ndarray, vectors: Vectors, part: int = 0) -> None:
        """Keep vectors; while all are made anew, write them into the new collection."""
        change = self._open_change
        if change.rebuilt is None:
            change.documents.put_vectors(seqs, vectors)
        else:
            change.rebuilt.put(np.asarray(seqs), vectors)

    def clear_vectors(self, part: int = 0) -> None:
        """Make all vectors anew, in a new collection; searches see the old one until the change is sent."""
        change, current = self._open_change, self.current
        if current is None:
            raise InputError("the index is empty: add documents first.")
        change.values["passages"] = current.identity.passages
        build = Build(self._connection, self._records, self.location, change)
        target = build.begin(current.identity.layout, current.collection.name)
        self.refind()
        if self._current is not current:  # by a refresh that ended just before the lease was up
            raise overtaken(self.location)
        change.rebuilt = Rebuild(current.collection, target, self._on)

    @property
    def replaced(self) -> int:
        """How many documents of this thread's last change were there before."""
        return 0 if self._own.change is not None else self._own.replaced  # of one within another nothing is sent yet

    @property
    def _open_change(self) -> Change:
        if self._own.change is None:
            raise StoreError("a collection on a server can only be changed inside `with collection.transaction():`.")
        return self._own.change

    def _send(self, change: Change) -> None:
        """Send what was gathered."""
        current, self._own.replaced = self.current, 0
        build = Build(self._connection, self._records, self.location, change)
        if change.rebuilt is not None and current is not None:
            build.replace(change.rebuilt, current.collection)
        elif change.documents.count() and current is None:
            build.first()
        elif current is not None and (change.documents.count() or change.removed):
            self._extend(change, current)
            return
        self._wrote = True
        self.refind()

    def _extend(self, change: Change, current: Current) -> None:
        """Write into the collection that is there, and acknowledge only if it still is when all is written."""
        self._wrote = True
        try:
            if change.documents.count():
                self._own.replaced = send(change.documents, current.collection, filled=True)
            current.collection.delete(change.removed)
        except CollectionGoneError as error:
            raise overtaken(self.location) from error
        except ServerError as error:
            raise ServerError(
                f"{error} A part of this change may be written: make it again, which completes it."
            ) from error
        put_next_id(self._records, change)
        change.lease.check_free()
        self.refind()
        if self._current is not current:
            raise overtaken(self.location)
