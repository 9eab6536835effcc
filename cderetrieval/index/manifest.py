"""An index on disk: a cache beside the store, believed only where everything about it fits.

``index.json`` says whose vectors the index holds (epoch and generation of the store, fingerprint of the encoder), how
it was built, and the sha256 of every file beside it that is read as a whole, and of itself. It is written last, so a
save that is killed leaves files that do not fit; and its digest is kept in the store, so an index that outlived a store
put back from a copy is not believed either. Whatever does not fit is a logged reason: the caller builds again from the
store, which is always right. An index may be older than the store: its `sync` brings it up to date.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..files import SEAL, json_digest, private_mode, read_json, sha256_file, sweep, unsealed, write_json
from .base import Index

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "index.json"
STORE_FILE = "store.sqlite"
# Files and directories that each save names anew, as other processes may have mapped the old ones.
RENEWED = ("postings-*.bin", "weights-*")


def save(index: Index, directory: str | Path, *, epoch: int, generation: int, fingerprint: str | None) -> str | None:
    """Write an index beside its store, each file whole or not at all; the digest is for the store to keep."""
    folder = Path(directory)
    mode = private_mode(folder / STORE_FILE)
    written = index.write(folder, mode)
    if written is None:
        return None
    read = {name: _stamp(folder / name) for name in written.read}
    owner = {"format": FORMAT, "epoch": epoch, "generation": generation, "fingerprint": fingerprint}
    manifest = {**owner, "files": read, **index.identity, **written.settings}
    digest = json_digest(manifest)
    write_json(folder / MANIFEST, {**manifest, SEAL: digest}, mode=mode)
    kept = {Path(name).parts[0] for name in (*written.read, *written.mapped)}
    for pattern in RENEWED:
        sweep(folder, pattern)
        for path in folder.glob(pattern):
            if path.name not in kept:
                with contextlib.suppress(OSError):  # Windows keeps a file that another process has mapped
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return digest


def load(index: Index, directory: str | Path, *, epoch: int, fingerprint: str | None, digest: str | None) -> bool:
    """Fill an empty index with what :func:`save` left, where that fits the store that keeps its `digest`."""
    folder = Path(directory)
    if not (folder / MANIFEST).exists():
        logger.info("There is no saved index in %s; it is built from the store.", folder)
        return False
    expected = {"format": FORMAT, "epoch": epoch, "fingerprint": fingerprint, **index.identity}
    try:
        index.read(folder, _checked(folder, expected, digest))
    except Exception as error:
        logger.warning("The saved index is not used and built again from the store: %s", error)
        return False
    return True


def _checked(folder: Path, expected: Mapping[str, Any], digest: str | None) -> dict[str, Any]:
    """The manifest, compared with what the store says and with the files beside it."""
    values = read_json(folder / MANIFEST)
    found = values.get(SEAL)
    manifest = unsealed(folder / MANIFEST, values)
    for key, value in expected.items():
        if manifest.get(key) != value:
            raise StoreError(f"its {key} is {manifest.get(key)!r}, not {value!r}")
    for name, stamp in manifest["files"].items():
        if (folder / name).stat().st_size != stamp["size"] or _stamp(folder / name) != stamp:
            raise StoreError(f"{folder / name} does not match its checksum")
    if found != digest:
        raise StoreError("the store does not know it; was the store put back from a copy?")
    return manifest


def _stamp(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}
