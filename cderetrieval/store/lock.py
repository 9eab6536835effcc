"""One writer at a time: a kernel lock on ``writer.lock`` beside the store.

`flock` belongs to the open file, so the kernel drops it when the process ends, by SIGKILL too: no stale lock is ever
left to clean up, and the file itself stays. The process id written into it only serves the error message. Readers take
no lock. Windows has no `flock`: there, SQLite's own write lock refuses the second writer, transaction by transaction.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from pathlib import Path
from typing import IO

from ..errors import LockedError, StoreError
from ..files import open_own, private_mode, sweep
from ..runtime import after_fork

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "writer.lock"
# Characters of a process id, filled with spaces.
OWNER_SIZE = 20


class WriterLock:
    """The right to write to the directory of one store, held until `release` or the end of the process."""

    def __init__(self, store_path: Path) -> None:
        self.path = store_path.with_name(LOCK_NAME)
        self._store_path = store_path
        self._file: IO[bytes] | None = None
        self._held = False

    @property
    def held(self) -> bool:
        """Whether `acquire` has succeeded."""
        return self._held

    def acquire(self) -> None:
        """Take the lock, or return at once where it is held already."""
        if self._held:
            return
        if os.path.islink(self._store_path):
            raise StoreError(
                f"{self._store_path} is a symbolic link, and such a store is only read. Open the directory that it "
                "leads to, or save a copy."
            )
        if fcntl is None:
            self._held = True
            return
        if self._file is None or self._file.closed:
            self._file = self._open()  # noted before it is locked: an interrupt may strike in between
        _HELD.add(self)
        try:
            _lock(self._file, self.path)
        except BaseException:
            self.forget()
            raise
        _write_owner(self._file, str(os.getpid()))
        self._held = True
        sweep(self.path.parent, self._store_path.name)

    def _open(self) -> IO[bytes]:
        mode = private_mode(self._store_path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = open_own(self.path, os.O_RDWR | os.O_CREAT, mode)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be opened for writing ({error}). Check its permissions.") from error
        with contextlib.suppress(OSError):  # another user's, who lets us write
            os.fchmod(descriptor, mode)
        return open(descriptor, "r+b", buffering=0)

    def release(self) -> None:
        """Give the lock back; harmless where it is not held, and where an interrupt has cut this off before."""
        self._held = False
        if self._file is not None and not self._file.closed:
            _write_owner(self._file, "")
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """Close this process's copy of the lock, which stays with whoever else has it open."""
        self._held = False
        if self._file is not None:
            self._file.close()
        self._file = None
        _HELD.discard(self)


def _lock(file: IO[bytes], path: Path) -> None:
    """Lock the file, or say who has it locked, which stands in it a moment after that process has locked it."""
    for left in range(20, -1, -1):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError) as error:  # which of them depends on the file system
            owner = os.pread(file.fileno(), OWNER_SIZE, 0).decode("ascii", "replace").strip(" \0\n")
            if owner or not left:
                raise LockedError(_refusal(owner or "unknown", path.parent)) from error
        except OSError as error:
            raise StoreError(f"{path} cannot be locked ({error}). Keep the index where files can be locked.") from error
        time.sleep(0.01)


def _write_owner(file: IO[bytes], owner: str) -> None:
    """Write a process id in one piece and always as long, so that nobody reads half of one."""
    with contextlib.suppress(OSError):  # it only serves a message, and the disk may be full
        os.pwrite(file.fileno(), owner.ljust(OWNER_SIZE).encode(), 0)


def _refusal(owner: str, directory: Path) -> str:
    if owner == str(os.getpid()):
        return f"{directory} is already open for writing in this process (pid {owner}); try again later."
    return f"another process (pid {owner}) is writing to {directory}; try again when it has ended."


_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


@after_fork
def _forget_locks() -> None:
    """Close a forked child's copies: a lock is its parent's, and must not outlive the parent in a child."""
    for lock in list(_HELD):
        lock.forget()
