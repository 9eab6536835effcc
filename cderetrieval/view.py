"""What a process holds of a store in memory: the ids and the vector index.

The store counts its commits (`generation`) and its re-embeddings (`epoch`). Before each search the view compares both
with its own: a new generation is followed by the difference only, a new epoch by a fresh index. So a reader sees what
another process has committed, and an index file is trusted only as far as the store agrees with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .errors import ConfigError, InputError
from .store import Store
from .types import Encoder

if TYPE_CHECKING:
    from .index.faiss import FaissIndex
    from .index.lexical import LexicalIndex


CACHE_SETTING = "index_cache"


def check_k(k: Any) -> int:
    """The number of hits that was asked for.

    Raises
    ------
    InputError
        If it is not a whole number of at least 1.
    """
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise InputError(f"k={k!r} must be a whole number of at least 1.")
    return int(k)


class IndexView:
    """Ids and index of a store, kept up to date.

    Parameters
    ----------
    store
        The store.
    factory
        ``"auto"`` or a FAISS factory string.
    directory
        Where the index cache lies; None: nowhere.
    encoder
        Gives the encoder; asked for only where documents have words and no vectors.
    """

    def __init__(
        self, store: Store, factory: str, directory: Path | None, encoder: Callable[[], Encoder] | None = None
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._factory = factory
        self._directory = directory
        self._index: FaissIndex | LexicalIndex | None = None
        self._generation = -1
        self._epoch = -1
        self._seqs = np.empty(0, dtype=np.int64)
        self._ids = np.empty(0, dtype=object)

    def check(self, dimension: int) -> None:
        """Refuse a factory string that FAISS cannot build, before documents are embedded for it."""
        if self._factory != "auto" and not dimension:
            raise ConfigError(f"index={self._factory!r} is a FAISS index, and this model has no vectors: use 'auto'.")
        if self._factory != "auto" and self._store.dimension is None:
            from .index.faiss import FaissIndex

            FaissIndex(dimension, self._factory)

    @property
    def ids(self) -> np.ndarray:
        """Ids of all documents at the last search, an object array of shape (n,), in order of insertion."""
        return self._ids

    @property
    def seqs(self) -> np.ndarray:
        """Numbers of the same documents, shape (n,), int64."""
        return self._seqs

    def index(self) -> FaissIndex | LexicalIndex:
        """The index, as of the store's last commit."""
        with self._store.snapshot():
            generation, epoch = self._store.generation, self._store.epoch
            if self._index is None or epoch != self._epoch:
                self._index = self._open(epoch)
                self._epoch, self._generation = epoch, -1
            if generation != self._generation:
                self._seqs, ids = self._store.live()
                self._ids = np.empty(len(ids), dtype=object)
                self._ids[:] = ids
                self._index.sync(self._seqs, self._source())
                self._generation = generation
        return self._index

    def _source(self) -> Callable[[int], Iterator[Any]]:
        """What an index is made from: vectors, or texts where there are none."""
        if self._store.layout is not None:
            return self._store.iter_vectors
        return lambda after: self._store.pending(after_seq=after)

    def _open(self, epoch: int) -> FaissIndex | LexicalIndex:
        """The cached index where it fits the store, else an empty one."""
        dimension = self._store.dimension
        if dimension is None:
            from .index.lexical import LexicalIndex

            assert self._encoder is not None, "a store with documents has vectors"
            return LexicalIndex(cast("Any", self._encoder()))
        from .index import cache
        from .index.faiss import FaissIndex

        if self._directory is not None:
            cached = cache.load(
                self._directory,
                dimension=dimension,
                epoch=epoch,
                fingerprint=self._store.get_setting("fingerprint"),
                digest=self._store.get_setting(CACHE_SETTING),
                factory=self._factory,
            )
            if cached is not None:
                return cached
        return FaissIndex(dimension, self._factory)

    def nearest(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores, and rows of `ids` and `seqs`, both of shape (n, at most k), best first; -1 where there are fewer."""
        scores, seqs = self.index().search(queries, k)
        found = seqs >= 0
        rows = np.full(seqs.shape, -1, dtype=np.int64)
        rows[found] = self._positions(seqs[found])
        return scores, rows

    def search(self, queries: Any, k: int) -> tuple[list[list[dict[str, Any]]], np.ndarray]:
        """Nearest documents of each query.

        Parameters
        ----------
        queries
            What the encoder makes of n queries: vectors of shape (n, dimension), or words.
        k
            Most hits for each.

        Returns
        -------
        tuple
            For each query its hits, ``{"id", "similarity"}``, best first; and the numbers of all hits, in that order.
        """
        scores, seqs = self.index().search(queries, k)
        found = seqs >= 0
        numbers = seqs[found]
        ids = self._ids[self._positions(numbers)].tolist()
        # Rounded in float64: float32 would print 0.83 as 0.8299999833106995.
        similarities = np.round(scores[found].astype(np.float64), 6).tolist()
        records = [{"id": i, "similarity": s} for i, s in zip(ids, similarities, strict=True)]
        ends = found.sum(axis=1).cumsum().tolist()
        return [records[start:end] for start, end in pairwise([0, *ends])], numbers

    def _positions(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of these numbers. Where nothing was removed they follow from the first: 1.3 ms less for 10,000 hits."""
        if self._seqs[-1] - self._seqs[0] == len(self._seqs) - 1:
            return numbers - self._seqs[0]
        return np.searchsorted(self._seqs, numbers)

    def save(self, directory: Path, store: Store) -> None:
        """Write the index cache into a directory; an empty index has none.

        Parameters
        ----------
        directory
            Where.
        store
            The store that lies there, this view's own or its copy; it learns the digest of the cache.
        """
        if self._store.count() == 0:
            return
        if self._store.layout is None:
            return
        from .index import cache

        digest = cache.save(
            cast("FaissIndex", self.index()),
            directory,
            epoch=self._epoch,
            generation=self._generation,
            fingerprint=self._store.get_setting("fingerprint"),
        )
        store.set_setting(CACHE_SETTING, digest)
