"""Files that are either whole or absent: atomic writes, digests, JSON, safetensors, and named errors for damaged ones.

A file is written under a temporary name in its own directory, flushed to disk, then renamed over the old one: a
reader, or a process that starts after a crash, sees the old file or the new one, never half of either. Tensors are
stored as safetensors, everything else as JSON: nothing that this package loads can run code.

An index holds documents in plain text: its files can be read by their owner alone (:data:`PRIVATE`), until the user
gives its store other permissions, which all of them then follow.

Whatever a library throws while it reads a file goes through :func:`reading`, which turns it into one of our errors with
the file and the remedy: parsers throw hundreds of kinds on damaged bytes, and no list of them stays complete.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CDEError, StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Permissions of the files of a new index.
PRIVATE = 0o600
REBUILD = "Restore it from a copy, or build it again."
ROOM = "Check free space, quota and permissions; what was stored before is as it was."
# Characters of a library's own message that ours repeats.
REASON = 300
# What is no damage of a file: the user's wish to stop, and the end of a generator.
PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit)


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path that a user gave; ``~`` is the home directory."""
    return Path(os.path.expanduser(path))


def make_directory(path: Path) -> Path:
    """Make a directory to write to, or take the one that is there.

    Raises
    ------
    StoreError
        If it cannot be made, or a file stands there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be made ({error.strerror}). Choose another directory.") from error
    return path


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it over `path` when the block ends without an error.

    Parameters
    ----------
    path
        The file. What stands there is replaced, a link too: nothing is written to where it leads.
    mode
        Permissions of the file; None: those of any new file (the umask).

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_write(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = as_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, glob.escape(target.name))
    temporary, descriptor = _temporary(target, mode)
    try:
        if mode is None:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        yield temporary
        os.chmod(temporary, mode)  # libraries may have put another file in its place
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _temporary(target: Path, mode: int | None) -> tuple[Path, int]:
    """A new file beside `target`, and its descriptor, whose lock says until it is closed that its writer lives."""
    while True:
        path = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else PRIVATE)
        if fcntl is None:
            return path, descriptor
        with contextlib.suppress(OSError):  # no locks here: then nothing is swept either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)  # swept before it was locked


def sweep(directory: Path, name: str) -> None:
    """Remove the temporary files that killed writers of files whose names match `name` have left in a directory."""
    for path in directory.glob(f".{name}.*.tmp*"):
        owner = path.with_name(path.name[: path.name.rindex(".tmp") + 4])  # of SQLite's own -journal and -wal
        if not _is_locked(owner) and not _is_of_the_living(owner.name):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_locked(path: Path) -> bool:
    if fcntl is None:  # Windows: what is open cannot be removed
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:  # another user's
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_of_the_living(name: str) -> bool:
    """Whether the process whose number stands in the name of a temporary file lives: a library may drop the lock.

    safetensors, for one, puts another file in the place of the one that was locked.
    """
    found = re.search(r"\.(\d+)-[0-9a-f]{8}\.tmp$", name)
    if found is None or fcntl is None:
        return False
    try:
        os.kill(int(found[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def private_mode(path: Path) -> int:
    """Permissions for a file of an index: those of the file at `path`, its store, where there is one; else private."""
    try:
        found = path.lstat().st_mode
    except OSError:
        return PRIVATE
    return (stat.S_IMODE(found) & 0o666) | PRIVATE if stat.S_ISREG(found) else PRIVATE


def check_own(path: Path) -> None:
    """Refuse to write to a link, and to a file with other names: it may be any file of the user's.

    Raises
    ------
    StoreError
        If there is something else than a regular file of one name.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise StoreError(
                f"{path} is a link, or no file, and is not written to. Remove it if no other process uses this index."
            )


