"""A collection on this machine: a store, and indexes that follow it.

The store counts its commits (`generation`) and, for each model, its re-embeddings (`epoch`). Before each search both
are compared with what is held in memory: after new commits an index takes the difference, after a re-embedding a fresh
index is made. So a reader sees what another process has committed, and an index file is used only where it matches.
One thread at a time searches; none waits for one that writes.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError, InputError, LockedError, MismatchError, MissingDependencyError, ModelError
from ..files import make_directory
from ..filters import Filter, parse_filter
from ..index.base import DamagedIndexError, Index
from ..index.engine import new_index
from ..index.exact import exact_stream
from ..index.manifest import STORE_FILE
from ..index.scores import shown
from ..passages import title_of
from ..store import Store
from ..store.snapshots import of_part
from ..types import Encoder
from ..vectors import DENSE, Layout, checked, spans
from .caches import open_index, save_indexes
from .collection import EMPTY, PLAIN, Collection, Settings, Want
from .fusion import Fusion, PartRanking, fuse
from .grouping import best_of_each
from .shown_passages import add_passages, describe, unit_texts, without_heads

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Set where several stores were merged, and a model may lack vectors of some documents.
INCOMPLETE = "incomplete"
# Payloads that a filter looks through at a time.
PAYLOADS = 4_096


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

    @cached_property
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


@dataclass(frozen=True)
class Synced:
    """An index, and the generation and epoch of the store that it was last brought up to."""

    index: Index
    generation: int
    epoch: int


class LocalCollection(Store, Collection):
    """A store with indexes over it."""

    def __init__(self, settings: Settings, directory: Path | None) -> None:
        super().__init__(None if directory is None else directory / STORE_FILE)
        self.settings, self.directory = settings, directory
        self._ids = Ids()
        # Part to its index. An entry is missing before the first search, and while the index changes.
        self._synced: dict[int, Synced] = {}
        # Parts whose index file was found damaged.
        self._distrusted: set[int] = set()
        # The last filter, by its text (in Python 1 equals True, and such filters differ), and what it lets pass.
        self._passed: tuple[str, int, np.ndarray] = ("", -1, np.empty(0, dtype=np.int64))

    reading = Store.committed

    def check_encoder(self, encoder: Encoder, part: int = 0) -> None:
        """Refuse an index that cannot hold what this encoder makes, before documents are embedded for it."""
        factory = self.settings.factory(part)
        if factory == "auto":
            return
        if not encoder.dimension:
            raise ConfigError(f"index={factory!r} is a FAISS index, and this model has no vectors: use 'auto'.")
        if self.layout_of(part) is None:
            new_index(Layout.of_encoder(encoder), factory)

    def check_filled(self) -> None:
        """Refuse to search where there are no documents."""
        if self.count() == 0:
            raise InputError(EMPTY)

    def search(
        self, queries: Sequence[Any], k: int, parts: Sequence[int] = (0,), want: Want = PLAIN
    ) -> list[list[dict[str, Any]]]:
        """The hits of each query, best first, inside :meth:`reading`: by one model, or by several, which are fused."""
        if want.by == "passage":
            self._check_passages(parts)
        if len(parts) > 1:
            scores, numbers, counts = self._fused(queries, k, want)
        else:
            scores, numbers = self.nearest(queries[0], k, parts[0], want.filter, want.by)
            found = numbers >= 0
            scores, numbers, counts = shown(scores[found]), numbers[found], found.sum(axis=1)
        seqs = self._ids.owners(numbers) if self._ids.are_cut else numbers
        ids = self._ids.ids[self._ids.rows(seqs)].tolist()
        records = [{"id": i, "similarity": s} for i, s in zip(ids, scores.tolist(), strict=True)]
        ends = counts.cumsum().tolist()
        hits = [records[start:end] for start, end in pairwise([0, *ends])]
        if want.documents:
            for record, payload in zip(records, self.documents(seqs), strict=True):
                record["document"] = payload
        if want.by == "passage":
            describe(self, records, seqs, numbers, self.spans_of(seqs))
        elif want.passages and hits:
            place = next((place for place, part in enumerate(parts) if self.layout_of(part)), 0)
            add_passages(self, hits, np.split(seqs, ends[:-1]), queries[place], parts[place])
        return hits

    def _check_passages(self, parts: Sequence[int]) -> None:
        """Refuse models that rank documents alone where passages are to be ranked."""
        if len(parts) > 1:
            raise InputError("several models rank documents, not passages: search one of parts with by='passage'.")
        if self.is_whole(parts[0]) and self.cut_state()[0]:
            raise InputError(
                "this model of words stands beside others and ranks whole documents, not passages: pass passages=True, "
                "or search another of parts with by='passage'."
            )

    def _fused(self, queries: Sequence[Any], k: int, want: Want) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores and numbers of the documents found by all models together, and how many each query has."""
        fusion = self.fusion or Fusion()
        found = fuse(self.rankings(queries, fusion, k, want.filter), fusion, k)
        scores = np.concatenate([np.empty(0), *(one for one, _ in found)])
        numbers = np.concatenate([np.empty(0, dtype=np.int64), *(rows for _, rows in found)])
        return scores, numbers, np.array([len(rows) for _, rows in found], dtype=np.int64)

    def rankings(
        self, queries: Sequence[Any], fusion: Fusion, k: int, filter: Mapping[str, Any] | None = None
    ) -> list[PartRanking]:
        """The best documents of each query by each model, as many as the fusion wants and at least k."""
        self.check_filled()
        rankings = []
        for part, vectors in enumerate(queries):
            scores, seqs = self.nearest(vectors, max(k, fusion.depth), part, filter)
            layout = self.layout_of(part)
            unfound = None if layout is not None and layout.kind == DENSE else 0.0
            there = len(self._ids.seqs if filter is None else self._passing(parse_filter(filter)))
            rankings.append(PartRanking(scores, seqs, unfound, there))
        return rankings

    def nearest(
        self, queries: Any, k: int, part: int = 0, filter: Mapping[str, Any] | None = None, by: str = "document"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of documents or passages, both (n, at most k), best first; -1 where there are fewer."""
        wanted = None if filter is None else parse_filter(filter)
        index, ids = self.synced(part).index, self._ids
        search = index.search if wanted is None else partial(self._among, index, part, wanted)
        try:
            if not ids.are_cut or self.is_whole(part):
                return search(queries, k)
            group = ids.owners if by == "document" else partial(without_heads, self)
            most = min(k, len(ids.seqs if by == "document" else ids.passages))
            return best_of_each(search, queries, most, len(ids.passages), group)
        except DamagedIndexError as error:  # found only on use, where the file is mapped
            self._distrust(part, error)
            return self.nearest(queries, k, part, filter, by)

    def is_whole(self, part: int) -> bool:
        """Whether a model of words stands beside others, and reads whole documents."""
        return self.layout_of(part) is None and len(self.settings.models or ()) > 1

    def ids(self) -> list[Hashable]:
        """Ids of all documents, in order of insertion."""
        return self.live()[1]

    def check_settings(self) -> None:
        """Refuse to change what another process made meanwhile with other settings."""
        stored = self.get_setting("retriever")
        if stored is None:
            return
        found = replace(Settings.from_dict(stored), fusion=self.settings.fusion)
        if found != self.settings or self.get_setting("passages", self.passages.how) != self.passages.how:
            raise MismatchError(
                f"{self.directory} was made meanwhile by another process with other settings. Open it with "
                "Retriever.load."
            )

    def numbered_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and ids of all documents, both of shape (n,), in order of insertion."""
        with self.committed():
            self._follow_ids(self.generation)
        return self._ids.seqs, self._ids.ids

    def _among(self, index: Index, part: int, wanted: Filter, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search what a filter lets pass, exactly: approximate indexes find too little there."""
        allowed, layout = self._passing(wanted), self.layout_of(part)
        if layout is None or layout.kind != DENSE:  # posting lists take the selection as a mask
            masked: Any = index
            found: tuple[np.ndarray, np.ndarray] = masked.search(
                queries, k, mask=np.isin(self._ids.owners(masked.seqs), allowed)
            )
            return found
        vectors = np.asarray(checked(queries, layout, "query"))
        return exact_stream(self._vectors_of(allowed, part), vectors, k)

    def _passing(self, wanted: Filter) -> np.ndarray:
        """Numbers of the documents that a filter lets pass; all payloads are read once for each filter and state."""
        asked = repr(wanted), self._ids.generation
        if self._passed[:2] != asked:
            self._passed = (*asked, np.array(list(wanted.passing(self._payloads)), dtype=np.int64))
        return self._passed[2]

    def _payloads(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Numbers and payloads of all documents."""
        for start in range(0, len(self._ids.seqs), PAYLOADS):
            some = self._ids.seqs[start : start + PAYLOADS]
            yield from zip(some.tolist(), self.documents(some), strict=True)

    def _vectors_of(self, allowed: np.ndarray, part: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for seqs, vectors in self.iter_vectors(part=part):
            passes = np.isin(self._ids.owners(seqs), allowed)
            if passes.any():
                yield seqs[passes], np.asarray(vectors)[passes]

    def titles_of(self, texts: Mapping[int, str]) -> dict[int, str]:
        """The titles of documents, given as number to text."""
        documents = zip(texts.items(), self.documents(list(texts)), strict=True)
        on, passages = self.settings.on, self.passages
        return {seq: title_of(text, payload, on, passages) for (seq, text), payload in documents}

    @property
    def known(self) -> Ids:
        """Numbers of the documents and passages that the last search knew."""
        return self._ids

    def index(self, part: int = 0) -> Index:
        """The index of a model, as of the store's last commit."""
        return self.synced(part).index

    def synced(self, part: int) -> Synced:
        """The index of a model, as of the store's last commit, and which that is."""
        held = self._synced.get(part)
        generation, epoch = self.get_setting("generation"), self.get_setting(of_part("epoch", part), 0)
        if held is not None and (held.generation, held.epoch) == (generation, epoch):
            return held
        generation, epoch = self.generation, self.epoch_of(part)
        self.check_filled()
        self._follow_ids(generation)
        if held is None or held.epoch != epoch or generation < held.generation:
            index = self._open(part, epoch)
        else:
            index = held.index
        self._synced.pop(part, None)  # if this is cut off, the next search opens the index again
        try:
            index.sync(self._numbers(part), self._source(part))
        except DamagedIndexError as error:
            self._distrust(part, error)
            index = self._open(part, epoch)
            index.sync(self._numbers(part), self._source(part))
        self._synced[part] = Synced(index, generation, epoch)
        return self._synced[part]

    def _open(self, part: int, epoch: int) -> Index:
        return open_index(self, part, epoch, None if part in self._distrusted else self.directory)

    def _follow_ids(self, generation: int) -> None:
        """Read the documents of this generation."""
        if self._ids.generation != generation:
            self._ids = followed(self, self._ids, generation)

    def _numbers(self, part: int) -> np.ndarray:
        """Numbers of what the index of a model holds: passages, or documents."""
        return self._ids.seqs if self.is_whole(part) else self._ids.passages

    def _source(self, part: int) -> Callable[[int], Iterator[Any]]:
        """What an index is made from: vectors, or texts where there are none."""
        this = weakref.proxy(self)  # an index keeps it: a circle would hold the lock until the next garbage collection
        if self.layout_of(part) is None:
            texts = unit_texts if self._ids.are_cut and not self.is_whole(part) else Store.pending
            return lambda after: texts(this, after_seq=after, part=part)
        return lambda after: this.iter_vectors(after_seq=after, part=part)

    def _distrust(self, part: int, error: DamagedIndexError) -> None:
        """Have an index built anew whose file cannot be trusted; that file is not looked at again."""
        logger.warning("The saved index is not used and built again from the store: %s", error)
        self._distrusted.add(part)
        self._synced.pop(part, None)

    def save(self, path: Path) -> None:
        """Copy the store into a directory, which must not hold another one, and write the indexes beside it."""
        if self.directory is not None and path.resolve() == self.directory.resolve():
            with self.transaction():  # nobody else writes the caches meanwhile
                save_indexes(self, path, self)
            return
        with self.snapshot():  # the indexes must hold what the copy holds, whatever is committed meanwhile
            self.check_filled()
            make_directory(path)
            self.backup(path / STORE_FILE)
            with Store(path / STORE_FILE) as copy, copy.transaction():
                save_indexes(self, path, copy)

    def close(self) -> None:
        """Write the index caches, where this lives in a directory and was changed, and close the store."""
        try:
            directory = self.directory if self.was_changed and not self._closed else None
            if directory is not None and not self.get_setting(INCOMPLETE):
                # Words without a model; or another writes now, and may keep an index of what it wrote.
                unsaved = (MismatchError, ModelError, MissingDependencyError, LockedError)
                with contextlib.suppress(*unsaved), self.transaction():
                    save_indexes(self, directory, self)
        finally:
            super().close()
