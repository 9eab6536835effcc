"""How the file of a store is opened: to be written to, or, where that cannot be, only to be read."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import StoreError
from ..files import check_own


def location(path: Path) -> str:
    """The URI by which SQLite opens the file, its rights included."""
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
