"""An index on disk: a cache beside the store, believed only where everything about it fits.

``index.faiss`` is what FAISS writes, ``index.safetensors`` the numbers and tombstones, ``index.json`` what they belong
to (epoch, generation, fingerprint of the encoder), how the index was built and how well it recalls, and the sha256 of
the other two and of itself: FAISS reads a flipped bit without a word. ``index.json`` is written last, so a save that is
killed leaves a pair that does not fit. Whatever does not fit is a logged reason and `None`: the caller builds again.
The file is mapped, not read: opening costs its sha256 (0.1 s for 100,000 vectors) and no memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import faiss

from ..errors import CDEError, StoreError
from ..files import atomic_write, read_json, read_tensors, sha256_file, write_json, write_tensors
from .faiss import FaissIndex
from .tune import Breadth

logger = logging.getLogger(__name__)

FORMAT = 1
INDEX, NUMBERS, MANIFEST = "index.faiss", "index.safetensors", "index.json"


def save(index: FaissIndex, directory: str | Path, *, epoch: int, generation: int, fingerprint: str) -> str:
    """Write an index into a directory, each file whole or not at all.

    Parameters
    ----------
    index
        The index.
    directory
        Where; made if it is not there.
    epoch, generation
        Of the store whose vectors the index holds.
    fingerprint
        Of the encoder that made them.

    Returns
    -------
    str
        Digest of what was written, to be kept in the store: only an index whose digest it holds is believed.
    """
    folder = Path(directory)
    state = index.state()
    with atomic_write(folder / INDEX) as temporary:
        faiss.write_index(state.pop("index"), str(temporary))
    write_tensors(folder / NUMBERS, {"seqs": state.pop("seqs"), "dead": state.pop("dead")})
    manifest = {
        "format": FORMAT,
        "epoch": epoch,
        "generation": generation,
        "fingerprint": fingerprint,
        "files": {
            name: {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
            for name in (INDEX, NUMBERS)
        },
        **state,
    }
    digest = _digest(manifest)
    write_json(folder / MANIFEST, {**manifest, "sha256": digest})
    return digest


def load(
    directory: str | Path,
    *,
    dimension: int,
    epoch: int,
    fingerprint: str,
    digest: str | None,
    factory: str = "auto",
    metric: str = "ip",
    recall_target: float = 0.95,
    device: str = "auto",
) -> FaissIndex | None:
    """Open a saved index, or say in the log why it has to be built again and return `None`.

    It may be older than the store: `FaissIndex.sync` brings it up to date. But it must be the one whose `digest` the
    store keeps: if the store was put back from a copy since, it may number other documents alike.
    """
    folder = Path(directory)
    if not (folder / MANIFEST).exists():
        logger.info("There is no saved index in %s; it is built from the store.", folder)
        return None
    try:
        expected = {"format": FORMAT, "epoch": epoch, "fingerprint": fingerprint, "dimension": dimension}
        wanted = {"requested": factory, "metric": metric, "recall_target": recall_target}
        manifest = _manifest(folder, {**expected, **wanted})
        if manifest["sha256"] != digest:
            raise StoreError("the store does not know it; was the store put back from a copy?")
        tensors, _ = read_tensors(folder / NUMBERS)
        raw = faiss.read_index(str(folder / INDEX), faiss.IO_FLAG_MMAP_IFC)
        if raw.d != dimension or raw.ntotal != len(tensors["seqs"]):
            raise StoreError(f"{folder / INDEX} holds {raw.ntotal} vectors for {len(tensors['seqs'])} numbers")
        return FaissIndex.from_state(
            raw,
            tensors["seqs"],
            tensors["dead"],
            Breadth(**manifest["breadth"]),
            manifest,
            device=device,
        )
    except (CDEError, RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("The saved index is not used and built again from the store: %s", error)
        return None


def _manifest(folder: Path, expected: dict[str, Any]) -> dict[str, Any]:
    manifest = read_json(folder / MANIFEST)
    if _digest({key: value for key, value in manifest.items() if key != "sha256"}) != manifest["sha256"]:
        raise StoreError(f"{folder / MANIFEST} does not match its checksum")
    for key, value in expected.items():
        if manifest[key] != value:
            raise StoreError(f"its {key} is {manifest[key]!r}, not {value!r}")
    for name, file in manifest["files"].items():
        path = folder / name
        if path.stat().st_size != file["size"] or sha256_file(path) != file["sha256"]:
            raise StoreError(f"{path} does not match its checksum")
    return manifest


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
