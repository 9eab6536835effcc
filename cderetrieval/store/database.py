"""Transactions and settings: the part of the store that knows nothing of documents.

A write is BEGIN IMMEDIATE, COMMIT, and nothing is acknowledged before COMMIT has returned (WAL, synchronous=FULL: it is
then on disk). A transaction inside another joins it; if the inner one fails, nothing of the outer one is kept. Settings
are read all at once by the first question of a block, and written all at once by COMMIT. Each commit that changed
something raises the integer ``generation``, by which a reader in another process learns that there is something new.

Threads write one after the other; those that read see the last commit and wait for none. Which block a thread is in
follows from the blocks that live (:mod:`.turns`), and what an interrupt left open is rolled back by the next call.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from ..errors import InputError, StoreError
from .codec import Damage, checksum
from .connections import Connections
from .lock import WriterLock
from .schema import damaged, translated, translation
from .turns import Block, Mark, Turns, wait_until

# Settings that the store keeps by itself; "epoch" is readable and writable, see `Store.clear_vectors`.
RESERVED = frozenset({"generation", "live", "next_seq", "dimension", "layout", "tables", "cut"})
# Turns: of the thread that writes, and of the one that searches.
WRITER, SEARCHER = "writer", "searcher"
FAILED = "a part of this change failed, so nothing of it is kept. Make the whole change again."


def of_part(key: str, part: int) -> str:
    """Name of a setting that each model has for itself, by its place among the models; the first has the plain name."""
    return f"{key}:{part}" if part else key


class Use(Mark):
    """One block that reads or writes, and its connection."""

    def __init__(self, *, writes: bool = False, alone: bool = False) -> None:
        super().__init__()
        self.writes, self.alone = writes, alone
        self.connection: sqlite3.Connection | None = None
        # What it has asked for, in this order: noted before it is taken.
        self.turns: list[Hashable] = []
        # The block whose transaction or snapshot this one shares; its own, unless it joined another.
        self.root = self
        # In a root: rows changed on the connection before, whether a joined block failed, all settings, and new ones.
        self.changes, self.failed = 0, False
        self.settings: dict[str, str] | None = None
        self.changed: dict[str, tuple[str, int]] = {}
        # Whether documents are being taken from the caller's iterable.
        self.taking = False


class _Blocks(threading.local):
    """The blocks that a thread is in, innermost last."""

    def __init__(self) -> None:
        self.uses: list[Use] = []


class Database:
    """SQLite connections with one writer, nested transactions, snapshots and settings. Safe to share by threads."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._writer = None if self.path is None else WriterLock(self.path)
        self._closed = False
        # Whether this object has changed what is stored.
        self.was_changed = False
        self._inherited: Connections | None = None
        self._connections: Connections | None = Connections(self.path)
        self._begin_anew()
        _OPEN.add(self)

    def _begin_anew(self) -> None:
        self._turns = Turns(self._mend)
        self._blocks = _Blocks()
        self._kept = 0  # blocks of `exclusive`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, once others' blocks have ended, and give up the lock; this thread's change is rolled back."""
        self._closed = True
        mine = {id(use) for use in self._blocks.uses}
        try:
            for connection in [] if self._connections is None else self._connections.all():
                wait_until(lambda name=connection: self._is_free(name, mine))  # type: ignore[misc]
                with translated(self.path):
                    connection.close()
        finally:
            if self._writer is not None:
                self._writer.release()

    def _is_free(self, connection: sqlite3.Connection, mine: set[int]) -> bool:
        holder = self._turns.holder(connection)
        return holder is None or id(holder) in mine or not holder.alive

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """All writes in the block, or none. The block has the writer's lock."""
        return Block(self._begin, self._end, Use(writes=True))

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

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """All reads in the block see one generation, whatever is committed meanwhile; in a transaction, its own."""
        return Block(self._start, self._settle, Use())

    def committed(self) -> contextlib.AbstractContextManager[None]:
        """All reads in the block see the last commit, inside a transaction too, and one thread at a time is in it."""
        return Block(self._start, self._settle, Use(alone=True))

    def _begin(self, use: Use) -> None:
        outer = self._current()
        try:
            if outer is None:
                self._begin_transaction(use)
            else:
                self._join(use, outer)
        except BaseException:
            self._settle(use)
            raise

    def _begin_transaction(self, use: Use) -> None:
        connections = self._opened()
        self._take(WRITER, use)
        connections.check_place()
        if self._writer is not None:
            self._writer.acquire()
        use.connection = connections.writer()
        self._take(use.connection, use)
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
            raise InputError(
                "documents are being added to this index, and what yields them cannot change it meanwhile: it may ask "
                "it, or change another index. Read the documents into a list first."
            )
        use.connection, use.root = outer.connection, outer.root
        self._blocks.uses.append(use)

    def _end(self, use: Use, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                use.root.failed = True
            else:
                self._commit(use)
        finally:
            self._settle(use)

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
        self._opened().check_place()
        self._execute("COMMIT")

    def _start(self, use: Use) -> None:
        current = self._current()
        connections = self._opened()
        try:
            if use.alone and not any(other.alone for other in self._blocks.uses):
                self._take(SEARCHER, use)
            if current is not None and not (use.alone and current.writes):
                use.connection, use.writes, use.root = current.connection, current.writes, current.root
                self._blocks.uses.append(use)
                return
            connections.check_place()
            if not self._take_reader(use, connections):
                wait_until(lambda: self._take_reader(use, connections))
            self._blocks.uses.append(use)
            assert use.connection is not None
            with translated(self.path):
                use.connection.rollback()
                use.connection.execute("BEGIN")
        except BaseException:
            self._settle(use)
            raise

    def _take(self, name: Hashable, use: Use) -> None:
        use.turns.append(name)
        self._turns.take(name, use)

    def _take_reader(self, use: Use, connections: Connections) -> bool:
        for reader in connections.readers:
            use.connection = reader
            use.turns.append(reader)
            if self._turns.offer(reader, use):
                return True
            use.turns.pop()
        return connections.add_reader() and self._take_reader(use, connections)

    def _settle(self, use: Use, *_: object) -> None:
        """Roll back what a block has left open, and give its turns back."""
        uses = self._blocks.uses
        if use.turns:
            self._mend(use)
            for name in use.turns:
                self._turns.drop(name, use)
        if use in uses:
            del uses[uses.index(use) :]

    def _mend(self, use: Use) -> None:
        """Roll back what is open on a connection whose turn a block has, and give up the lock."""
        if use.connection is not None and self._turns.holder(use.connection) is use:
            with contextlib.suppress(sqlite3.Error):  # it must not hide why the block ended; the next one tries again
                use.connection.rollback()
        if self._writer is not None and not self._kept and self._turns.holder(WRITER) is use:
            self._writer.release()

    def _current(self) -> Use | None:
        """The innermost block that this thread is in; of those that an interrupt cut off, nothing is left."""
        uses = self._blocks.uses
        while uses and not uses[-1].alive:
            dead = uses[-1]
            dead.root.failed = True
            for name in dead.turns:
                self._turns.bury(name, dead)
            uses.remove(dead)
        return uses[-1] if uses else None

    def _is_writing(self) -> bool:
        """Whether this thread is in a transaction."""
        current = self._current()
        return current is not None and current.writes

    def _opened(self) -> Connections:
        if self._closed:
            raise StoreError(f"{self.path or 'the store in memory'} cannot be used (it was closed). Open it again.")
        if self._connections is None:  # in a forked child
            opened = Connections(self.path)
            if self._inherited is not None:
                self._inherited.copy_into(opened)
            self._connections, self._inherited = opened, None
        return self._connections

    def _after_fork(self) -> None:
        """In a child: have connections of its own, and of a store in memory a copy, once they are needed."""
        parents, self._connections = self._connections, None
        busy = {c for c in parents.all() if self._turns.holder(c) is not None} if parents is not None else set()
        self._begin_anew()
        if parents is not None and not self._closed:
            parents.leave_to_parent(busy)
            self._inherited = parents if self.path is None else None

    @property
    def is_writer(self) -> bool:
        """Whether this object has the writer's lock now (in memory: always)."""
        return self._writer is None or self._writer.held

    @property
    def generation(self) -> int:
        """Number of commits that changed something; read from the file each time."""
        return self._number("generation")

    @property
    def epoch(self) -> int:
        """Number of times that the first model's vectors were cleared; see :meth:`epoch_of`."""
        return self.epoch_of(0)

    def epoch_of(self, part: int) -> int:
        """Number of times that all vectors of a model were cleared; inside one epoch a row's vector never changes."""
        return self._number(of_part("epoch", part))

    def _number(self, key: str, default: int = 0) -> int:
        found = self.get_setting(key, default)
        with self._decoding():
            return int(found)

    def get_setting(self, key: str, default: Any = None) -> Any:
        """The value of a setting, or `default`."""
        use = self._current()
        if use is None:
            with self.snapshot():
                return self.get_setting(key, default)
        settings = use.root.settings
        if settings is None:
            settings = use.root.settings = self._settings()
        if key not in settings:
            return default
        with self._decoding():
            return json.loads(settings[key])

    def _settings(self) -> dict[str, str]:
        """The JSON text of each setting; all are compared, since one whose name is altered would seem not to be set."""
        rows = self._execute("SELECT key, value, checksum FROM settings")
        with self._decoding():
            for key, text, expected in rows:
                if checksum(key + text, 0) != expected:
                    raise Damage(f"setting {key} does not match its checksum")
        return {key: text for key, text, _ in rows}

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

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and take all its rows: no cursor stays open while callers work on them."""
        if self._current() is None:
            with self.snapshot():
                return self._execute(statement, values)
        try:
            return self._connection().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise translation(error, self.path) from error

    def _execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row, inside a transaction."""
        with translated(self.path):
            self._connection().executemany(statement, rows)

    def _connection(self) -> sqlite3.Connection:
        """The connection of the block that this thread is in."""
        use = self._blocks.uses[-1]
        assert use.connection is not None
        return use.connection

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        """Values that are not what was written are damage, whichever way that shows."""
        try:
            yield
        except StoreError as error:
            if isinstance(error, Damage):
                raise damaged(self.path, error) from error
            raise
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise damaged(self.path, error) from error


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


def _after_fork() -> None:
    for database in list(_OPEN):
        database._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
