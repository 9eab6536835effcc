"""The dense index: vectors and their numbers in FAISS, always rebuildable from the store.

An index knows no documents, only numbers (``seq``, which grow with insertion). Row ``i`` of FAISS is the i-th number
added, so a number is found by bisection and no id map is needed. Removal is one mechanism for every FAISS type:
tombstones, kept out of the answers by an IDSelector, and a rebuild from the store once more than a fifth is dead.

A score is the inner product. Scores are settled (:mod:`.scores`), equal ones come in order of insertion; a flat index
guarantees this whatever the float noise (:func:`flat_search`), an approximate one among the candidates that it finds.
Many threads may search; only one may change it.

On disk (:mod:`.manifest`), ``index.faiss`` is what FAISS writes. It is read as a whole to compare its sha256, since
FAISS reads a flipped bit without a word (0.1 s for 100,000 vectors); then it is mapped and takes no memory.

Where FAISS was built for a GPU, a copy there searches, made anew after a change; the index itself stays in memory, so
everything else is the same code with and without one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ..errors import CDEError, ConfigError, InputError, StoreError
from ..files import atomic_write, read_tensors, write_tensors
from ..vectors import dense_rows
from .approximate import approximate_search
from .base import NUMBERS, Written
from .build import LONG, Build, add, fill, longest, training_needed
from .choice import choose_factory
from .exact import chunks_of, exact_stream
from .kinds import make
from .scores import best_first, lengths, narrow, probes_of, settled, steps
from .stream import Chunks, scaled, select
from .tune import Breadth

logger = logging.getLogger(__name__)

INDEX = "index.faiss"
MOST_DEAD = 0.2
# A trained index serves up to this many times the vectors it was trained on.
GROWTH = 2.0
# More answers for each query than a GPU index can give are found by the CPU.
LARGEST_K = 1_024
# Exact search: candidates beyond k, how much wider the second look is, and candidates that are scored together.
EXTRA, WIDER, CANDIDATES = 4, 8, 256
# FAISS computes a batch of this many queries as a matrix product (distance_compute_blas_threshold).
BLAS_BATCH = 20
# Float32 error of a score, in units of its scale, with a wide margin (seen: 1e-7).
NOISE = 1e-6


class FaissIndex:
    """Nearest neighbours of dense vectors, by number.

    >>> import numpy as np
    >>> index = FaissIndex(3)
    >>> index.sync(np.array([1, 2, 5]), lambda after: iter([(np.array([1, 2, 5]), np.eye(3, dtype=np.float32))]))
    >>> index.search(np.array([[0.6, 0.7, 0.1]]), k=10)
    (array([[0.7, 0.6, 0.1]], dtype=float32), array([[2, 1, 5]]))
    """

    def __init__(self, dimension: int, factory: str = "auto", *, device: str = "auto", seed: int = 0) -> None:
        if dimension < 1:
            raise ConfigError(f"dimension={dimension} must be 1 or more.")
        self.dimension, self.requested, self.seed = dimension, factory, seed
        # The vectors are such that no approximate index can hold them.
        self._unfit = False
        self._gpu = _use_gpu(device)
        self._needed = 0 if factory == "auto" else training_needed(make(dimension, factory))
        self._hold(make(dimension, "Flat"), Build(), np.empty(0, dtype=np.int64))

    def _hold(self, raw: Any, build: Build, seqs: np.ndarray, *, mapped: bool = False) -> None:
        """Take over a filled FAISS index; `mapped` says that its memory is a file's."""
        self.raw, self.build, self._seqs, self._mapped = raw, build, seqs, mapped
        self._copy: Any = None
        self._set_alive(np.ones(len(seqs), dtype=bool))

    def _set_alive(self, alive: np.ndarray) -> None:
        self._alive, self.count = alive, int(alive.sum())
        self._dead = len(alive) - self.count
        self._cached_selector: Any = None

    @property
    def seqs(self) -> np.ndarray:
        """Numbers of the vectors that can be found, ascending, shape (count,), int64."""
        return np.asarray(self._seqs[self._alive])

    @property
    def identity(self) -> dict[str, Any]:
        """What the manifest of a saved index must say for this one to read it."""
        return {"dimension": self.dimension, "requested": self.requested}

    def write(self, folder: Path, mode: int) -> Written:
        """Write the FAISS index, and the numbers and tombstones."""
        with atomic_write(folder / INDEX, mode=mode) as temporary:
            faiss.write_index(self.raw, str(temporary))
        write_tensors(folder / NUMBERS, {"seqs": self._seqs, "dead": self._seqs[~self._alive]}, mode=mode)
        return Written([INDEX, NUMBERS], settings={"seed": self.seed, **asdict(self.build)})

    def read(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Hold what was written, mapped."""
        tensors, _ = read_tensors(folder / NUMBERS)
        seqs, dead = tensors["seqs"], tensors["dead"]
        raw = faiss.read_index(str(folder / INDEX), faiss.IO_FLAG_MMAP_IFC)
        if raw.d != self.dimension or raw.ntotal != len(seqs):
            raise StoreError(f"{folder / INDEX} holds {raw.ntotal} vectors for {len(seqs)} numbers")
        # Indexes of earlier versions say nothing of the scale.
        kept = {field.name: manifest[field.name] for field in fields(Build) if field.name in manifest}
        build = Build(**{**kept, "breadth": Breadth(**manifest["breadth"])})
        self.seed = manifest["seed"]
        self._hold(raw, build, seqs, mapped=True)
        self._set_alive(~np.isin(seqs, dead))

    def sync(self, live_seqs: np.ndarray, vectors_after: Callable[[int], Chunks]) -> None:
        """Make the index hold exactly these numbers, with as little work as possible."""
        live = np.asarray(live_seqs, dtype=np.int64)
        if self._must_rebuild(live):
            self._rebuild(live, lambda: vectors_after(-1))
            return
        last = int(self._seqs[-1])
        self._set_alive(self._alive & np.isin(self._seqs, live, assume_unique=True))
        fresh = live[live > last]
        check = partial(dense_rows, dimension=self.dimension, what="document")
        for numbers, matrix in select(vectors_after(last), fresh, check) if len(fresh) else ():
            if not self._append(numbers, matrix):
                self._unfit = True
                return self._rebuild(live, lambda: vectors_after(-1))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Nearest vectors of each query."""
        matrix = dense_rows(queries, self.dimension, "query")
        if k <= 0:
            raise InputError(f"k={k} must be 1 or more.")
        k = min(k, self.count)
        if not k or not len(matrix):
            return np.empty((len(matrix), k), dtype=np.float32), np.empty((len(matrix), k), dtype=np.int64)
        if self._dead and self._cached_selector is None:  # one bit a row
            self._cached_selector = faiss.IDSelectorBitmap(np.packbits(self._alive, bitorder="little"))
        copy = self._gpu_copy(k) if self._gpu else None
        if isinstance(self.raw, faiss.IndexFlat):
            alive = self._alive if self._dead else None
            largest = self.build.largest_norm
            scores, positions = flat_search(self.raw, matrix, k, alive, self._cached_selector, largest, searcher=copy)
        else:
            engine = self.raw if self._dead or copy is None else copy
            settings = self.build.breadth, self._cached_selector, self.build.scale
            scores, positions = approximate_search(self.raw, matrix, k, *settings, engine=engine)
        # Position -1 (nothing found) reads the last number; it is put back below.
        return narrow(scores), np.where(positions < 0, -1, self._seqs[positions])

    def _rebuild(self, seqs: np.ndarray, vectors: Callable[[], Chunks]) -> None:
        factory = self._plan(len(seqs))
        try:
            raw, build = fill(self.dimension, factory, seqs, vectors, seed=self.seed)
        except (RuntimeError, MemoryError) as error:
            if factory == "Flat" or isinstance(error, CDEError):
                raise
            logger.warning("These vectors are searched exactly: FAISS cannot hold them in %s (%s).", factory, error)
            self._unfit = True
            raw, build = fill(self.dimension, "Flat", seqs, vectors, seed=self.seed)
        self._hold(raw, build, seqs)
        logger.info("Built %s.", build)

    def _plan(self, n: int) -> str:
        if self._unfit:
            return "Flat"
        if self.requested == "auto":
            return choose_factory(n, self.dimension, gpu=self._gpu)
        return self.requested if n >= self._needed else "Flat"

    def _must_rebuild(self, live: np.ndarray) -> bool:
        if not len(self._seqs):
            return True
        known = live[live <= self._seqs[-1]]
        if not np.isin(known, self.seqs, assume_unique=True).all():
            logger.warning("The index lacks vectors that the store has had for longer; it is built again.")
            return True
        if len(self._seqs) - len(known) > MOST_DEAD * len(self._seqs):
            return True
        factory, built = self.build.factory, self.build.built
        if len(live) <= built:
            return False
        return self._plan(len(live)) != factory or (factory != "Flat" and len(live) > GROWTH * built)

    def _append(self, numbers: np.ndarray, matrix: np.ndarray) -> bool:
        """Add vectors; False where they are too long for an approximate index."""
        matrix = scaled(matrix, self.build.scale)
        largest = max(self.build.largest_norm, longest(matrix))
        if largest > LONG and self.build.factory != "Flat":
            return False
        if self._mapped:
            # FAISS ends the whole process when a vector is added to an index that lies in a mapped file.
            self.raw, self._mapped = faiss.deserialize_index(faiss.serialize_index(self.raw)), False
        add(self.raw, matrix)
        self._copy = None
        self.build = replace(self.build, largest_norm=largest)
        self._seqs = np.concatenate([self._seqs, numbers])
        self._set_alive(np.concatenate([self._alive, np.ones(len(numbers), dtype=bool)]))
        return True

    def _gpu_copy(self, k: int) -> Any:
        if k > LARGEST_K:
            return None
        if self._copy is None:
            self._copy = _to_gpu(self.raw)
            self._gpu = self._copy is not None
        return self._copy


def flat_search(
    index: Any,
    queries: np.ndarray,
    k: int,
    alive: np.ndarray | None,
    selector: Any,
    largest_norm: float,
    *,
    searcher: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores, float64, and positions, int64, of the k nearest rows, both of shape (q, k), whatever the float noise.

    FAISS finds candidates in float32, a few more than k. Their scores are computed again in float64 and settled. If a
    row beyond the last candidate could still tie with the k-th answer, or removed rows took places, that query looks
    again: wider, then through all rows.

    Removed rows: an IDSelector keeps FAISS from its matrix product, and 1,000 queries on 100,000 rows then take 8.7 s
    in place of 2.3 s (one thread). Batches therefore search all rows, drop the removed ones, and use the selector only
    for queries that came out short; single queries, which FAISS scans row by row anyway, use it at once.
    """
    vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    live = index.ntotal if alive is None else int(alive.sum())
    long = lengths(queries)
    scale = long * largest_norm
    margin = NOISE * scale + 1 / steps(scale)
    probes, powers = probes_of(queries, largest_norm, long)
    scores = np.empty((len(queries), k))
    found = np.empty((len(queries), k), dtype=np.int64)
    rows = np.arange(len(queries))
    batch = searcher is not None or len(queries) >= BLAS_BATCH
    attempts = [
        (searcher or index, k + EXTRA + (0 if alive is None else k // 4), None if batch else selector),
        (index, WIDER * (k + EXTRA), selector),
    ]
    for engine, wanted, chosen in attempts:
        most = index.ntotal if chosen is None else live
        fetch = min(wanted, most)
        parameters = None if chosen is None else faiss.SearchParameters(sel=chosen)
        raw, candidates = engine.search(probes[rows], fetch, params=parameters)
        last = np.ldexp(raw[:, -1].astype(np.float64), powers[rows])
        best, positions = _exact_order(vectors, queries[rows], candidates, alive, k)
        done = np.isfinite(best[:, k - 1]) & ((fetch == most) | (best[:, k - 1] > last + margin[rows]))
        scores[rows[done]], found[rows[done]] = best[done], positions[done]
        rows = rows[~done]
        if not len(rows):
            return scores, found
    scores[rows], found[rows] = exact_stream(chunks_of(vectors, alive), queries[rows], k)
    return scores, found


def _exact_order(
    vectors: np.ndarray, queries: np.ndarray, candidates: np.ndarray, alive: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates by float64 score, then position; a score of -inf where there are fewer."""
    scores = np.empty(candidates.shape, dtype=np.float64)
    # As bytes: in a mapped file floats lie at odd places, and to take a few of them numpy copies all to even ones first
    # (50 ms for 30,000 vectors, and their memory once more).
    stored = vectors.view(np.uint8)
    # Blocks that stay in the processor's cache: 7 ms for 1,000 queries, 23 ms in one go.
    step = max(1, CANDIDATES // candidates.shape[1])
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        wanted = queries[block].astype(np.float64)[:, :, None]
        shape = (*candidates[block].shape, vectors.shape[1])
        near = np.take(stored, candidates[block].ravel(), axis=0).view(np.float32).astype(np.float64).reshape(shape)
        product = np.matmul(near, wanted)[:, :, 0]
        squares, own = np.einsum("qkd,qkd->qk", near, near), (wanted**2).sum(axis=1)
        scores[block] = settled(product, np.sqrt(own) * np.sqrt(squares))
    hidden = candidates < 0 if alive is None else (candidates < 0) | ~alive[candidates]
    scores[hidden] = -np.inf
    return best_first(scores, candidates, k)


def _use_gpu(device: str) -> bool:
    """Whether to search on a GPU: ``"auto"`` where FAISS sees one, ``"gpu"`` always, ``"cpu"`` never."""
    if device not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"device={device!r} is unknown; use 'auto', 'cpu' or 'gpu'.")
    available = getattr(faiss, "get_num_gpus", lambda: 0)() > 0
    if device == "gpu" and not available:
        raise ConfigError("device='gpu' needs a GPU and a GPU build of FAISS (pip install faiss-gpu); use 'auto'.")
    return available and device != "cpu"


def _to_gpu(index: Any) -> Any:
    """A copy on the first GPU, or `None` where this kind of index does not run there."""
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    except RuntimeError as error:
        logger.warning("This index stays on the CPU: %s", error)
        return None
