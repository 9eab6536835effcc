"""Snapshots and settings: how a store is read.

A block reads one state of the file, on a connection of its own. Settings are read all at once by the first question of
a block. Threads that read see the last commit and wait for none that writes. Which block a thread is in follows from
the blocks that live (:mod:`.turns`), and what an interrupt left open is rolled back by the next call.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from zlib import crc32

from ..errors import StoreError
from ..runtime import after_fork
from .codec import Damage
from .connections import Connections
from .lock import WriterLock
from .schema import damaged, translated, translation
from .turns import Holder, Scope, Turns, wait_until

# Turns: of the thread that writes, and of the one that searches.
WRITER, SEARCHER = "writer", "searcher"


@functools.cache
def of_part(key: str, part: int) -> str:
    """Name of a setting that each model has for itself, by its place among the models; the first has the plain name."""
    return f"{key}:{part}" if part else key


class Use(Holder):
    """One block that reads or writes."""

    connection: sqlite3.Connection | None = None
    # The block whose transaction or snapshot this one shares; its own, unless it joined another.
    root: Use
    # Whether it changes the store; whether this block, or one around it, has the turn of the one that searches.
    writes = alone = False
    # In a root: all settings as JSON, and, where it writes, those that are new, with their checksums.
    settings: dict[str, str] | None = None
    changed: dict[str, tuple[str, int]]
    # In a root that writes: rows changed on the connection before, and whether a joined block failed.
    changes, failed = 0, False
    # Whether documents are being taken from the caller's iterable.
    taking = False


class _Blocks(threading.local):
    """The blocks that a thread is in, innermost last."""

    def __init__(self) -> None:
        self.uses: list[Use] = []


class Snapshots:
    """SQLite connections that many threads share: each reads one state at a time."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._writer = None if self.path is None else WriterLock(self.path)
        self._closed = False
        self._inherited: Connections | None = None
        self._connections: Connections | None = Connections(self.path)
        self._reset()
        _OPEN.add(self)

    def _reset(self) -> None:
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
        holder = self._turns.holders.get(connection)
        return holder is None or id(holder) in mine or not holder.alive

    def snapshot(self) -> contextlib.AbstractContextManager[None]:
        """All reads in the block see one generation, whatever is committed meanwhile; in a transaction, its own."""
        return Scope(self._start, self._leave, Use())

    def committed(self) -> contextlib.AbstractContextManager[None]:
        """All reads in the block see the last commit, inside a transaction too, and one thread at a time is in it."""
        return Scope(functools.partial(self._start, alone=True), self._leave, Use())

    def _start(self, use: Use, alone: bool = False) -> None:
        current, connections = self._current(), self._opened()
        use.root, use.alone = use, alone or (current is not None and current.alone)
        try:
            if alone and not (current is not None and current.alone):
                self._turns.take(SEARCHER, use)
            if current is not None and not (alone and current.writes):
                use.connection, use.writes, use.root = current.connection, current.writes, current.root
                self._blocks.uses.append(use)
                return
            if not self._take_reader(use, connections):
                wait_until(lambda: self._take_reader(use, connections))
            self._blocks.uses.append(use)
            assert use.connection is not None
            use.connection.rollback()
            use.connection.execute("BEGIN")
        except BaseException as error:
            self._leave(use)
            if isinstance(error, sqlite3.Error):
                raise translation(error, self.path) from error
            raise

    def _take_reader(self, use: Use, connections: Connections) -> bool:
        for reader in connections.readers:
            use.connection = reader
            if self._turns.offer(reader, use):
                return True
        return connections.add_reader() and self._take_reader(use, connections)

    def _leave(self, use: Use, *_: object) -> None:
        """Roll back what a block has left open, and give its turns back."""
        uses = self._blocks.uses
        if use.turns:
            self._mend(use)
            self._turns.drop(use)
        if use in uses:
            del uses[uses.index(use) :]

    def _mend(self, use: Use) -> None:
        """Roll back what is open on a connection whose turn a block has, and give up the lock."""
        holders = self._turns.holders
        if use.connection is not None and holders.get(use.connection) is use:
            with contextlib.suppress(sqlite3.Error):  # it must not hide why the block ended; the next one tries again
                use.connection.rollback()
        if self._writer is not None and not self._kept and holders.get(WRITER) is use:
            self._writer.release()

    def _current(self) -> Use | None:
        """The innermost block that this thread is in; of those that an interrupt cut off, nothing is left."""
        uses = self._blocks.uses
        while uses and not uses[-1].alive:
            dead = uses[-1]
            dead.root.failed = True
            for name in dead.turns:
                self._turns.reclaim(name, dead)
            uses.remove(dead)
        return uses[-1] if uses else None

    def _is_writing(self) -> bool:
        """Whether this thread is in a transaction."""
        current = self._current()
        return current is not None and current.writes

    def _opened(self) -> Connections:
        """The connections, to the file that has this name."""
        if self._closed:
            raise StoreError(f"{self.path or 'the store in memory'} cannot be used (it was closed). Open it again.")
        if self._connections is None:  # in a forked child
            opened = Connections(self.path)
            if self._inherited is not None:
                self._inherited.copy_into(opened)
            self._connections, self._inherited = opened, None
        if self.path is None:
            return self._connections
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(
                f"{self.path} was deleted or moved while it was open here: nothing can be read from it or written to "
                "it any more. Put it back or build it again, and open it again."
            ) from error
        except OSError as error:
            raise StoreError(f"{self.path} cannot be used ({error}). Check its permissions.") from error
        if (found.st_dev, found.st_ino) != self._connections.identity:
            raise StoreError(f"{self.path} was replaced by another index while it was open here. Open it again.")
        return self._connections

    def _after_fork(self) -> None:
        """In a child: have connections of its own, and of a store in memory a copy, once they are needed."""
        parents, self._connections = self._connections, None
        holders = self._turns.holders
        busy = {c for c in parents.all() if holders.get(c) is not None} if parents is not None else set()
        self._reset()
        if parents is not None and not self._closed:
            parents.leave_to_parent(busy)
            self._inherited = parents if self.path is None else None

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
            settings = use.root.settings = self._settings(use)
        if key not in settings:
            return default
        try:
            return json.loads(settings[key])
        except ValueError as error:
            raise damaged(self.path, error) from error

    def _settings(self, use: Use) -> dict[str, str]:
        """The JSON text of each setting; all are compared, since one whose name is altered would seem not to be set."""
        assert use.connection is not None
        settings = {}
        try:
            for key, text, expected in use.connection.execute("SELECT key, value, checksum FROM settings").fetchall():
                if crc32((key + text).encode()) != expected:
                    raise damaged(self.path, f"setting {key} does not match its checksum")
                settings[key] = text
        except sqlite3.Error as error:
            raise translation(error, self.path) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise damaged(self.path, error) from error
        return settings

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and take all its rows: no cursor stays open while callers work on them."""
        if self._current() is None:
            with self.snapshot():
                return self._execute(statement, values)
        try:
            return self._connection().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise translation(error, self.path) from error

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


_OPEN: weakref.WeakSet[Snapshots] = weakref.WeakSet()


@after_fork
def _leave_to_parent() -> None:
    for database in list(_OPEN):
        database._after_fork()
