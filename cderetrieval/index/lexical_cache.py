"""A lexical index on disk: a cache beside the store, believed only where it fits (:mod:`.manifest`).

The words of each document lie in ``index.safetensors``, the weights in the files of the library bm25s, which are mapped
and not read. The library writes them in place, and a file that another process has mapped must not change: so each save
takes a directory of a new name, ``weights-<digest>``, and the old one is removed once ``index.json`` names the new.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path
from typing import Any

from ..files import read_tensors, write_tensors
from .lexical import LexicalIndex, WordModel
from .manifest import cache_mode, opened, read_manifest, write_manifest

NUMBERS = "index.safetensors"
WEIGHTS = "weights-"


def save(
    index: LexicalIndex, directory: str | Path, *, epoch: int, generation: int, fingerprint: str | None
) -> str | None:
    """Write an index into a directory."""
    weights = index.weights()
    if weights is None:
        return None
    folder = Path(directory)
    name = f"{WEIGHTS}{secrets.token_hex(8)}"
    mode = cache_mode(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).mkdir(mode=0o700)
    weights.save(folder / name, show_progress=False)
    for path in (folder / name).iterdir():
        path.chmod(mode)
    (folder / name).chmod(mode | (mode & 0o444) >> 2)
    write_tensors(folder / NUMBERS, index.arrays(), mode=mode)
    files = [NUMBERS, *(f"{name}/{path.name}" for path in sorted((folder / name).iterdir()))]
    state = {"index": "lexical", "versions": index.model.versions(), "weights": name}
    owner: dict[str, Any] = {"epoch": epoch, "generation": generation, "fingerprint": fingerprint}
    digest = write_manifest(folder, files, state, **owner)
    for path in folder.glob(f"{WEIGHTS}*"):
        if path.name != name:
            with contextlib.suppress(OSError):  # Windows keeps a file that another process has mapped
                shutil.rmtree(path)
    return digest


def load(
    directory: str | Path, model: WordModel, *, epoch: int, fingerprint: str | None, digest: str | None
) -> LexicalIndex | None:
    """Open a saved index, or say in the log why it has to be built again and return `None`.

    It may be older than the store: `LexicalIndex.sync` brings it up to date. But it must be the one whose `digest` the
    store keeps, and made by the versions of the libraries that are installed now: others may cut texts differently.
    """
    folder = Path(directory)
    expected = {"index": "lexical", "epoch": epoch, "fingerprint": fingerprint, "versions": model.versions()}

    def read() -> LexicalIndex:
        manifest = read_manifest(folder, expected, digest)
        arrays, _ = read_tensors(folder / NUMBERS)
        weights = type(model.scorer()).load(folder / manifest["weights"], mmap=True, show_progress=False)
        return LexicalIndex.of(model, arrays, weights)

    return opened(folder, read)
