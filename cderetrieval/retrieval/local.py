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
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError, InputError, LockedError, MismatchError, MissingDependencyError, ModelError, StoreError
from ..files import make_directory, writing
from ..filters import Filter, parse_filter
from ..index import manifest
from ..index.base import DamagedIndexError, Index
from ..index.engine import new_index, usable
from ..index.exact import exact_stream
from ..index.manifest import STORE_FILE
from ..index.scores import shown
from ..passages import title_of
from ..store import Store
from ..store.database import of_part
from ..store.schema import damaged
from ..types import Encoder
from ..vectors import DENSE, Layout, checked
from .collection import EMPTY, PLAIN, Collection, Settings, Want
from .embedder import LEXICAL
from .fusion import Fusion, Ranking, fuse
from .grouping import best_of_each
from .ids import Ids, followed
from .shown_passages import add_passages, describe, unit_texts, without_heads

logger = logging.getLogger(__name__)

T = TypeVar("T")

CACHE_SETTING = "index_cache"
# Set where several stores were merged, and a model may lack vectors of some documents.
INCOMPLETE = "incomplete"
# Payloads that a filter looks through at a time.
PAYLOADS = 4_096


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

    def reading(self, call: Callable[[], T]) -> T:
        """What `call` returns, all of its reads from one state of the store."""
        with self.committed():
            return call()

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

    def search(self, queries: Any, k: int, part: int = 0, want: Want = PLAIN) -> list[list[dict[str, Any]]]:
        """The hits of each query by one model, best first; call it inside :meth:`reading`."""
        if want.by == "passage" and self.is_whole(part) and self.cut_state()[0]:
            raise InputError(
                "this model of words stands beside others and ranks whole documents, not passages: pass passages=True, "
                "or search another of parts with by='passage'."
            )
        scores, numbers = self.nearest(queries, k, part, want.filter, want.by)
        found = numbers >= 0
        hits = self._hits(shown(scores[found]), numbers[found], found.sum(axis=1), want)
        if want.passages and want.by == "document":
            add_passages(self, hits, numbers, queries, part)
        return hits

    def fused(self, queries: list[Any], k: int, want: Want = PLAIN) -> list[list[dict[str, Any]]]:
        """The hits of each query by all models together; `queries` are those of each model."""
        if want.by == "passage":
            raise InputError("several models rank documents, not passages: search one of parts with by='passage'.")
        fusion = self.fusion or Fusion()
        found = fuse(self.rankings(queries, fusion, k, want.filter), fusion, k)
        if not found:  # no queries
            return []
        scores, seqs = (np.concatenate([one[side] for one in found]) for side in (0, 1))
        hits = self._hits(scores, seqs, np.array([len(rows) for _, rows in found]), want)
        if want.passages:
            part = next((part for part in range(len(queries)) if self.layout_of(part) is not None), 0)
            add_passages(self, hits, [rows for _, rows in found], queries[part], part)
        return hits

    def rankings(
        self, queries: list[Any], fusion: Fusion, k: int, filter: Mapping[str, Any] | None = None
    ) -> list[Ranking]:
        """The best documents of each query by each model, as many as the fusion wants and at least k."""
        self.check_filled()
        rankings = []
        for part, vectors in enumerate(queries):
            scores, seqs = self.nearest(vectors, max(k, fusion.depth), part, filter)
            layout = self.layout_of(part)
            unfound = None if layout is not None and layout.kind == DENSE else 0.0
            there = len(self._ids.seqs if filter is None else self._passing(parse_filter(filter)))
            rankings.append(Ranking(scores, seqs, unfound, there))
        return rankings

    def nearest(
        self, queries: Any, k: int, part: int = 0, filter: Mapping[str, Any] | None = None, by: str = "document"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of documents or passages, both (n, at most k), best first; -1 where there are fewer."""
        wanted = None if filter is None else parse_filter(filter)
        try:
            return self._grouped(queries, k, part, wanted, by)
        except DamagedIndexError as error:  # found only on use, where the file is mapped
            self._distrust(part, error)
            return self._grouped(queries, k, part, wanted, by)

    def _grouped(
        self, queries: Any, k: int, part: int, wanted: Filter | None, by: str
    ) -> tuple[np.ndarray, np.ndarray]:
        index, ids = self.index(part), self._ids
        if not ids.are_cut or self.is_whole(part):
            return self._ask(index, queries, k, part, wanted)
        group = ids.owners if by == "document" else partial(without_heads, self)
        most = min(k, len(ids.seqs if by == "document" else ids.passages))
        return best_of_each(
            partial(self._ask, index, part=part, wanted=wanted), queries, most, len(ids.passages), group
        )

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

    def _ask(
        self, index: Index, queries: Any, k: int, part: int, wanted: Filter | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search the index; among what a filter lets pass, exactly: approximate indexes find too little there."""
        if wanted is None:
            return index.search(queries, k)
        allowed, layout = self._passing(wanted), self.layout_of(part)
        if layout is None or layout.kind != DENSE:  # posting lists take the selection as a mask
            masked: Any = index
            found: tuple[np.ndarray, np.ndarray] = masked.search(
                queries, k, mask=np.isin(self._ids.owners(masked.seqs), allowed)
            )
            return found
        vectors = np.asarray(checked(queries, layout, "query"))
        return exact_stream(self._among(allowed, part), vectors, k)

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

    def _among(self, allowed: np.ndarray, part: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for seqs, vectors in self.iter_vectors(part=part):
            passes = np.isin(self._ids.owners(seqs), allowed)
            if passes.any():
                yield seqs[passes], np.asarray(vectors)[passes]

    def _hits(
        self, scores: np.ndarray, numbers: np.ndarray, counts: np.ndarray, want: Want
    ) -> list[list[dict[str, Any]]]:
        """Records of hits, documents or passages, query by query; `counts` says how many each has."""
        seqs = self._ids.owners(numbers)
        ids = self._ids.ids[self._ids.rows(seqs)].tolist()
        records = [{"id": i, "similarity": s} for i, s in zip(ids, scores.tolist(), strict=True)]
        ends = counts.cumsum().tolist()
        hits = [records[start:end] for start, end in pairwise([0, *ends])]
        if want.documents:
            for record, payload in zip(chain.from_iterable(hits), self.documents(seqs), strict=True):
                record["document"] = payload
        if want.by == "passage":
            describe(self, records, seqs, numbers, self.spans_of(seqs))
        return hits

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
        generation, epoch = self.generation, self.epoch_of(part)
        synced = self._synced.get(part)
        if synced is not None and (synced.generation, synced.epoch) == (generation, epoch):
            return synced.index
        self.check_filled()
        self._follow_ids(generation)
        if synced is None or synced.epoch != epoch or generation < synced.generation:
            index = self._open(part, epoch)
        else:
            index = synced.index
        self._synced.pop(part, None)  # if this is cut off, the next search opens the index again
        try:
            index.sync(self._numbers(part), self._source(part))
        except DamagedIndexError as error:
            self._distrust(part, error)
            index = self._open(part, epoch)
            index.sync(self._numbers(part), self._source(part))
        self._synced[part] = Synced(index, generation, epoch)
        return index

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

    def _open(self, part: int, epoch: int) -> Index:
        """The cached index where it fits the store, else an empty one."""
        layout, directory = self.layout_of(part), None if part in self._distrusted else self._cache_directory(part)
        fingerprint, digest = (self.get_setting(of_part(key, part)) for key in ("fingerprint", CACHE_SETTING))
        model: Any = self.word_model(part) if layout is None else None
        if layout is not None:
            index = new_index(layout, usable(layout, self.settings.factory(part)))
        elif model.kind == LEXICAL:
            index = new_index(None, words=model)
        else:
            raise damaged(self.path, f"it holds no vectors of {type(model).__name__}")
        if directory is not None:
            manifest.load(index, directory, epoch=epoch, fingerprint=fingerprint, digest=digest)
        return index

    def _distrust(self, part: int, error: DamagedIndexError) -> None:
        """Have an index built anew whose file cannot be trusted; that file is not looked at again."""
        logger.warning("The saved index is not used and built again from the store: %s", error)
        self._distrusted.add(part)
        self._synced.pop(part, None)

    def _cache_directory(self, part: int, directory: Path | None = None) -> Path | None:
        """Where the index of a model is saved: the first beside the store, others in a folder of their own."""
        place = directory or self.directory
        if place is None or part == 0:
            return place
        if (place / f"index-{part}").is_symlink():
            raise StoreError(f"{place / f'index-{part}'} is a symbolic link. Remove it; the index is made again.")
        return place / f"index-{part}"

    def save(self, path: Path) -> None:
        """Copy the store into a directory, which must not hold another one, and write the indexes beside it."""
        if self.directory is not None and path.resolve() == self.directory.resolve():
            with self.transaction():  # nobody else writes the caches meanwhile
                self._save_indexes(path, self)
            return
        with self.snapshot():  # the indexes must hold what the copy holds, whatever is committed meanwhile
            self.check_filled()
            make_directory(path)
            self.backup(path / STORE_FILE)
            with Store(path / STORE_FILE) as copy, copy.transaction():
                self._save_indexes(path, copy)

    def _save_indexes(self, directory: Path, store: Store) -> None:
        """Write the index caches into a directory; the store that lies there, ours or a copy, learns their digests."""
        if self.count() == 0:
            return
        digests = {}
        with self.committed():
            for part in range(len(self.settings.models or [None])):
                index, synced = self.index(part), self._synced[part]
                owner: dict[str, Any] = {"epoch": synced.epoch, "generation": synced.generation}
                owner["fingerprint"] = self.get_setting(of_part("fingerprint", part))
                place = self._cache_directory(part, directory)
                assert place is not None
                with writing(place):
                    place.mkdir(exist_ok=True)
                    digests[part] = manifest.save(index, place, **owner)
        with store.transaction():
            for part, digest in digests.items():
                store.set_setting(of_part(CACHE_SETTING, part), digest)

    def close(self) -> None:
        """Write the index caches, where this lives in a directory and was changed, and close the store."""
        try:
            directory = self.directory if self.was_changed and not self._closed else None
            if directory is not None and not self.get_setting(INCOMPLETE):
                # Words without a model; or another writes now, and may keep an index of what it wrote.
                unsaved = (MismatchError, ModelError, MissingDependencyError, LockedError)
                with contextlib.suppress(*unsaved), self.transaction():
                    self._save_indexes(directory, self)
        finally:
            super().close()
