"""The dense index: vectors and their numbers in FAISS, always rebuildable from the store.

An index knows no documents, only numbers (``seq``, which grow with insertion). Row ``i`` of FAISS is the i-th number
added, so a number is found by bisection and no id map is needed. Removal is one mechanism for every FAISS type:
tombstones, kept out of the answers by an IDSelector, and a rebuild from the store once more than a fifth is dead.

A score is the inner product. Scores are settled (:mod:`.scores`), equal ones come in order of insertion; a flat index
guarantees this whatever the float noise (:mod:`.flat`), an approximate one among the candidates that it finds. Many
threads may search; only one may change it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

import faiss
import numpy as np

from ..errors import CDEError, ConfigError, InputError
from ..vectors import dense_rows
from .approximate import approximate_search
from .assign import add
from .build import LONG, Built, fill, longest, training_needed
from .choice import choose_factory
from .flat import flat_search
from .gpu import LARGEST_K, to_gpu, use_gpu
from .kinds import make
from .scores import narrow
from .stream import Chunks, Scaled, select
from .tune import Breadth

logger = logging.getLogger(__name__)

MOST_DEAD = 0.2
# A trained index serves up to this many times the vectors it was trained on.
GROWTH = 2.0


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
        self._gpu = use_gpu(device)
        self._needed = 0 if factory == "auto" else training_needed(make(dimension, factory))
        self._install(make(dimension, "Flat"), "Flat", np.empty(0, dtype=np.int64), None, Breadth(), 1.0)

    @classmethod
    def from_state(
        cls,
        index: Any,
        seqs: np.ndarray,
        dead: np.ndarray,
        breadth: Breadth,
        settings: Mapping[str, Any],
        *,
        device: str = "auto",
    ) -> Self:
        """An index as :meth:`state` described it; `index` may lie in a mapped file."""
        new = cls(settings["dimension"], settings["requested"], device=device, seed=settings["seed"])
        kept = {name: settings[name] for name in ("recall", "built", "largest_norm")}
        kept["scale"] = settings.get("scale", 1.0)  # indexes of earlier versions say nothing of it
        new._install(index, settings["factory"], seqs, dead, breadth, mapped=True, **kept)
        return new

    def state(self) -> dict[str, Any]:
        """The FAISS index, the arrays ``seqs`` and ``dead``, and the settings, as a cache keeps them."""
        return {
            "index": self._index,
            "seqs": self._seqs,
            "dead": self._seqs[~self._alive],
            "dimension": self.dimension,
            "requested": self.requested,
            "seed": self.seed,
            "factory": self._factory,
            "breadth": self._breadth.to_dict(),
            "recall": self._recall,
            "built": self._built,
            "largest_norm": self._largest_norm,
            "scale": self._scale,
        }

    @property
    def count(self) -> int:
        """Vectors that can be found."""
        return len(self._seqs) - self._dead

    @property
    def factory(self) -> str:
        """FAISS factory string of what is in use now."""
        return self._factory

    @property
    def recall(self) -> float:
        """Recall@10 measured at the last build; 1.0 for a flat index, which is exact."""
        return self._recall

    @property
    def breadth(self) -> Breadth:
        """Search settings that were tuned at the last build."""
        return self._breadth

    @property
    def seqs(self) -> np.ndarray:
        """Numbers of the vectors that can be found, ascending, shape (count,), int64."""
        return self._seqs[self._alive]

    def build(self, seqs: np.ndarray, vectors: Callable[[], Chunks]) -> None:
        """Hold exactly these vectors."""
        factory = self._plan(len(seqs))
        try:
            index, built, scale = self._filled(factory, seqs, vectors)
        except (RuntimeError, MemoryError) as error:
            if factory == "Flat" or isinstance(error, CDEError):
                raise
            logger.warning("These vectors are searched exactly: FAISS cannot hold them in %s (%s).", factory, error)
            self._unfit, factory = True, "Flat"
            index, built, scale = self._filled(factory, seqs, vectors)
        self._install(index, factory, seqs, None, built.breadth, built.recall, scale, largest_norm=built.largest_norm)
        logger.info("Built %s of %d vectors: recall %.3f with %s.", factory, len(seqs), built.recall, built.breadth)

    def _filled(self, factory: str, seqs: np.ndarray, vectors: Any) -> tuple[Any, Built, float]:
        index = make(self.dimension, factory)
        scaled = Scaled(vectors, 1.0 if factory == "Flat" else Scaled.factor_for(vectors))
        return index, fill(index, seqs, scaled, seed=self.seed), scaled.factor

    def sync(self, live_seqs: np.ndarray, vectors_after: Callable[[int], Chunks]) -> None:
        """Make the index hold exactly these numbers, with as little work as possible."""
        live = np.asarray(live_seqs, dtype=np.int64)
        if self._must_rebuild(live):
            self.build(live, lambda: vectors_after(-1))
            return
        last = int(self._seqs[-1])
        self._hide(~np.isin(self._seqs, live, assume_unique=True))
        fresh = live[live > last]
        check = partial(dense_rows, dimension=self.dimension, what="document")
        for numbers, matrix in select(vectors_after(last), fresh, check) if len(fresh) else ():
            if not self._append(numbers, matrix):
                self._unfit = True
                return self.build(live, lambda: vectors_after(-1))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Nearest vectors of each query."""
        matrix = dense_rows(queries, self.dimension, "query")
        if k <= 0:
            raise InputError(f"k={k} must be 1 or more.")
        k = min(k, self.count)
        if not k or not len(matrix):
            return np.empty((len(matrix), k), dtype=np.float32), np.empty((len(matrix), k), dtype=np.int64)
        search = self._search_flat if isinstance(self._index, faiss.IndexFlat) else self._search_approximate
        scores, positions = search(matrix, k)
        # Position -1 (nothing found) reads the last number; it is put back below.
        return narrow(scores), np.where(positions < 0, -1, self._seqs[positions])

    def _search_flat(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return flat_search(
            self._index,
            queries,
            k,
            alive=self._alive,
            dead=self._dead,
            selector=self._selector(),
            largest_norm=self._largest_norm,
            searcher=self._gpu_copy(k),
        )

    def _search_approximate(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        engine = (None if self._dead else self._gpu_copy(k)) or self._index
        settings: dict[str, Any] = {"engine": engine, "factor": self._scale}
        return approximate_search(self._index, queries, k, self._breadth, self._selector(), **settings)

    def _install(
        self,
        index: Any,
        factory: str,
        seqs: np.ndarray,
        dead: np.ndarray | None,
        breadth: Breadth,
        recall: float,
        scale: float = 1.0,
        *,
        built: int | None = None,
        largest_norm: float = 0.0,
        mapped: bool = False,
    ) -> None:
        """Take over a filled FAISS index of vectors times `scale`; `mapped` says that its memory is a file's."""
        self._index, self._factory = index, factory
        self._seqs = seqs
        self._alive = np.ones(len(seqs), dtype=bool) if dead is None else ~np.isin(seqs, dead)
        self._dead = int(len(seqs) - self._alive.sum())
        self._breadth, self._recall, self._built = breadth, recall, len(seqs) if built is None else built
        self._largest_norm, self._scale, self._mapped = largest_norm, scale, mapped
        self._cached_selector = self._copy = None

    def _plan(self, n: int) -> str:
        if self.requested == "auto":
            return "Flat" if self._unfit else choose_factory(n, self.dimension, gpu=self._gpu)
        return self.requested if n >= self._needed and not self._unfit else "Flat"

    def _must_rebuild(self, live: np.ndarray) -> bool:
        if not len(self._seqs):
            return True
        known = live[live <= self._seqs[-1]]
        if not np.isin(known, self.seqs, assume_unique=True).all():
            logger.warning("The index lacks vectors that the store has had for longer; it is built again.")
            return True
        if len(self._seqs) - len(known) > MOST_DEAD * len(self._seqs):
            return True
        grown = len(live) > self._built
        trained = self._factory != "Flat"
        return grown and (self._plan(len(live)) != self._factory or (trained and len(live) > GROWTH * self._built))

    def _append(self, numbers: np.ndarray, matrix: np.ndarray) -> bool:
        """Add vectors; False where they are too long for an approximate index."""
        matrix = Scaled.by(matrix, self._scale)
        largest = max(self._largest_norm, longest(matrix))
        if largest > LONG and self._factory != "Flat":
            return False
        if self._mapped:
            # FAISS ends the whole process when a vector is added to an index that lies in a mapped file.
            self._index = faiss.deserialize_index(faiss.serialize_index(self._index))
            self._mapped = False
        add(self._index, matrix)
        self._seqs = np.concatenate([self._seqs, numbers])
        self._alive = np.concatenate([self._alive, np.ones(len(numbers), dtype=bool)])
        self._largest_norm = largest
        self._cached_selector = self._copy = None
        return True

    def _hide(self, gone: np.ndarray) -> None:
        self._alive = self._alive & ~gone
        self._dead = int(len(self._alive) - self._alive.sum())
        self._cached_selector = None

    def _selector(self) -> Any:
        """FAISS selector of the live rows: one bit a row; `None` where all are."""
        if self._dead and self._cached_selector is None:
            self._cached_selector = faiss.IDSelectorBitmap(np.packbits(self._alive, bitorder="little"))
        return self._cached_selector

    def _gpu_copy(self, k: int) -> Any:
        if not self._gpu or k > LARGEST_K:
            return None
        if self._copy is None:
            self._copy = to_gpu(self._index)
            self._gpu = self._copy is not None
        return self._copy
