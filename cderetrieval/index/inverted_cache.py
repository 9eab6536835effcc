"""An inverted index on disk: a cache beside the store, believed only where it fits (:mod:`.manifest`).

Each segment's lists lie in a file of their own that never changes, ``postings-<digest>.bin``: rows, weights, and for
term embeddings the terms and embeddings of each document, little-endian, one array after the other. What says where
they begin and what they must look like is small and lies in ``index.safetensors``: numbers, tombstones, where lists
start, and the checksum of each. So to save again writes only what is new, and opening maps the files without reading
them: a list is compared with its checksum when a query first needs it (:mod:`.checksum`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..files import atomic_write, read_tensors, sweep, write_tensors
from ..vectors import Layout
from .checksum import Checksum, checksums
from .forward import Forward
from .inverted import InvertedIndex
from .manifest import cache_mode, opened, read_manifest, write_manifest
from .postings import Postings
from .segment import Segment

NUMBERS = "index.safetensors"
LISTS = "postings-*.bin"


def save(index: InvertedIndex, directory: str | Path, *, epoch: int, generation: int, fingerprint: str) -> str:
    """Write an index into a directory, each file whole or not at all."""
    folder = Path(directory)
    tensors: dict[str, np.ndarray] = {}
    names = []
    for number, segment in enumerate(index.segments):
        name, small = _save_segment(segment, folder)
        names.append(name)
        tensors |= {f"{number}.{key}": array for key, array in small.items()}
    write_tensors(folder / NUMBERS, tensors, mode=cache_mode(folder))
    state = {"index": "inverted", **index.layout.to_dict(), "segments": names}
    owner: dict[str, Any] = {"epoch": epoch, "generation": generation, "fingerprint": fingerprint}
    digest = write_manifest(folder, [NUMBERS], state, **owner)
    sweep(folder, LISTS)
    for path in folder.glob(LISTS):
        if path.name not in names:
            with contextlib.suppress(OSError):  # Windows keeps a file that another process has mapped
                path.unlink()
    return digest


def load(
    directory: str | Path, layout: Layout, *, epoch: int, fingerprint: str, digest: str | None
) -> InvertedIndex | None:
    """Open a saved index, or say in the log why it has to be built again and return `None`.

    It may be older than the store: `InvertedIndex.sync` brings it up to date. But it must be the one whose `digest` the
    store keeps.
    """
    folder = Path(directory)
    expected = {"index": "inverted", "epoch": epoch, "fingerprint": fingerprint, **layout.to_dict()}

    def read() -> InvertedIndex:
        manifest = read_manifest(folder, expected, digest)
        tensors, _ = read_tensors(folder / NUMBERS)
        segments = []
        for number, name in enumerate(manifest["segments"]):
            prefix = f"{number}."
            small = {key.removeprefix(prefix): array for key, array in tensors.items() if key.startswith(prefix)}
            segments.append(_open_segment(folder / name, small, layout))
        return InvertedIndex.of(layout, segments)

    return opened(folder, read)


def _save_segment(segment: Segment, folder: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Write a segment's file, where it is not the one that it was read from; its name and its small arrays."""
    postings, forward = segment.postings, segment.forward
    large = [postings.rows.astype("<i4", copy=False), postings.weights.astype("<f4", copy=False)]
    small = {"seqs": segment.seqs, "alive": segment.alive, "starts": postings.starts}
    small["checksums"] = _known(postings.checksum, postings.starts, large)
    if forward is not None:
        more = [forward.terms.astype("<i4", copy=False), forward.embeddings.astype("<f2", copy=False)]
        small["document_starts"] = forward.starts
        small["document_checksums"] = _known(forward.checksum, forward.starts, more)
        large += more
    content = hashlib.sha256(b"".join(small[key].tobytes() for key in sorted(small) if key != "alive"))
    path = folder / f"postings-{content.hexdigest()[:16]}.bin"
    if postings.checksum is None or postings.checksum.path != path:
        # A file of this name that stands there already may be damaged: it is written anew all the same.
        with atomic_write(path, mode=cache_mode(folder)) as temporary, open(temporary, "wb") as file:
            for array in large:
                file.write(array.data)
    return path.name, small


def _known(checksum: Checksum | None, starts: np.ndarray, arrays: list[np.ndarray]) -> np.ndarray:
    return checksums(starts, arrays) if checksum is None else checksum.expected


def _open_segment(path: Path, small: Mapping[str, np.ndarray], layout: Layout) -> Segment:
    starts = small["starts"]
    count = int(starts[-1])
    arrays: list[tuple[Any, tuple[int, ...]]] = [("<i4", (count,)), ("<f4", (count,))]
    if layout.embedding_size:
        count = int(small["document_starts"][-1])
        arrays += [("<i4", (count,)), ("<f2", (count, layout.embedding_size))]
    large = _mapped(path, arrays)
    checksum = Checksum(path, starts, large[:2], small["checksums"])
    postings = Postings(starts, large[0], large[1], len(small["seqs"]), checksum)
    if not layout.embedding_size:
        return Segment(small["seqs"], small["alive"], postings)
    starts = small["document_starts"]
    forward = Forward(starts, large[2], large[3], Checksum(path, starts, large[2:], small["document_checksums"]))
    return Segment(small["seqs"], small["alive"], postings, forward)


def _mapped(path: Path, arrays: list[tuple[Any, tuple[int, ...]]]) -> list[np.ndarray]:
    """Arrays of these types and shapes that follow each other in a file, mapped."""
    sizes = [int(np.prod(shape)) * np.dtype(dtype).itemsize for dtype, shape in arrays]
    if path.stat().st_size != sum(sizes):
        raise StoreError(f"{path} has {path.stat().st_size} bytes, not {sum(sizes)}")
    found, start = [], 0
    for (dtype, shape), size in zip(arrays, sizes, strict=True):
        # Each with a map of its own: scipy copies what is a small part of a larger array. Nothing cannot be mapped.
        mapped = np.memmap(path, dtype, "r", start, shape) if size else np.empty(shape, dtype)
        found.append(np.asarray(mapped))
        start += size
    return found
