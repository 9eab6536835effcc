"""A FAISS index built in shards and merged: trained here, filled by workers, put together here.

Assigning vectors to lists is what building costs (10 million vectors and 8,192 lists: half an hour of one core), and it
needs no order. Each worker fills a copy of the trained index with its blocks and finds the exact neighbours of the
tuning rows among them; the merged index is byte for byte the one that a single process builds. One process uses all
cores of its machine already, so this helps on several machines. HNSW cannot be merged and is built in one process.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import StoreError
from ..files import atomic_write
from ..index.stream import Chunks, Scaled
from ..retrieval.local import LocalCollection
from ..vectors import DENSE, dense_rows
from .folder import VectorFolder
from .work import Engine, Result, in_order

logger = logging.getLogger(__name__)

# Blocks of a shard: 250,000 vectors and 110 MB, small enough to spread and large enough to merge quickly.
SHARD = 25
SHARDS = "shards"


@dataclass(frozen=True)
class Ready:
    """The vectors of a block, by the folder and number that they have."""

    # The folder of vectors.
    folder: Path
    # Number of the block.
    number: int
    # How many there are.
    documents: int


class ShardBuilder:
    """Fills copies of a trained index."""

    computes: ClassVar[bool] = False

    def __init__(
        self,
        trained: np.ndarray,
        shards: Sequence[Sequence[Ready]],
        starts: Sequence[int],
        queries: np.ndarray,
        factor: float,
        directory: Path,
    ) -> None:
        self._trained, self._shards, self._starts = trained, shards, starts
        self._queries, self._factor, self._directory = queries, factor, directory
        self._folders: dict[Path, VectorFolder] = {}

    def __call__(self, number: int) -> Result:
        """Build one shard; the neighbours that it found as bytes."""
        import faiss

        from ..index.build import add_chunks

        index = faiss.deserialize_index(self._trained)
        filled = add_chunks(index, self._chunks(number, index.d), self._queries, first=self._starts[number])
        with atomic_write(shard_file(self._directory, number)) as temporary:
            faiss.write_index(index, str(temporary))
        found = np.stack([filled.scores.astype(np.float64).view(np.int64), filled.near.astype(np.int64)])
        return {"block": number, "longest": filled.largest_norm, "found": found.tobytes()}

    def _chunks(self, number: int, dimension: int) -> Chunks:
        for part in self._shards[number]:
            if part.folder not in self._folders:
                self._folders[part.folder] = VectorFolder(part.folder)
            _, vectors = self._folders[part.folder].read(part.number)
            matrix = dense_rows(vectors, dimension, "document")
            yield np.arange(len(matrix)), Scaled.by(matrix, self._factor)


def shard_file(directory: Path, number: int) -> Path:
    """Where a shard is written."""
    return directory / f"{number:06d}.faiss"


def build_on(engine: Engine, retriever: Any, blocks: Sequence[Ready], directory: Path) -> None:
    """Build the index of a retriever on an engine, where its kind of index can be merged."""
    collection = retriever.collection
    assert isinstance(collection, LocalCollection)
    layout = retriever.collection.layout_of(0)
    if layout is None or layout.kind != DENSE:
        return
    from ..index.faiss import FaissIndex

    index = FaissIndex(layout.dimension, retriever.collection.settings.index)
    folder = directory / SHARDS
    try:
        filler = partial(_fill, engine=engine, blocks=blocks, folder=folder)
        index.build(collection.live_seqs(), collection.iter_vectors, filler)
    finally:
        for file in folder.glob("*") if folder.exists() else ():
            file.unlink()
        if folder.exists():
            folder.rmdir()
    collection.adopt(index)


def _fill(
    index: Any,
    seqs: np.ndarray,
    vectors: Scaled,
    *,
    seed: int,
    engine: Engine,
    blocks: Sequence[Ready],
    folder: Path,
) -> Any:
    """Train, fill on the engine, merge, tune: in place of :func:`~cderetrieval.index.build.fill`."""
    import faiss

    from ..index.build import Filled, can_merge, fill, merge, train, tune_filled

    if index.is_trained or not can_merge(index):
        logger.info("This kind of index is built in one process.")
        return fill(index, seqs, vectors, seed=seed)
    if sum(block.documents for block in blocks) != len(seqs):
        raise StoreError(f"{len(seqs)} documents are stored, the folders of vectors hold others. Build the index anew.")
    own, queries = train(index, seqs, vectors, seed)
    shards = [blocks[start : start + SHARD] for start in range(0, len(blocks), SHARD)]
    ends = np.cumsum([sum(block.documents for block in shard) for shard in shards]).tolist()
    arguments = {
        "trained": faiss.serialize_index(index),
        "shards": shards,
        "starts": [0, *ends[:-1]],
        "queries": queries,
        "factor": vectors.factor,
        "directory": folder,
    }
    found = []
    for result in in_order(engine.run(ShardBuilder, arguments, range(len(shards))), range(len(shards))):
        file = shard_file(folder, result["block"])
        merge(index, faiss.read_index(str(file)))
        file.unlink()
        pair = np.frombuffer(result["found"], dtype=np.int64).reshape(2, len(queries), -1)
        found.append(Filled(pair[0].view(np.float64), pair[1], result["longest"]))
    return tune_filled(index, own, queries, Filled.merged(found))
