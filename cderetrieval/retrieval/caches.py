"""The index files of a collection on this machine: where they are, when they are read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..files import writing
from ..index import manifest
from ..index.base import Index
from ..index.engine import new_index, usable
from ..store import Store
from ..store.schema import damaged
from ..store.snapshots import of_part
from .embedder import LEXICAL

# The collection, which imports this module.
Local = Any

CACHE_SETTING = "index_cache"


def folder_of(part: int, directory: Path) -> Path:
    """Where the index of a model is saved: the first beside the store, others in a folder of their own."""
    place = directory / f"index-{part}" if part else directory
    if part and place.is_symlink():
        raise StoreError(f"{place} is a symbolic link. Remove it; the index is made again.")
    return place


def open_index(collection: Local, part: int, epoch: int, directory: Path | None) -> Index:
    """The index that was saved in a directory, where it fits the store, else an empty one."""
    layout = collection.layout_of(part)
    fingerprint, digest = (collection.get_setting(of_part(key, part)) for key in ("fingerprint", CACHE_SETTING))
    model: Any = collection.word_model(part) if layout is None else None
    if layout is not None:
        index = new_index(layout, usable(layout, collection.settings.factory(part)))
    elif model.kind == LEXICAL:
        index = new_index(None, words=model)
    else:
        raise damaged(collection.path, f"it holds no vectors of {type(model).__name__}")
    if directory is not None:
        place = folder_of(part, directory)
        manifest.load(index, place, epoch=epoch, fingerprint=fingerprint, digest=digest)
    return index


def save_indexes(collection: Local, directory: Path, store: Store) -> None:
    """Write all indexes into a directory; the store that lies there, the collection or a copy, learns their digests."""
    if collection.count() == 0:
        return
    digests = {}
    with collection.committed():
        for part in range(len(collection.settings.models or [None])):
            synced = collection.synced(part)
            fingerprint, place = collection.get_setting(of_part("fingerprint", part)), folder_of(part, directory)
            with writing(place):
                place.mkdir(exist_ok=True)
                digests[part] = manifest.save(
                    synced.index, place, epoch=synced.epoch, generation=synced.generation, fingerprint=fingerprint
                )
    with store.transaction():
        for part, digest in digests.items():
            store.set_setting(of_part(CACHE_SETTING, part), digest)
