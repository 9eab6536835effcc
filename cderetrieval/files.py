"""Files: atomic writes, JSON, safetensors, and named errors for damaged files.

A file is written under a temporary name in its own directory, flushed to disk, then renamed over the old one, so a
reader after a crash sees the old file or the new one, never half of either. Only JSON and safetensors are read, which
cannot run code. Files of an index are private (:data:`PRIVATE`) until the user gives its store other permissions.
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
# Field of a JSON object that holds the checksum of all others.
SEAL = "sha256"
# Characters of a library's own message that ours repeats.
REASON = 300
# The user's wish to stop, and the end of a generator: no damage of a file.
PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit)


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path that a user gave; ``~`` is the home directory."""
    return Path(os.path.expanduser(path))


def make_directory(path: Path) -> Path:
    """Make a directory to write to, unless it exists."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be made ({error.strerror}). Choose another directory.") from error
    return path


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it over `path` when the block ends without an error.

    A link is replaced, not followed. `mode` is the file's permissions; None: those of any new file (the umask).
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
    """Make a temporary file beside `target`; the lock on its descriptor tells others that its writer is alive."""
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
    """Remove temporary files that killed processes left in a directory, of targets whose names match `name`."""
    for path in directory.glob(f".{name}.*.tmp*"):
        owner = path.with_name(path.name[: path.name.rindex(".tmp") + 4])  # of SQLite's own -journal and -wal
        if not _is_locked(owner) and not _writer_lives(owner.name):
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


def _writer_lives(name: str) -> bool:
    """Whether the process whose number is in the name is alive: safetensors replaces the file that was locked."""
    found = re.search(r"\.(\d+)-[0-9a-f]{8}\.tmp$", name)
    if found is None or fcntl is None:
        return False
    return process_lives(int(found[1]))


def process_lives(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def private_mode(path: Path) -> int:
    """Permissions for a file of an index: those of its store at `path`, if that exists; else private."""
    try:
        found = path.lstat().st_mode
    except OSError:
        return PRIVATE
    return (stat.S_IMODE(found) & 0o666) | PRIVATE if stat.S_ISREG(found) else PRIVATE


def check_own(path: Path) -> None:
    """Refuse to write to a link or to a file with several names: it may be any file of the user's."""
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
def reading(path: object, *, error: type[CDEError] = StoreError, remedy: str = REBUILD) -> Iterator[None]:
    """Turn whatever is thrown while a file is read into a named error: parsers throw hundreds of kinds.

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
    except BaseException as cause:  # a panic of tokenizers is not an `Exception`
        raise error(f"{path} is damaged ({_reason(cause)}). {remedy}") from cause


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever is thrown while files are written into a named error."""
    try:
        yield
    except (CDEError, MemoryError):
        raise
    except Exception as cause:  # of the system, FAISS, safetensors
        raise StoreError(f"{path} cannot be written ({_reason(cause)}). {ROOM}") from cause


def _reason(cause: BaseException) -> str:
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:REASON]}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def closing_on_error(opened: Any) -> Iterator[None]:
    """Close what was opened, should this block not end well."""
    try:
        yield
    except BaseException:
        opened.close()
        raise


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
    """Read a JSON file whose outermost value is an object, or with ``kind=list`` a list."""
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


def json_digest(value: Any) -> str:
    """Sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_sealed(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write an object as JSON with the checksum of its content."""
    plain = json.loads(json.dumps(values))
    write_json(path, {**plain, SEAL: json_digest(plain)})


def unsealed(path: str | os.PathLike[str], values: dict[str, Any], *, remedy: str = REBUILD) -> dict[str, Any]:
    """What :func:`write_sealed` was given, from what :func:`read_json` reads; a wrong checksum is an error."""
    if values.pop(SEAL, None) != json_digest(values):
        raise StoreError(f"{path} does not match its checksum. {remedy}")
    return values


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
    """Read a safetensors file: its arrays and its metadata."""
    path = as_path(path)
    with reading(path, error=error, remedy=remedy):
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
