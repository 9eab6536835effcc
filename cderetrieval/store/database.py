"""Transactions: how a store is changed; this part knows nothing of documents.

A write is BEGIN IMMEDIATE, COMMIT, and nothing is acknowledged before COMMIT has returned (WAL, synchronous=FULL: it is
then on disk). A transaction inside another joins it; if the inner one fails, nothing of the outer one is kept. Settings
are written all at once by COMMIT. Each commit that changed something raises the integer ``generation``, by which a
reader in another process learns that there is something new. Threads write one after the other.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..errors import InputError, StoreError
from .codec import checksum
from .schema import translated
from .snapshots import WRITER, Snapshots, Use
from .turns import Scope

# Settings that the store keeps by itself; "epoch" is readable and writable, see `Store.clear_vectors`.
RESERVED = frozenset({"generation", "live", "next_seq", "dimension", "layout", "tables", "cut"})
FAILED = "a part of this change failed, so nothing of it is kept. Make the whole change again."

TAKING = (
    "documents are being added to this index, and what yields them cannot change it meanwhile: it may ask it, or "
    "change another index. Read the documents into a list first."
)


class Database(Snapshots):
    """SQLite connections with one writer, nested transactions, snapshots and settings. Safe to share by threads."""

    # Whether this object has changed what is stored.
    was_changed = False

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """All writes in the block, or none. The block has the writer's lock."""
        return Scope(self._begin, self._end, Use())

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep the writer's lock from one transaction to the next, in all threads, until the block ends."""
        with self.transaction():
            self._kept += 1
        try:
            yield
        finally:
            if not self._closed:
                with self.transaction():
                    self._kept -= 1

    def _begin(self, use: Use) -> None:
        outer = self._current()
        use.writes, use.root = True, use
        try:
            if outer is None:
                self._begin_transaction(use)
            else:
                self._join(use, outer)
        except BaseException:
            self._leave(use)
            raise

    def _begin_transaction(self, use: Use) -> None:
        self._opened()
        self._turns.take(WRITER, use)
        connections = self._opened()  # it may have been replaced while this waited
        if self._writer is not None:
            self._writer.acquire()
        use.connection, use.changed = connections.writer(), {}
        self._turns.take(use.connection, use)
        self._blocks.uses.append(use)
        with translated(self.path):
            use.connection.rollback()  # harmless where nothing is open
            use.connection.execute("BEGIN IMMEDIATE")
            use.changes = use.connection.total_changes

    def _join(self, use: Use, outer: Use) -> None:
        if not outer.writes:
            raise StoreError("A snapshot() only reads; end it before you write.")
        if outer.root.failed:
            raise StoreError(FAILED)
        if any(other.taking for other in self._blocks.uses):
            raise InputError(TAKING)
        use.connection, use.root, use.alone = outer.connection, outer.root, outer.alone
        self._blocks.uses.append(use)

    def _end(self, use: Use, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                use.root.failed = True
            else:
                self._commit(use)
        finally:
            self._leave(use)

    def _commit(self, use: Use) -> None:
        if self._current() is not use:
            raise StoreError(
                f"{self.path or 'the store in memory'} was closed, or the process forked, in the middle of this "
                "change; nothing of it is kept here."
            )
        if use.root is not use:
            return
        if use.failed:
            raise StoreError(FAILED)
        assert use.connection is not None
        if use.changed or use.connection.total_changes != use.changes:
            self._set("generation", self.generation + 1)
            rows = [value for key, (text, total) in use.changed.items() for value in (key, text, total)]
            places = ", ".join(["(?, ?, ?)"] * len(use.changed))
            self._execute(f"INSERT OR REPLACE INTO settings VALUES {places}", rows)
            self.was_changed = True
        self._opened()
        self._execute("COMMIT")

    @property
    def is_writer(self) -> bool:
        """Whether this object has the writer's lock now (in memory: always)."""
        return self._writer is None or self._writer.held

    def set_setting(self, key: str, value: Any) -> None:
        """Store a JSON value under a name."""
        if key.partition(":")[0] in RESERVED:
            raise InputError(f"setting {key!r} is kept by the store itself; use another name.")
        with self.transaction():
            self._set(key, value)

    def _set(self, key: str, value: Any) -> None:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"setting {key!r} cannot be stored as JSON ({error}).") from error
        self.get_setting(key)  # reads all
        root = self._blocks.uses[-1].root
        assert root.settings is not None
        if root.settings.get(key) == text:
            return
        root.settings[key] = text
        root.changed[key] = text, checksum(key + text, 0)

    def _execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row, inside a transaction."""
        with translated(self.path):
            self._connection().executemany(statement, rows)
