"""A FAISS index on disk: a cache beside the store, believed only where everything about it fits (:mod:`.manifest`).

``index.faiss`` is what FAISS writes, ``index.safetensors`` the numbers and tombstones, ``index.json`` what they belong
to, how the index was built and how well it recalls. All are read as a whole to compare their sha256, since FAISS reads
a flipped bit without a word (0.1 s for 100,000 vectors); the index itself is then mapped and takes no memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss

from ..errors import StoreError
from ..files import atomic_write, read_tensors, write_tensors
from .faiss import FaissIndex
from .manifest import MANIFEST, cache_mode, opened, read_manifest, write_manifest
from .tune import Breadth

__all__ = ["INDEX", "MANIFEST", "NUMBERS", "load", "save"]

INDEX, NUMBERS = "index.faiss", "index.safetensors"


def save(index: FaissIndex, directory: str | Path, *, epoch: int, generation: int, fingerprint: str) -> str:
    """Write an index into a directory, each file whole or not at all."""
    folder = Path(directory)
    state = index.state()
    mode = cache_mode(folder)
    with atomic_write(folder / INDEX, mode=mode) as temporary:
        faiss.write_index(state.pop("index"), str(temporary))
    write_tensors(folder / NUMBERS, {"seqs": state.pop("seqs"), "dead": state.pop("dead")}, mode=mode)
    owner: dict[str, Any] = {"epoch": epoch, "generation": generation, "fingerprint": fingerprint}
    return write_manifest(folder, (INDEX, NUMBERS), state, **owner)


def load(
    directory: str | Path,
    *,
    dimension: int,
    epoch: int,
    fingerprint: str,
    digest: str | None,
    factory: str = "auto",
    device: str = "auto",
) -> FaissIndex | None:
    """Open a saved index, or say in the log why it has to be built again and return `None`.

    It may be older than the store: `FaissIndex.sync` brings it up to date. But it must be the one whose `digest` the
    store keeps: if the store was put back from a copy since, it may number other documents alike.
    """
    folder = Path(directory)
    expected = {
        "epoch": epoch,
        "fingerprint": fingerprint,
        "dimension": dimension,
        "requested": factory,
    }

    def read() -> FaissIndex:
        manifest = read_manifest(folder, expected, digest)
        tensors, _ = read_tensors(folder / NUMBERS)
        raw = faiss.read_index(str(folder / INDEX), faiss.IO_FLAG_MMAP_IFC)
        if raw.d != dimension or raw.ntotal != len(tensors["seqs"]):
            raise StoreError(f"{folder / INDEX} holds {raw.ntotal} vectors for {len(tensors['seqs'])} numbers")
        breadth = Breadth(**manifest["breadth"])
        return FaissIndex.from_state(raw, tensors["seqs"], tensors["dead"], breadth, manifest, device=device)

    return opened(folder, read)
