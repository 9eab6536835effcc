"""What a saved index belongs to, and whether to believe it: the rules that all caches of an index share.

``index.json`` says whose vectors the index holds (epoch and generation of the store, fingerprint of the encoder), how
it was built, and the sha256 of every file beside it that is read as a whole, and of itself. It is written last, so a
save that is killed leaves files that do not fit; and its digest is kept in the store, so an index that outlived a store
put back from a copy is not believed either. Whatever does not fit is a logged reason and `None`: the caller builds
again from the store, which is always right.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import StoreError
from ..files import private_mode, read_json, sha256_file, write_json

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "index.json"
STORE_FILE = "store.sqlite"
T = TypeVar("T")


class DamagedIndexError(StoreError):
    """A part of a saved index, looked at when it was first used, is not what was written."""


def cache_mode(folder: Path) -> int:
    """Permissions of the files of an index: those of the store beside them."""
    return private_mode(folder / STORE_FILE)


def write_manifest(
    folder: Path, files: Sequence[str], state: Mapping[str, Any], *, epoch: int, generation: int, fingerprint: str
) -> str:
    """Write ``index.json`` for files that stand in the folder already."""
    manifest = {
        "format": FORMAT,
        "epoch": epoch,
        "generation": generation,
        "fingerprint": fingerprint,
        "files": {
            name: {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)} for name in files
        },
        **state,
    }
    digest = _digest(manifest)
    write_json(folder / MANIFEST, {**manifest, "sha256": digest}, mode=cache_mode(folder))
    return digest


def read_manifest(folder: Path, expected: Mapping[str, Any], digest: str | None) -> dict[str, Any]:
    """Read ``index.json`` and compare it with what the store says and with the files beside it."""
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if _digest({key: value for key, value in manifest.items() if key != "sha256"}) != manifest["sha256"]:
        raise StoreError(f"{folder / MANIFEST} does not match its checksum")
    for key, value in {"format": FORMAT, **expected}.items():
        if manifest.get(key) != value:
            raise StoreError(f"its {key} is {manifest.get(key)!r}, not {value!r}")
    for name, file in manifest["files"].items():
        path = folder / name
        if path.stat().st_size != file["size"] or sha256_file(path) != file["sha256"]:
            raise StoreError(f"{path} does not match its checksum")
    if manifest["sha256"] != digest:
        raise StoreError("the store does not know it; was the store put back from a copy?")
    return manifest


def opened(folder: Path, read: Callable[[], T]) -> T | None:
    """What `read` opens in a folder; `None`, and the reason in the log, where it is not there or not to be believed."""
    if not (folder / MANIFEST).exists():
        logger.info("There is no saved index in %s; it is built from the store.", folder)
        return None
    try:
        return read()
    except Exception as error:
        logger.warning("The saved index is not used and built again from the store: %s", error)
        return None


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
