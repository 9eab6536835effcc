"""The SQLite connections of one store in one process: one that writes, and one for each thread that reads meanwhile.

With a write-ahead log readers see the last commit and wait for no writer. That needs a file, so a store "in memory" is
one too: it lies in the directory for temporary files, is never flushed to the disk, and has no name any more once its
connections are open, so that the system frees it with the process, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import tempfile
from pathlib import Path

from ..errors import StoreError
from .schema import connect, define, open_database, translated

# Readers of a store without a name, which cannot be opened again later.
READERS = 3


class Connections:
    """Connections, opened when they are first needed."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._writer: sqlite3.Connection | None = None
        self.readers: list[sqlite3.Connection] = []
        if path is None:
            self._open_temporary()
        else:
            self.readers = [open_database(path)]
            found = os.stat(path)
            # Of the file that is open; another one may get its name.
            self.identity = found.st_dev, found.st_ino

    def _open_temporary(self) -> None:
        try:
            directory = tempfile.TemporaryDirectory(prefix="cderetrieval-", ignore_cleanup_errors=True)
        except OSError as error:
            raise StoreError(
                f"no temporary file can be made ({error}). Set TMPDIR to a directory with room, or keep the index in "
                "one: path=."
            ) from error
        self._temporary = directory
        file = Path(directory.name) / "store.sqlite"
        with translated(None):
            self._writer = connect(f"{file.as_uri()}?mode=rwc")
            self._writer.execute("PRAGMA synchronous = OFF")
            self._writer.execute("PRAGMA journal_mode = WAL")
            define(self._writer)
            self.readers = [connect(f"{file.as_uri()}?mode=rw") for _ in range(READERS)]
            for reader in self.readers:
                reader.execute("SELECT 1 FROM settings").fetchall()  # opens the log
        if os.name == "posix":
            directory.cleanup()

    def writer(self) -> sqlite3.Connection:
        """The connection that writes."""
        if self._writer is None:
            assert self.path is not None
            self._writer = connect(self.path)
        return self._writer

    def add_reader(self) -> bool:
        """Open one more connection to read, where that can be."""
        if self.path is None:
            return False
        with translated(self.path):
            self.readers.append(connect(self.path))
        return True

    def all(self) -> list[sqlite3.Connection]:
        """All that are open."""
        return [*self.readers, *([] if self._writer is None else [self._writer])]

    def copy_into(self, other: Connections) -> None:
        """Copy all that is committed into another store."""
        if not self.readers:
            raise StoreError(
                "this index in memory was being read when the process forked, and cannot be used in the child. Save it "
                "to a directory before, and open that in the child with Retriever.load."
            )
        with translated(self.path):
            self.readers[0].backup(other.writer())
        for reader in self.readers:
            reader.close()

    def leave_to_parent(self, busy: set[sqlite3.Connection]) -> None:
        """Give up, in a forked child, what its parent uses.

        A connection that was idle is closed, so that SQLite forgets the locks that it believes to have; one to a file
        without a name stays to be copied from. One that was in use is never touched again, not even when Python ends:
        to close it would undo its changes under its parent.
        """
        idle = [connection for connection in self.readers if connection not in busy and not connection.in_transaction]
        for connection in self.all():
            if connection in busy or connection.in_transaction:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
            elif self.path is not None:
                connection.close()
        self.readers = idle if self.path is None else []
        self._writer = None
