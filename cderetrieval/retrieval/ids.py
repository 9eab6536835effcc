"""All documents and passages of one state of a store, by number."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..store import Store
from ..vectors import spans


def _none() -> np.ndarray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Ids:
    """Numbers and ids of documents in order of insertion, numbers of passages, and the store's summary of both."""

    generation: int = -1
    seqs: np.ndarray = field(default_factory=_none)
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=object))
    # Of a document in one piece its own number; of one that was cut as many as it has spans, from its own on.
    passages: np.ndarray = field(default_factory=_none)
    state: tuple[int, ...] = ()
    cut_state: tuple[int, ...] = (0, 0)

    def rows(self, seqs: np.ndarray) -> np.ndarray:
        """Rows of these documents. Where no number is left out they follow from the first: 1.3 ms less for 10,000."""
        if self.seqs[-1] - self.seqs[0] == len(self.seqs) - 1:
            return np.asarray(seqs - self.seqs[0])
        return np.searchsorted(self.seqs, seqs)

    @property
    def are_cut(self) -> bool:
        """Whether some document has passages."""
        return self.cut_state[0] > 0

    def owners(self, passages: np.ndarray) -> np.ndarray:
        """Numbers of the documents of passages; -1 stays."""
        if not self.are_cut:
            return passages
        return np.where(passages < 0, -1, self.seqs[np.searchsorted(self.seqs, passages, side="right") - 1])

    def passages_of(self, seqs: np.ndarray) -> np.ndarray:
        """Numbers of all passages of these documents."""
        rows = self.rows(seqs)
        last = rows == len(self.seqs) - 1
        ends = np.searchsorted(self.passages, self.seqs[np.where(last, rows, rows + 1)])
        starts = np.searchsorted(self.passages, seqs)
        found: np.ndarray = self.passages[spans(starts, np.where(last, len(self.passages), ends) - starts)]
        return found


def followed(store: Store, held: Ids, generation: int) -> Ids:
    """The documents of this generation; where none was removed since `held`, the new ones alone are read."""
    last = int(held.seqs[-1]) if len(held.seqs) else 0
    fresh = store.added(held.state, last) if len(held.seqs) else None
    seqs, ids = store.live() if fresh is None else fresh
    column = np.empty(len(ids), dtype=object)
    column[:] = ids
    if fresh is None:
        passages = store.numbers(seqs)
    else:
        passages = np.concatenate([held.passages, store.numbers(seqs, last, held.cut_state)])
        seqs, column = np.concatenate([held.seqs, seqs]), np.concatenate([held.ids, column])
    return Ids(generation, seqs, column, passages, tuple(store.state()), tuple(store.cut_state()))
