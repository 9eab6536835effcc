"""Directories that are computed once and kept: each named by what it was computed from, whole or absent.

A directory's name ends in the sha256 of everything that determines its files. It is built under a temporary name and
renamed once its manifest, which lists every file with its size and sha256, is written. Of several processes that want
it, one builds while the others wait for a kernel lock, which no crash leaves behind.
"""

from __future__ import annotations

import contextlib
import errno
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
from ..files import as_path, json_digest, read_json, sha256_file, unsealed, write_sealed

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


def cached_directory(
    root: str | Path, name: str, key: Mapping[str, Any], build: Callable[[Path], Info]
) -> tuple[Path, Info]:
    """Find the directory of `key`, everything that determines its files as JSON values, or build it.

    `build` writes the files into an empty directory; what it returns is kept in the manifest and returned.
    """
    root = as_path(root)
    directory = root / f"{name}-{json_digest({**key, 'format': FORMAT})[:16]}"
    try:
        with _locked(root / f".{directory.name}.lock"):
            info = read_whole(directory)
            if info is None:
                shutil.rmtree(directory, ignore_errors=True)
                info = _build(directory, key, build)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreError(f"the disk is full: {name} could not be written to {root}. Free some space.") from error
    return directory, info


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="ascii") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(directory: Path, key: Mapping[str, Any], build: Callable[[Path], Info]) -> Info:
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        info: Info = json.loads(json.dumps(build(temporary)))
        files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in temporary.iterdir()}
        write_sealed(temporary / MANIFEST, {"format": FORMAT, "key": dict(key), "files": files, "info": info})
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return info


def read_whole(directory: Path) -> Info | None:
    """What the builder said of a directory that holds every file of its manifest, undamaged; None of any other."""
    if not (directory / MANIFEST).is_file():
        return None
    try:
        manifest = unsealed(directory / MANIFEST, read_json(directory / MANIFEST))
    except (StoreError, RecursionError) as error:
        logger.warning("%s is damaged and is computed again: %s", directory / MANIFEST, error)
        return None
    for name, expected in manifest["files"].items():
        file = directory / name
        size = file.stat().st_size if file.is_file() else -1
        if size != expected["bytes"] or (size <= VERIFIED_BYTES and sha256_file(file) != expected["sha256"]):
            logger.warning("%s is damaged and is computed again.", file)
            return None
    info: Info = manifest["info"]
    return info


def map_array(path: Path, dtype: np.typing.DTypeLike, shape: tuple[int, ...]) -> np.ndarray:
    """Map a raw little-endian array into memory; an empty one is just empty."""
    if 0 in shape:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)
