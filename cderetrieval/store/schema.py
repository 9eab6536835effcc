"""Create and open the SQLite file, check what stands in it, and put SQLite's errors into ours.

A new file is made whole under a temporary name and then renamed, so a file that exists always holds the schema: an
empty or foreign file is damage or another program's, never "a new store". Opening compares the version, the table
definitions, and (up to 512 MB, 0.07 s for 100,000 documents of 384 dimensions) the structure of every page. A file has
the lowest version that describes it, so that older programs read what they can: 1 with dense vectors of one model, 2
with sparse ones, 3 with passages, or vectors of several models, each in a table of its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import LockedError, StoreError
from ..files import PRIVATE, atomic_write, check_own, closing_on_error
from .lock import WriterLock
from .log import check_log

APPLICATION_ID = 0x43444552  # "CDER"
DENSE_VERSION, SPARSE_VERSION, SCHEMA_VERSION = 1, 2, 3
# 16 KiB pages hold ten vectors of 384 dimensions; SQLite's 4 KiB hold two and waste a quarter (217 MB against 176).
PAGE_SIZE = 16_384
# Structure checks read the whole file: 0.4 s a GB from memory, far more from a cold disk.
CHECK_LIMIT = 512 * 2**20
WAL_LIMIT = 64 * 2**20

SCHEMA = {
    "documents": (
        "CREATE TABLE documents (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, text TEXT NOT NULL, "
        "text_checksum INTEGER NOT NULL, payload TEXT NOT NULL, payload_checksum INTEGER NOT NULL)"
    ),
    "documents_id": "CREATE UNIQUE INDEX documents_id ON documents (id)",
    "vectors": "CREATE TABLE vectors (seq INTEGER PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL)",
    "settings": (
        "CREATE TABLE settings (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) "
        "WITHOUT ROWID"
    ),
    "contexts": (
        "CREATE TABLE contexts (number INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL, "
        "tensors BLOB NOT NULL, checksum INTEGER NOT NULL)"
    ),
}
# Part of version 3: of each document that was cut, the number of its spans, and these as JSON: [start, stop, heading].
# Such a document has as many numbers, from its own on. One without a row here is one passage.
PASSAGES = (
    "CREATE TABLE passages (seq INTEGER PRIMARY KEY, count INTEGER NOT NULL, spans TEXT NOT NULL, "
    "checksum INTEGER NOT NULL)"
)


def vector_table(part: int) -> str:
    """Name of the table that holds the vectors of a model, by its place among the models."""
    return f"vectors_{part}" if part else "vectors"


def vector_schema(part: int) -> str:
    """The statement that makes :func:`vector_table`."""
    return SCHEMA["vectors"].replace("TABLE vectors", f"TABLE {vector_table(part)}")


def open_database(path: Path) -> sqlite3.Connection:
    """Open, or create, the file."""
    with translated(path):
        if not os.path.exists(path):  # Path.exists raises where a directory cannot be searched
            _create(path)
        if path.is_dir():
            raise StoreError(f"{path} is a directory; name a file in it, such as {path / 'store.sqlite'}.")
        _check_size(path)
        check_log(path, beside(path, "-wal"), beside(path, "-shm"), PAGE_SIZE)
        connection = connect(path)
        with closing_on_error(connection):
            connection.execute("BEGIN")  # another process may be making tables
            _verify(connection, path)
            connection.execute("ROLLBACK")
        return connection


@contextlib.contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """Raise SQLite's errors, and values that cannot be decoded, as :class:`StoreError` that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise translation(error, path) from error


def damaged(path: Path | None, reason: object) -> StoreError:
    """The error for a file whose content a check has found wrong."""
    return StoreError(f"{path or 'the store in memory'} is damaged ({reason}). {_REMEDY}")


_REMEDY = "Restore it from a backup, or delete the index and add the documents again."
_UNHARMED = "What was stored before is as it was."
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_REMEDIES = {
    sqlite3.SQLITE_FULL: "Make room for it, also for temporary files",
    sqlite3.SQLITE_IOERR: "Check the disk, its quota, and the limit on the size of files",
    sqlite3.SQLITE_CANTOPEN: "Check free space and permissions",
    sqlite3.SQLITE_READONLY: "Check free space and permissions",
    sqlite3.SQLITE_PERM: "Check free space and permissions",
    sqlite3.SQLITE_TOOBIG: "SQLite takes values of up to 1 GB: split the document",
}


def translation(error: sqlite3.Error, path: Path | None) -> StoreError:
    """Our error for one of SQLite's. A full disk leaves a store whole: damage is only what SQLite found so."""
    name = path or "the store in memory"
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Python's own: a text that is not UTF-8 was not written by us.
        if "decode to UTF-8" in str(error):
            return damaged(path, error)
        return StoreError(f"{name} cannot be used ({error}). Open it again.")
    code &= 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LockedError(f"another process is writing to {name}; try again when it has ended.")
    if code in _DAMAGED:
        return damaged(path, error)
    return StoreError(f"{name} cannot be used ({error}). {_REMEDIES.get(code, 'Open it again')}. {_UNHARMED}")


