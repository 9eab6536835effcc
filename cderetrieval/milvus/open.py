"""Open a collection on a server: a new one, one to join, or one that must be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..context.context import Context
from ..context.spec import NULL, RANDOM, ContextSpec
from ..errors import ContextError, MismatchError, StoreError
from ..retrieval.collection import Settings
from .collection import MilvusCollection
from .location import parse_location


def join(settings: Settings, spec: ContextSpec) -> MilvusCollection:
    """Open a collection on a server, which is there already or is not."""
    collection = MilvusCollection(settings)
    try:
        stored = collection.get_setting("retriever")
        if stored is None:
            return collection
        for name in ("key", "on"):
            if stored[name] != getattr(settings, name):
                raise MismatchError(
                    f"{collection.settings.index} holds documents with {name}={stored[name]!r}, not "
                    f"{getattr(settings, name)!r}. Open it with Retriever.load, or use another collection."
                )
        _check_context(collection, spec)
        kept = {name: stored[name] for name in ("model", "context_size", "seed")}
        collection.settings = replace(collection.settings, **kept)
        return collection
    except BaseException:
        collection.close()
        raise


def reopen(index: str) -> MilvusCollection:
    """Open a collection that must be there."""
    location = parse_location(index)
    if location.lite and not Path(location.address).exists():  # opening it would make it
        raise StoreError(f"{location} does not exist: there is no {location.address}.")
    collection = MilvusCollection(Settings(None, index=index))
    stored = collection.get_setting("retriever")
    if stored is None:
        try:
            there = ", ".join(collection.names()) or "none"
        finally:
            collection.close()
        raise StoreError(f"{location} does not exist; collections of this package there: {there}.")
    collection.settings = Settings(**{**stored, "index": collection.settings.index})
    return collection


def _check_context(collection: MilvusCollection, spec: ContextSpec) -> None:
    """Refuse a context that is plainly not the one of a collection."""
    digest = collection.get_setting("context")
    if digest is None or spec.is_own:
        return
    found = Context.restore(*collection.get_context(digest))
    same = (
        spec.context == found
        if spec.context is not None
        else spec.source in (NULL, RANDOM) and spec.source == found.source
    )
    if not same:
        raise ContextError(
            f"this collection has a context of its own ({found!r}). Leave out context=, or call "
            "retriever.refresh(context) to embed all of it in another."
        )