def open_own(path: Path, flags: int, mode: int = PRIVATE) -> int:
    """Open a file to write to it, after :func:`check_own`."""
    check_own(path)
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), mode)


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str], *, error: type[CDEError] = StoreError, remedy: str = REBUILD
) -> Iterator[None]:
    """Turn whatever is thrown while a file is read into a named error; keep the block to the calls of a library.

    Parameters
    ----------
    path
        The file or directory, named by the error.
    error
        Class of the error.
    remedy
        What the user can do, a sentence.

    Raises
    ------
    CDEError
        An `error` that names the file. Errors of this package, an interrupt and a missing package pass through.

    Examples
    --------
    >>> with reading("settings.json"):
    ...     json.loads("{")
    Traceback (most recent call last):
    ...
    cderetrieval.errors.StoreError: settings.json is damaged (JSONDecodeError: ...). Restore it from a copy, or ...
    """
    try:
        yield
    except (CDEError, *PASSED_ON):
        raise
    except FileNotFoundError as cause:
        raise error(f"{cause.filename or path} does not exist.") from cause
    except (PermissionError, IsADirectoryError, NotADirectoryError) as cause:
        raise error(f"{path} cannot be read ({cause.strerror}). Check the path and its permissions.") from cause
    except BaseException as cause:  # tokenizers' panics are no `Exception`
        reason = " ".join(str(cause).split())[:REASON]
        raise error(f"{path} is damaged ({type(cause).__name__}: {reason}). {remedy}") from cause


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], *, error: type[CDEError] = StoreError, remedy: str = ROOM) -> Iterator[None]:
    """Turn what the system or a library throws while files are written into a named error.

    Parameters
    ----------
    path
        The file or directory, named by the error.
    error
        Class of the error.
    remedy
        What the user can do, a sentence.

    Raises
    ------
    CDEError
        An `error` that names the file. Errors of this package pass through.
    """
    try:
        yield
    except (CDEError, MemoryError):
        raise
    except Exception as cause:  # of the system, FAISS, safetensors
        reason = " ".join(str(cause).split())[:REASON]
        raise error(f"{path} cannot be written ({type(cause).__name__}: {reason}). {remedy}") from cause


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | os.PathLike[str], value: Any, *, mode: int | None = None) -> None:
    """Write `value` as indented JSON, atomically; `mode` as for :func:`atomic_write`."""
    with atomic_write(path, mode=mode) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(
    path: str | os.PathLike[str],
    kind: type[Any] = dict,
    *,
    error: type[CDEError] = StoreError,
    remedy: str = REBUILD,
) -> Any:
    """Read a JSON file whose outermost value is of one kind: an object, or with ``kind=list`` a list.

    Raises
    ------
    CDEError
        An `error` if the file is missing, is not JSON, or holds a value of another kind; the message names the file.
    """
    path = as_path(path)
    with reading(path, error=error, remedy=remedy):
        text = path.read_bytes()
        try:
            value = json.loads(text.decode())
        except (ValueError, RecursionError) as cause:  # numbers of too many digits and broken UTF-8 among them
            raise error(f"{path} is not valid JSON ({cause}). {remedy}") from cause
    if not isinstance(value, kind):
        raise error(f"{path} holds {_JSON_NAMES[type(value)]}, not {_JSON_NAMES[kind]}. {remedy}")
    return value


_JSON_NAMES: dict[type[Any], str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    *,
    mode: int | None = None,
) -> None:
    """Write numpy arrays as one safetensors file, atomically; `mode` as for :func:`atomic_write`."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # Not save_file: it writes a temporary file of its own, which a killed process would leave.
    with atomic_write(path, mode=mode) as temporary:
        temporary.write_bytes(save(arrays, metadata=dict(metadata or {})))


def read_tensors(
    path: str | os.PathLike[str], *, error: type[CDEError] = StoreError, remedy: str = REBUILD
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file: its arrays and its metadata.

    Raises
    ------
    CDEError
        An `error` if the file is missing, truncated or not a safetensors file.
    """
    path = as_path(path)
    with reading(path, error=error, remedy=remedy):
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
