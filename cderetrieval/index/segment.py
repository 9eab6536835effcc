"""A segment: some documents of an inverted index, written once and never changed.

What is removed is marked (a tombstone) and kept out of the answers; what is marked is left behind when segments are
merged. So adding a thousand documents to a million is the work of a thousand, and nothing that a search reads, or that
lies in a mapped file, ever moves under it.

On disk, the lists of a segment lie in a file of their own, ``postings-<digest>.bin``: rows, weights, and for term
embeddings the terms and embeddings of each document, little-endian, one array after the other. What says where they
begin and what they must look like is small, and lies elsewhere. So to save again writes only what is new, and opening
maps the file without reading it: a list is compared with its checksum when a query first needs it (:mod:`.checksum`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..files import atomic_write
from ..vectors import TermEmbeddings
from .checksum import Checksum, checksums
from .forward import Forward
from .postings import Postings


@dataclass(frozen=True, eq=False)
class Segment:
    """Posting lists of documents, their numbers, and which of them can be found."""

    # Numbers of the documents, ascending, shape (n,), int64.
    seqs: np.ndarray
    # Which of them can be found, shape (n,), booleans.
    alive: np.ndarray
    # Their posting lists.
    postings: Postings
    # Their terms' embeddings; None where terms have none.
    forward: Forward | None = None

    @classmethod
    def of(cls, seqs: np.ndarray, vectors: Any) -> Segment:
        """A segment of sparse vectors, a csr_array or term embeddings."""
        embedded = isinstance(vectors, TermEmbeddings)
        postings = Postings.of(vectors.weights if embedded else vectors)
        return cls(seqs, np.ones(len(seqs), dtype=bool), postings, Forward.of(vectors) if embedded else None)

    @property
    def size(self) -> int:
        """Documents, removed ones included."""
        return len(self.seqs)

    @property
    def count(self) -> int:
        """Documents that can be found."""
        return int(np.count_nonzero(self.alive))

    def without(self, gone: np.ndarray) -> Segment:
        """The same segment with more tombstones; `gone` holds one boolean for each document."""
        return replace(self, alive=self.alive & ~gone)

    def write(self, folder: Path, mode: int) -> tuple[str, dict[str, np.ndarray]]:
        """Write the segment's file, where it is not the one that it was read from; its name and its small arrays."""
        postings, forward = self.postings, self.forward
        large = [postings.rows.astype("<i4", copy=False), postings.weights.astype("<f4", copy=False)]
        small = {"seqs": self.seqs, "alive": self.alive, "starts": postings.starts}
        small["checksums"] = checksums(postings.starts, large, postings.checksum)
        if forward is not None:
            more = [forward.terms.astype("<i4", copy=False), forward.embeddings.astype("<f2", copy=False)]
            small["document_starts"] = forward.starts
            small["document_checksums"] = checksums(forward.starts, more, forward.checksum)
            large += more
        content = hashlib.sha256(b"".join(small[key].tobytes() for key in sorted(small) if key != "alive"))
        path = folder / f"postings-{content.hexdigest()[:16]}.bin"
        if postings.checksum is None or postings.checksum.path != path:
            # A file of this name that stands there already may be damaged: it is written anew all the same.
            with atomic_write(path, mode=mode) as temporary, open(temporary, "wb") as file:
                for array in large:
                    file.write(array.data)
        return path.name, small

    @classmethod
    def read(cls, path: Path, small: Mapping[str, np.ndarray], embedding_size: int) -> Segment:
        """The segment of a file, mapped, from its small arrays."""
        starts = small["starts"]
        shapes: list[tuple[str, tuple[int, ...]]] = [("<i4", (int(starts[-1]),)), ("<f4", (int(starts[-1]),))]
        if embedding_size:
            count = int(small["document_starts"][-1])
            shapes += [("<i4", (count,)), ("<f2", (count, embedding_size))]
        rows, weights, *more = _mapped(path, shapes)
        checksum = Checksum(path, starts, [rows, weights], small["checksums"])
        postings, forward = Postings(starts, rows, weights, len(small["seqs"]), checksum), None
        if embedding_size:
            starts = small["document_starts"]
            terms, embeddings = more
            forward = Forward(starts, terms, embeddings, Checksum(path, starts, more, small["document_checksums"]))
        return cls(small["seqs"], small["alive"], postings, forward)


def merge(segments: Sequence[Segment]) -> Segment:
    """One segment of what can be found in several that follow each other."""
    alive = [segment.alive for segment in segments]
    forwards = [segment.forward for segment in segments if segment.forward is not None]
    seqs = np.concatenate([segment.seqs[segment.alive] for segment in segments])
    return Segment(
        seqs,
        np.ones(len(seqs), dtype=bool),
        Postings.merge([segment.postings for segment in segments], alive),
        Forward.merge(forwards, alive) if forwards else None,
    )


def _mapped(path: Path, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> list[np.ndarray]:
    """Arrays of these types and shapes that follow each other in a file, mapped."""
    sizes = [int(np.prod(shape)) * np.dtype(dtype).itemsize for dtype, shape in shapes]
    if path.stat().st_size != sum(sizes):
        raise StoreError(f"{path} has {path.stat().st_size} bytes, not {sum(sizes)}")
    found, start = [], 0
    for (dtype, shape), size in zip(shapes, sizes, strict=True):
        # Each with a map of its own: scipy copies what is a small part of a larger array. Nothing cannot be mapped.
        mapped = np.memmap(path, dtype, "r", start, shape) if size else np.empty(shape, dtype)
        found.append(np.asarray(mapped))
        start += size
    return found
