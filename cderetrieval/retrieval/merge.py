"""One collection out of several stores that hold the same documents, each with the vectors of one model.

Versions before 0.2 kept a hybrid as a directory of stores, ``part-0``, ``part-1``, ..., with ``hybrid.json`` beside
them. Such a directory becomes one collection when it is first opened: in its place, or, where nothing can be written
there, in memory. A killed process may have left some of the stores one change behind; each change left a stamp with its
name, the name of the change before, and the number from which on its documents are. The store that is ahead holds the
documents; vectors that another one lacks are embedded after opening.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..index.manifest import STORE_FILE
from ..store import Store
from ..store.snapshots import of_part
from ..vectors import take
from .collection import Settings
from .local import INCOMPLETE, LocalCollection
from .names import MANIFEST, read_manifest

logger = logging.getLogger(__name__)

STAMP = "hybrid"


def open_parts(directory: Path) -> LocalCollection:
    """Open the directory of a hybrid that an earlier version wrote."""
    settings = read_manifest(directory)
    places = [_part_directory(directory, number) for number in range(len(settings.models or {}))]
    writable = os.access(directory, os.W_OK)
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(_store(place)) for place in places]
        if all(store.get_setting("retriever") is None for store in stores):
            raise StoreError(f"{directory} holds no documents yet: its first add never ended. Build the index again.")
        for store in stores if writable else ():
            stack.enter_context(store.transaction())  # nobody else writes meanwhile
        if (directory / STORE_FILE).exists():
            raise StoreError(f"another process has just merged the parts of {directory}. Open it again.")
        merged = LocalCollection(settings, None)
        merge(stores, merged)
        if not writable:
            return merged
        with merged:
            merged.backup(directory / STORE_FILE)
    remove_parts(directory, settings)
    logger.info("%s was kept in %d parts and is one index now; older versions cannot open it.", directory, len(places))
    return LocalCollection(settings, directory)


def merge(stores: Sequence[Store], merged: LocalCollection) -> None:
    """Fill an empty collection: documents of the store that is ahead, and of each the vectors that belong to them."""
    stamps = [store.get_setting(STAMP) or {"change": None, "previous": None, "first": 1} for store in stores]
    leader = _leader(stores, stamps)
    with merged.transaction(), stores[leader].snapshot():
        merged.put_documents(stores[leader].rows())
        # Both are in order of insertion.
        numbers = dict(zip(stores[leader].live_seqs().tolist(), merged.live_seqs().tolist(), strict=True))
        for part, store in enumerate(stores):
            behind = stamps[part]["change"] != stamps[leader]["change"]
            same = _same(stores[leader], store, stamps[leader]["first"] if behind else None)
            _copy(store, merged, part, {seq: numbers[there] for seq, there in same.items()})
        merged.set_setting("next_id", stores[leader].get_setting("next_id", 0))
        merged.set_setting("retriever", merged.settings.to_dict())
        merged.set_setting(INCOMPLETE, True)  # until `Retriever` has looked for documents without vectors


def _leader(stores: Sequence[Store], stamps: Sequence[Any]) -> int:
    changes = {stamp["change"] for stamp in stamps}
    if len(changes) == 1:
        return next((n for n, store in enumerate(stores) if store.count()), 0)
    ahead = [n for n, stamp in enumerate(stamps) if changes == {stamp["change"], stamp["previous"]}]
    if not ahead:
        raise StoreError(
            "the parts of this hybrid hold different documents and do not belong together; was one of them put back "
            "from a copy, or changed by itself? Put all of them back, or build the hybrid again."
        )
    return ahead[0]


def _same(leader: Store, store: Store, below: int | None) -> dict[int, int]:
    """Number in a store to number in the leader, of documents that both hold; above `below` the leader's are newer."""
    # By repr: 1, 1.0 and True are three ids, and equal in Python.
    there = {repr(i): seq for seq, i in zip(*_listed(leader), strict=True) if below is None or seq < below}
    return {seq: there[repr(i)] for seq, i in zip(*_listed(store), strict=True) if repr(i) in there}


def _listed(store: Store) -> tuple[list[int], list[Any]]:
    seqs, ids = store.live()
    return seqs.tolist(), ids


def _copy(store: Store, merged: Store, part: int, numbers: dict[int, int]) -> None:
    """Copy the vectors of these documents, and the context that they were made in; not those of passages alone."""
    without = {seq for seq, found in store.spans_of([*numbers]).items() if not found[0].head}
    numbers = {seq: there for seq, there in numbers.items() if seq not in without}
    for seqs, vectors in store.iter_vectors():
        rows = [row for row, seq in enumerate(seqs.tolist()) if seq in numbers]
        merged.put_vectors([numbers[seq] for seq in seqs[rows].tolist()], take(vectors, rows), part)
    digest = store.get_setting("context")
    if digest is not None:
        merged.put_context(digest, *store.get_context(digest))
    merged.set_setting(of_part("context", part), digest)
    if merged.layout_of(part) == store.layout:  # else none is left of what the model had made
        merged.set_setting(of_part("fingerprint", part), store.get_setting("fingerprint"))


def _store(place: Path) -> Store:
    """The store of a part; an empty one where its first add never began."""
    return Store(place / STORE_FILE if (place / STORE_FILE).is_file() else None)


def _part_directory(directory: Path, number: int) -> Path:
    part = directory / f"part-{number}"
    if part.is_symlink():
        raise StoreError(f"{part} is a symbolic link. Move the directory that it leads to here, in its place.")
    return part


def remove_parts(directory: Path, settings: Settings) -> None:
    """Remove what the parts had written, once it is merged; what else lies there stays."""
    for number in range(len(settings.models or {})):
        place = _part_directory(directory, number)
        with contextlib.suppress(OSError):
            for file in place.iterdir():
                if file.name.startswith((STORE_FILE, "writer.lock", "index.")):
                    file.unlink()
            place.rmdir()
    with contextlib.suppress(OSError):  # a directory that can only be read
        (directory / MANIFEST).unlink(missing_ok=True)
