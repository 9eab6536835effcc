"""One writer at a time: a kernel lock on ``writer.lock`` beside the store.

`flock` belongs to the open file, so the kernel drops it when the process ends, by SIGKILL too: no stale lock is ever
left to clean up, and the file itself stays. The process id written into it only serves the error message. Readers take
no lock. Windows has no `flock`: there, SQLite's own write lock refuses the second writer, transaction by transaction.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import IO

from ..errors import LockedError, StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "writer.lock"


class WriterLock:
    """The right to write to the directory of one store, held until `release` or the end of the process."""

    def __init__(self, store_path: Path) -> None:
        self.path = store_path.with_name(LOCK_NAME)
        self._file: IO[str] | None = None
        self._held = False

    @property
    def held(self) -> bool:
        """Whether `acquire` has succeeded."""
        return self._held

    def acquire(self) -> None:
        """Take the lock, or return at once where it is held already.

        Raises
        ------
        LockedError
            If another process, or another store object of this process, is the writer.
        """
        if fcntl is None or self._held:
            self._held = True
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self.path, "a+", encoding="ascii", errors="replace")  # noqa: SIM115 - held until release
        except OSError as error:
            raise StoreError(f"{self.path} cannot be opened for writing ({error}). Check its permissions.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read(20).strip()
            file.close()
            raise LockedError(_refusal(owner, self.path.parent)) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file, self._held = file, True
        _HELD.add(self)

    def release(self) -> None:
        """Give the lock back; harmless where it is not held."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """Close this process's copy of the lock, which stays with whoever else has it open."""
        if self._file is not None:
            self._file.close()
        self._file, self._held = None, False
        _HELD.discard(self)


def _refusal(owner: str, directory: Path) -> str:
    if owner == str(os.getpid()):
        return f"{directory} is already open for writing in this process (pid {owner}); close it there first."
    return f"another process (pid {owner or 'unknown'}) is writing to {directory}; close it or open a copy."


_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork() -> None:
    """Close a forked child's copies: a lock is its parent's, and must not outlive the parent in a child."""
    for lock in list(_HELD):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
