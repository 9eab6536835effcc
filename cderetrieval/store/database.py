"""Transactions and settings: the part of the store that knows nothing of documents.

A write is BEGIN IMMEDIATE, COMMIT, and nothing is acknowledged before COMMIT has returned (WAL, synchronous=FULL: it is
then on disk). A transaction inside another is a savepoint, so a failed call leaves no half of itself even where the
caller catches its error and goes on. Each commit that changed a row raises the integer ``generation``, which is how a
reader process learns, by one SELECT, that there is something new.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from ..errors import InputError, StoreError
from .codec import checksum, decode
from .lock import WriterLock
from .schema import damaged, open_database, translated

# Settings that the store keeps by itself; "epoch" is readable and writable, see `Store.clear_vectors`.
RESERVED = frozenset({"generation", "live", "next_seq", "dimension", "layout"})


class Database:
    """A SQLite connection with one writer, nested transactions, snapshots and settings. Safe to share by threads."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._connection = open_database(self.path)
        self._mutex = threading.RLock()
        self._depth = 0
        self._reading = False
        self._writer = None if self.path is None else WriterLock(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give up the writer's lock; an open transaction is rolled back."""
        with self._mutex:
            try:
                with translated(self.path):
                    self._connection.close()
            finally:
                if self._writer is not None:
                    self._writer.release()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes in the block, or none of them. The first one takes the writer's lock and keeps it until `close`.

        Raises
        ------
        LockedError
            If another process is the writer.
        """
        with self._mutex:
            if self._depth:
                begin, commit, rollback = _savepoint(self._depth)
            else:
                begin, commit, rollback = "BEGIN IMMEDIATE", "COMMIT", ["ROLLBACK"]
                if self._reading:
                    raise StoreError("A snapshot() only reads; end it before you write.")
                if self._writer is not None:
                    self._writer.acquire()
            self._execute(begin)
            self._depth += 1
            before = self._connection.total_changes
            try:
                yield
                if self._depth == 1 and self._connection.total_changes != before:
                    self._set("generation", self.generation + 1)
                self._execute(commit)
            except BaseException:
                # SQLite itself ends the transaction on some errors (disk full); then there is nothing to roll back.
                if self._in_transaction():
                    for statement in rollback:
                        self._execute(statement)
                raise
            finally:
                self._depth -= 1

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads in the block see one generation, whatever another process commits meanwhile."""
        with self._mutex:
            if self._depth or self._reading:
                yield
                return
            self._execute("BEGIN")
            self._reading = True
            try:
                yield
            finally:
                self._reading = False
                if self._in_transaction():
                    self._execute("COMMIT")

    @property
    def is_writer(self) -> bool:
        """Whether this object has written, and so holds the writer's lock (in memory: always)."""
        return self._writer is None or self._writer.held

    @property
    def generation(self) -> int:
        """Number of commits that changed something; read from the file each time."""
        return int(self.get_setting("generation", 0))

    @property
    def epoch(self) -> int:
        """Number of times that all vectors were cleared; inside one epoch a row's vector never changes."""
        return int(self.get_setting("epoch", 0))

    def get_setting(self, key: str, default: Any = None) -> Any:
        """The value of a setting, or `default`."""
        rows = self._execute("SELECT value, checksum FROM settings WHERE key = ?", (key,))
        if not rows:
            return default
        with self._decoding():
            return decode(rows[0][0], rows[0][1], 0, key)

    def set_setting(self, key: str, value: Any) -> None:
        """Store a JSON value under a name.

        Raises
        ------
        InputError
            If the store keeps this setting by itself, or the value is not JSON.
        """
        if key in RESERVED:
            raise InputError(f"setting {key!r} is kept by the store itself; use another name.")
        with self.transaction():
            self._set(key, value)

    def _set(self, key: str, value: Any) -> None:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"setting {key!r} cannot be stored as JSON ({error}).") from error
        self._execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", (key, text, checksum(key + text, 0)))

    def _in_transaction(self) -> bool:
        with translated(self.path):
            return self._connection.in_transaction

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and take all its rows: no cursor stays open while callers work on them."""
        with self._mutex, translated(self.path):
            return self._connection.execute(statement, values).fetchall()

    def _execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._mutex, translated(self.path):
            self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        """Values that are not what was written are damage, whichever way that shows."""
        try:
            yield
        except (StoreError, TypeError, ValueError, AttributeError, OverflowError, sqlite3.Error) as error:
            raise damaged(self.path, error) from error


def _savepoint(depth: int) -> tuple[str, str, list[str]]:
    name = f"level_{depth}"
    return f"SAVEPOINT {name}", f"RELEASE {name}", [f"ROLLBACK TO {name}", f"RELEASE {name}"]
