"""A collection on a Milvus server as a retriever sees it: :class:`~.store.ServerStore` and its view in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..context.context import Context
from ..context.spec import NULL, RANDOM, ContextSpec
from ..errors import ContextError, MismatchError, StoreError
from ..files import PRIVATE, make_directory, write_json
from ..index.milvus.location import parse_location
from ..retrieval.collection import SERVER_FILE, Collection, Settings
from ..types import Encoder
from ..vectors import Layout
from .store import ServerStore
from .view import ServerView

T = TypeVar("T")


class MilvusCollection(ServerStore, Collection):
    """Documents, vectors, contexts and settings of one retriever, on a server."""

    def __init__(self, settings: Settings) -> None:
        location = parse_location(settings.index)
        super().__init__(location, settings.on)
        self.settings = replace(settings, index=str(location))
        self._view = ServerView(self)

    def layout_of(self, part: int) -> Layout | None:
        """Kind and dimension of the vectors."""
        return self.layout

    def pending(self, chunk: int, after_seq: int = 0, part: int = 0) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers and texts of documents to embed."""
        return super().pending(chunk, after_seq)

    def put_vectors(self, seqs: Any, vectors: Any, part: int = 0) -> None:
        """Take vectors of documents that :meth:`pending` gave."""
        super().put_vectors(seqs, vectors)

    def clear_vectors(self, part: int = 0) -> None:
        """Make all vectors anew."""
        super().clear_vectors()

    def iter_vectors(  # type: ignore[override]
        self, after_seq: int = 0, chunk: int = 0, part: int = 0
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Numbers and vectors."""
        return super().iter_vectors(chunk)

    def check_encoder(self, encoder: Encoder, part: int = 0) -> None:
        """Refuse an encoder whose vectors Milvus cannot hold."""
        self._view.check(encoder)

    def check_filled(self) -> None:
        """Refuse to search where there is no collection yet."""
        self._view.check_filled()

    def reading(self, call: Callable[[], T]) -> T:
        """What `call` returns; called again where the collection was replaced meanwhile."""
        return super().reading(call)

    def search(
        self,
        queries: Any,
        k: int,
        part: int = 0,
        *,
        filter: Mapping[str, Any] | None = None,
        documents: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """Nearest documents of each query vector."""
        return self._view.answer(queries, k, documents=documents, filter=filter)

    def save(self, path: Path) -> None:
        """Write down in a directory where the collection is."""
        self.reading(self.check_filled)
        write_json(make_directory(path) / SERVER_FILE, {"index": self.settings.index}, mode=PRIVATE)


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