def location(path: Path) -> str:
    """The URI by which SQLite opens the file, its rights included: to write, or, where that cannot be, only to read.

    SQLite keeps a log and shared memory beside the file. Where nothing can be written beside it (another user's
    directory, a read-only disk), a store that was closed is read as a file that does not change. So is one to which a
    link leads: who places a link in a directory that others open must not make them write to where it leads.
    """
    file = path.resolve()
    uri, log = file.as_uri(), beside(file, "-wal")
    # Who may not write to the file must not make a log either: it would be theirs, and in its owner's way.
    if not path.is_symlink() and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        _check_beside(path)
        return f"{uri}?mode=rw"
    if not log.exists() or log.stat().st_size == 0:
        return f"{uri}?mode=ro&immutable=1"
    if path.is_symlink() or not beside(file, "-shm").exists():
        raise StoreError(
            f"{path} can only be read, and {log.name} beside it holds changes that are not in it yet. Open and close "
            f"{file.parent} once as a user who may write there, or copy that directory to where you may."
        )
    return f"{uri}?mode=ro"


def beside(path: Path, end: str) -> Path:
    """A file that SQLite keeps beside a store: ``-wal``, ``-shm``."""
    return path.with_name(path.name + end)


def _check_beside(path: Path) -> None:
    """Refuse what could make SQLite write, or delete, elsewhere."""
    journal = beside(path, "-journal")
    if os.path.lexists(journal):
        # It may name another file, which SQLite would delete.
        raise StoreError(f"{journal} was not written by this package, whose stores have none. Move it away.")
    for end in ("-wal", "-shm"):
        check_own(beside(path, end))


def connect(file: Path | str) -> sqlite3.Connection:
    """One more connection to a store that was opened, or to a new file: a path as text, or a URI."""
    target = location(file) if isinstance(file, Path) else file
    connection = sqlite3.connect(
        target, uri=target.startswith("file:"), isolation_level=None, check_same_thread=False, timeout=10.0
    )
    with closing_on_error(connection):
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    return connection


def _create(path: Path) -> None:
    lock = WriterLock(path)
    deadline = time.monotonic() + 10.0
    while True:
        try:
            lock.acquire()
            break
        except LockedError:
            if path.exists():
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    try:
        if not path.exists():
            with (
                atomic_write(path, mode=PRIVATE) as temporary,
                contextlib.closing(connect(str(temporary))) as connection,
            ):
                define(connection)
                connection.execute("PRAGMA journal_mode = WAL")
    except OSError as error:
        raise StoreError(f"{path} cannot be created ({error}). Check the permissions of its directory.") from error
    finally:
        lock.release()


def define(connection: sqlite3.Connection) -> None:
    """Make the tables of a new store."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.values():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {DENSE_VERSION}")
    connection.execute("COMMIT")


def _check_size(path: Path) -> None:
    """Refuse a file cut short. SQLite takes an empty one for new, and the missing half of the last page for zeros."""
    log = beside(path, "-wal")
    size = path.stat().st_size
    in_progress = log.exists() and log.stat().st_size > 0  # pages of the file may still be in the log alone
    if size < PAGE_SIZE or (size % PAGE_SIZE and not in_progress):
        raise damaged(path, f"{size} bytes, cut short or no store")


_UNTOLD = "SELECT 1 FROM passages WHERE NOT EXISTS (SELECT 1 FROM settings WHERE key = 'cut') LIMIT 1"


def _verify(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StoreError(f"{path} belongs to another program (SQLite application id {application}). Use another path.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}; this version of cderetrieval reads up to {SCHEMA_VERSION}. "
            "Upgrade it: pip install -U cderetrieval"
        )
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    expected, tables = dict(SCHEMA), 1
    if version == SCHEMA_VERSION:
        expected["passages"] = PASSAGES
        tables += len(found) - len(expected)
        expected |= {vector_table(part): vector_schema(part) for part in range(1, tables)}
    # A list, since a trigger may have the name of a table.
    if version < DENSE_VERSION or sorted(found) != sorted(expected.items()):
        raise damaged(path, "its tables are not those of a store")
    said = connection.execute("SELECT value FROM settings WHERE key = 'tables'").fetchall()
    if version == SCHEMA_VERSION and said != [(str(tables),)]:
        raise damaged(path, f"it has vectors of {tables} models, which is not what its settings say")
    if version == SCHEMA_VERSION and connection.execute(_UNTOLD).fetchall():
        raise damaged(path, "it holds passages, which its settings do not say")
    if path.stat().st_size <= CHECK_LIMIT:
        check_structure(connection, path)


def check_structure(connection: sqlite3.Connection, path: Path | None) -> None:
    """Walk every page (SQLite's quick_check)."""
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise damaged(path, answer)
