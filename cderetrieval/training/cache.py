"""Directories that are computed once and kept: each named by what it was computed from, whole or absent.

A directory's name ends in the sha256 of everything that determines its files. It is built under a temporary name and
renamed when its manifest, which lists every file with size and sha256, is on disk. Of several processes that want it,
one builds while the others wait on a kernel lock, which no crash leaves behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..files import as_path, read_json, sha256_file, write_json

try:
    import fcntl
except ImportError:  # Windows: no second process should build there
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1
# Larger files are checked by size only: reading 100 GB to open it would cost minutes.
VERIFIED_BYTES = 256 * 2**20

Info = dict[str, Any]


def digest_of(value: Any) -> str:
    """Sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for, hold, and give back a lock between processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="ascii") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def disk_errors(path: Path, what: str) -> Iterator[None]:
    """Turn a full disk into an error that says what could not be written, and where."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreError(f"the disk is full: {what} could not be written to {path}. Free some space.") from error


def cached_directory(root: str | Path, name: str, key: Mapping[str, Any], build: Callable[[Path], Info]) -> Path:
    """Find a computed directory, or compute it.

    Parameters
    ----------
    root
        Directory of the cache.
    name
        What it is; the directory is called ``<name>-<digest>``.
    key
        Everything that determines the files, as JSON values.
    build
        Writes the files into an empty directory and returns what the manifest should say of them.

    Returns
    -------
    pathlib.Path
        A whole directory; :func:`read_info` gives what `build` returned.

    Raises
    ------
    StoreError
        If the disk is full.
    """
    root = as_path(root)
    directory = root / f"{name}-{digest_of({**key, 'format': FORMAT})[:16]}"
    with disk_errors(root, name), locked(root / f".{directory.name}.lock"):
        if not is_whole(directory):
            shutil.rmtree(directory, ignore_errors=True)
            _build(directory, key, build)
    return directory


def _build(directory: Path, key: Mapping[str, Any], build: Callable[[Path], Info]) -> None:
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        info = build(temporary)
        files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in temporary.iterdir()}
        manifest = json.loads(json.dumps({"format": FORMAT, "key": dict(key), "files": files, "info": info}))
        write_json(temporary / MANIFEST, {**manifest, "sha256": digest_of(manifest)})
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_whole(directory: Path) -> bool:
    """Whether a directory holds every file of its manifest, undamaged."""
    if not (directory / MANIFEST).is_file():
        return False
    try:
        manifest = read_json(directory / MANIFEST)
        digest = manifest.pop("sha256", None)  # manifests of earlier versions have none
        if digest is not None and digest != digest_of(manifest):
            raise StoreError("it does not match its digest")
        files = {
            directory / name: (expected["bytes"], expected["sha256"]) for name, expected in manifest["files"].items()
        }
        _ = manifest["info"]
    except (StoreError, KeyError, AttributeError, RecursionError) as error:
        logger.warning("%s is damaged (%s) and is computed again.", directory / MANIFEST, error)
        return False
    for file, (expected, digest) in files.items():
        size = file.stat().st_size if file.is_file() else -1
        if size != expected or (size <= VERIFIED_BYTES and sha256_file(file) != digest):
            logger.warning("%s is damaged and is computed again.", file)
            return False
    return True


def read_info(directory: Path) -> Info:
    """What the builder of a directory said of it."""
    info: Info = read_json(directory / MANIFEST)["info"]
    return info


def map_array(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Map a raw little-endian array into memory; an empty one is just empty."""
    if 0 in shape:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)
