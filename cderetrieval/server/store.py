"""What a retriever asks of a store, answered by a server.

Nothing is kept on this machine but what has been read lately: which collection stands behind the alias, and what it
says of itself. That is read again every five seconds, before each change, and whenever the collection turns out to be
gone, so a process follows when another one has refreshed the context.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from ..documents import Row
from ..errors import InputError, LockedError, MismatchError, ServerError, StoreError
from ..index.milvus.collection import Collection
from ..index.milvus.connection import CollectionGoneError, Connection
from ..index.milvus.location import Location
from ..index.milvus.notes import SUFFIX, Notes, identity_note, measured_note
from ..index.milvus.rows import ids_of
from ..index.milvus.schema import VECTOR, Identity, check_schema, choose_index
from ..types import Vectors
from ..vectors import DENSE, Layout
from .build import Build, put_next_id
from .change import Change, Rebuild, keys_of, send, stored
from .guard import Guards

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds after which a reader looks whether the alias has moved.
LOOK = 5.0
# How often it looks again where the collection is replaced while it does.
LOOKS = 3
OF_IDENTITY = {"retriever": "settings", "fingerprint": "fingerprint", "context": "context"}


@dataclass(frozen=True)
class Current:
    """The collection that stands behind the alias."""

    collection: Collection
    identity: Identity
    measured: Mapping[str, Any]


class ServerStore:
    """Documents, vectors, contexts and settings of one retriever, on a server.

    Parameters
    ----------
    location
        Where.
    on
        Fields of the text, of a collection that is not there yet.

    Raises
    ------
    ServerError
        If the server cannot be reached.
    StoreError
        If a collection of this name is there that this package did not make.
    """

    def __init__(self, location: Location, on: Sequence[str] | None = None) -> None:
        self.location = location
        self._on = on
        self._connection = Connection(location)
        self._notes = Notes(self._connection, location.collection)
        self._guards = Guards(self._connection, self._notes, location.collection)
        self._current: Current | None = None
        self._change: Change | None = None
        self._wrote = False
        try:
            self.look()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a Milvus Lite file is flushed first: reading its log back takes 1 s for 1,000 rows."""
        try:
            if self._wrote and self.location.lite and self._current is not None:
                self._connection.flush(self._current.collection.name)
        finally:
            self._wrote = False
            self._connection.close()

    # What is there

    def look(self) -> None:
        """Find out which collection stands behind the alias now."""
        for _ in range(LOOKS):
            self._looked = time.monotonic()
            try:
                described = self._connection.call("describe_collection", self.location.collection)
            except CollectionGoneError:
                self._current = None
                return
            name = described["collection_name"]
            if self._current is not None and self._current.collection.name == name:
                return
            found = self._notes.get_many([identity_note(name), measured_note(name)]) if self._notes.exist() else {}
            if identity_note(name) in found:
                self._current = self._checked(described, found)
                self._on = self._current.identity.settings["on"]
                return
            # Another process may have replaced the collection between these two questions.
        raise StoreError(
            f"{self.location} is a collection that this package did not make (or that has lost its "
            f"{self._notes.collection!r}). Use another name, or remove it first."
        )

    def _checked(self, described: Mapping[str, Any], found: Mapping[str, Any]) -> Current:
        """The collection, once it is found to be what its notes say."""
        name, where = described["collection_name"], str(self.location)
        identity = Identity.of(found[identity_note(name)], where)
        check_schema(described, identity.layout, where)
        choose_index(self.location.index, identity.kind, lite=self.location.lite)
        before = self._current.identity if self._current is not None else None
        if before and before.context == identity.context and before.fingerprint != identity.fingerprint:
            raise MismatchError(f"{where} was replaced by a collection of another model. Open it again.")
        measured = found.get(measured_note(name)) or {"parameters": {}}
        return Current(Collection(self._connection, name, identity.layout), identity, measured)

    @property
    def current(self) -> Current | None:
        """The collection behind the alias, looked up at most five seconds ago; None before the first `add`."""
        if time.monotonic() - self._looked > LOOK and self._change is None:
            self.look()
        return self._current

    def reading(self, call: Callable[[], T]) -> T:
        """What `call` returns; it is called again where the collection was replaced while it read."""
        try:
            return call()
        except CollectionGoneError:
            self.look()
            return call()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads of one collection; a server has no snapshot over several requests."""
        yield

    @property
    def is_writer(self) -> bool:
        """Whether this object has written."""
        return self._wrote

    @property
    def layout(self) -> Layout | None:
        """Kind and dimension of the vectors; None before there are any."""
        current = self.current
        return None if current is None else current.identity.layout

    def get_setting(self, key: str, default: Any = None) -> Any:
        """The value of a setting, or `default`."""
        if self._change is not None and key in self._change.values:
            return self._change.values[key]
        current = self.current
        if current is None:
            return default
        if key in OF_IDENTITY:
            return getattr(current.identity, OF_IDENTITY[key])
        read = {} if self._change is None else self._change.read
        if key not in read:
            read[key] = self._notes.get(key, strong=False)
        return default if read[key] is None else read[key]

    def get_context(self, digest: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Metadata and arrays of a context."""
        if self._change is not None and digest in self._change.contexts:
            return self._change.contexts[digest]
        return self._notes.get_context(digest)

    def version(self) -> str:
        """What the server says its version is."""
        return str(self._connection.call("get_server_version"))

    def names(self) -> list[str]:
        """Names of the collections that this package made there."""
        found: list[str] = self._connection.call("list_collections")
        return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))

    def count(self) -> int:
        """Number of documents."""
        return self.reading(lambda: 0 if self.current is None else self.current.collection.count())

    def __contains__(self, document_id: Hashable) -> bool:
        return not self.missing([document_id])

    def missing(self, ids: Sequence[Hashable]) -> list[Hashable]:
        """Those of the ids that are not there."""
        keys = keys_of(ids)

        def there() -> Iterable[str]:
            return () if self.current is None else self.current.collection.fetch(keys, [])

        found = self.reading(there)
        return [document_id for document_id, key in zip(ids, keys, strict=True) if key not in found]

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

    def iter_vectors(self, chunk: int = 0) -> Iterator[tuple[np.ndarray, Any]]:
        """Numbers, as :meth:`texts` gives them, and vectors, of dense ones."""
        current, number = self.current, 0
        if current is None or current.identity.kind != DENSE:
            return
        for some in current.collection.scan([VECTOR]):
            yield np.arange(number, number + len(some)), np.array([row[VECTOR] for row in some], dtype=np.float32)
            number += len(some)

    # Changes

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Gather a change, and send it when the block ends. An error in the block leaves the server as it was.

        Raises
        ------
        LockedError
            If another process is refreshing the context, or has done so meanwhile.
        ServerError
            If the server fails while the change is sent: some of its rows are written then, and the same call again
            completes it.
        """
        if self._change is not None:
            yield
            return
        self.look()
        self._guards.check_free()
        change = Change()
        self._change = change
        try:
            yield
            self._send(change)
        finally:
            self._change = None
            change.close()

    def set_setting(self, key: str, value: Any) -> None:
        """Set a value, as part of a change."""
        self._open_change.values[key] = value

    def put_context(self, digest: str, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Put a context, as part of a change."""
        self._open_change.contexts[digest] = dict(metadata), dict(tensors)

    def put_documents(self, rows: Iterable[Row]) -> tuple[int, int]:
        """Spool documents; see :meth:`cderetrieval.store.Store.put_documents`."""
        return self._open_change.put_documents(rows, self._on)

    def remove(self, ids: Iterable[Hashable]) -> None:
        """Remove documents, as part of a change."""
        self._open_change.removed += keys_of(ids)

    def pending(self, chunk: int, after_seq: int = 0) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers and texts of documents to embed: those that were put, or all, after :meth:`clear_vectors`."""
        change = self._open_change
        return change.spool.pending(chunk) if change.rebuilt is None else change.rebuilt.pending(chunk)

    def put_vectors(self, seqs: Sequence[int] | np.ndarray, vectors: Vectors) -> None:
        """Spool vectors; while all are made anew, write them into the new collection."""
        change = self._open_change
        if change.rebuilt is None:
            change.spool.put_vectors(seqs, vectors)
        else:
            change.rebuilt.put(np.asarray(seqs), vectors)

    def clear_vectors(self) -> None:
        """Make all vectors anew, in a new collection; searches see the old one until the change is sent."""
        change = self._open_change
        self.look()
        current = self._current
        if current is None:
            raise InputError("the index is empty: add documents first.")
        build = Build(self._connection, self._notes, self.location, change)
        target = build.begin(current.identity.layout, current.collection.name)
        self.look()
        if self._current is not current:  # by a refresh that ended just before the guard was up
            raise self._overtaken()
        change.rebuilt = Rebuild(current.collection, target, self._on)

    @property
    def _open_change(self) -> Change:
        if self._change is None:
            raise StoreError("a change of a server's collection belongs into transaction().")
        return self._change

    def _send(self, change: Change) -> None:
        """Send what was gathered."""
        current = self._current
        build = Build(self._connection, self._notes, self.location, change)
        if change.rebuilt is not None and current is not None:
            build.replace(change.rebuilt, current.collection)
        elif change.spool.count and current is None:
            build.first()
        elif current is not None and (change.spool.count or change.removed):
            self._extend(change, current)
            return
        self._wrote = True
        self.look()

    def _extend(self, change: Change, current: Current) -> None:
        """Write into the collection that is there, and acknowledge only if it still is when all is written."""
        self._wrote = True
        try:
            if change.spool.count:
                send(change.spool, current.collection)
            current.collection.delete(change.removed)
        except CollectionGoneError as error:
            raise self._overtaken() from error
        except ServerError as error:
            raise ServerError(
                f"{error} A part of this change may be written: make it again, which completes it."
            ) from error
        put_next_id(self._notes, change)
        self._guards.check_free()
        self.look()
        if self._current is not current:
            raise self._overtaken()

    def _overtaken(self) -> LockedError:
        return LockedError(
            f"another process has refreshed the context of {self.location} while this change was written to the old "
            "collection. It was not acknowledged; make it again."
        )
