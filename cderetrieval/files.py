"""Files that are either whole or absent: atomic writes, digests, JSON, safetensors, and named errors for damaged ones.

A file is written under a temporary name in its own directory, flushed to disk, then renamed over the old one: a
reader, or a process that starts after a crash, sees the old file or the new one, never half of either. Tensors are
stored as safetensors, everything else as JSON: nothing that this package loads can run code.

Whatever a library throws while it reads a file goes through :func:`reading`, which turns it into one of our errors with
the file and the remedy: parsers throw hundreds of kinds on damaged bytes, and no list of them stays complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CDEError, StoreError

REBUILD = "Restore it from a copy, or build it again."
# Characters of a library's own message that ours repeats.
REASON = 300
# What is no damage of a file: the user's wish to stop, and the end of a generator.
PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it over `path` when the block ends without an error.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_write(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        os.chmod(temporary, mode)  # safetensors makes files that only their owner can read
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


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


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
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
    with reading(path, error=error, remedy=remedy):
        text = Path(path).read_bytes()
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
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write numpy arrays as one safetensors file, atomically."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(arrays, temporary, metadata=dict(metadata or {}))


def read_tensors(
    path: str | os.PathLike[str], *, error: type[CDEError] = StoreError, remedy: str = REBUILD
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file: its arrays and its metadata.

    Raises
    ------
    CDEError
        An `error` if the file is missing, truncated or not a safetensors file.
    """
    with reading(path, error=error, remedy=remedy):
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
