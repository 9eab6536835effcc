"""Where the truth of a retriever lives: in a store on this machine, or in a collection on a server.

On one machine, documents, vectors and contexts are in one SQLite file, and the index is a cache made from it
(:class:`~cderetrieval.store.Store`, :class:`~cderetrieval.view.IndexView`). A corpus that outgrows one machine has no
machine to keep such a file on, so there the server holds all of it, and nothing of a collection stays here
(:class:`~cderetrieval.server.ServerStore`, :class:`~cderetrieval.server.ServerView`). `index=` says which; a retriever
asks both the same questions, those of the two protocols below.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np

from .context.context import Context
from .embedding import ContextSpec, Settings
from .errors import ConfigError, ContextError, MismatchError, ModelError, StoreError
from .files import PRIVATE, as_path, make_directory, read_json, reading, write_json
from .index.manifest import STORE_FILE as STORE_FILE
from .index.milvus.location import is_location, parse_location
from .models.locate import refuse_index
from .store import Store
from .store.documents import Row
from .types import Encoder, Vectors
from .vectors import Layout
from .view import IndexView

if TYPE_CHECKING:
    from .server import ServerStore

T = TypeVar("T")

# In a directory that was saved from a collection on a server: where that is.
SERVER_FILE = "server.json"


class Backend(Protocol):
    """Documents, vectors, contexts and settings: what a retriever asks of a store."""

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """A change: all of it when the block ends, or, after an error in the block, none."""

    def get_setting(self, key: str, default: Any = None) -> Any:
        """The value of a setting: ``retriever``, ``fingerprint``, ``context``, ``next_id``."""

    def set_setting(self, key: str, value: Any) -> None:
        """Set a value."""

    def get_context(self, digest: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A context's description and arrays."""

    def put_context(self, digest: str, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Keep a context."""

    def put_documents(self, rows: Iterable[Row]) -> tuple[int, int]:
        """Take documents; their first number, and how many there are."""

    def pending(self, chunk: int, after_seq: int = 0) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers and texts of documents that lack a vector."""

    def put_vectors(self, seqs: Sequence[int] | np.ndarray, vectors: Vectors) -> None:
        """Take vectors of documents that :meth:`pending` gave."""

    def clear_vectors(self) -> None:
        """Make all vectors anew: every document is pending."""

    def rows(self) -> Iterator[Row]:
        """Id, text and payload of each document."""

    def texts(self) -> Iterator[tuple[int, str]]:
        """A number and the text of each document."""

    def count(self) -> int:
        """Number of documents."""

    def missing(self, ids: Sequence[Hashable]) -> list[Hashable]:
        """Those of the ids that are not there."""

    def remove(self, ids: Iterable[Hashable]) -> Any:
        """Remove documents."""

    def close(self) -> None:
        """Give up what is held open."""

    @property
    def layout(self) -> Layout | None:
        """Kind and dimension of the vectors."""

    @property
    def is_writer(self) -> bool:
        """Whether this object has changed anything."""


class View(Protocol):
    """What a retriever asks of an index."""

    def check(self, encoder: Encoder) -> None:
        """Refuse an encoder whose vectors the index cannot hold."""

    def check_filled(self) -> None:
        """Refuse to search where there are no documents."""

    def reading(self, call: Callable[[], T]) -> T:
        """What `call` returns, all of its reads from one state."""

    def answer(
        self, queries: Any, k: int, *, documents: bool = False, filter: Mapping[str, Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        """Nearest documents of each query."""


class Opened(NamedTuple):
    """A store that was opened; `directory` is where it lies, `on_server` whether it is a collection on a server.

    A collection on a server is a `ServerStore`: it offers what :class:`Backend` lists, and no more of a `Store`.
    """

    store: Store
    settings: Settings
    directory: Path | None
    on_server: bool = False


def create(settings: Settings, path: str | Path | None, context: ContextSpec) -> Opened:
    """Open the store of a new retriever; a collection on a server may be there already, and is then joined.

    Raises
    ------
    StoreError
        If the directory holds an index already.
    MismatchError
        If the collection holds documents of another key or other fields.
    ContextError
        If it stands in another context.
    """
    if settings.model is not None:
        _check_model_name(settings.model)
    if isinstance(settings.index, str | os.PathLike) and is_location(settings.index):
        if path is not None:
            raise ConfigError("with index= on a server nothing is kept here: leave out path=.")
        return _join(settings, context)
    if settings.index != "auto":
        from .index.kinds import check_factory

        check_factory(settings.index)
    if path is None:
        return Opened(Store(), settings, None)
    directory = make_directory(as_path(path))
    if os.path.exists(directory / SERVER_FILE):
        raise _taken(directory)
    store = Store(directory / STORE_FILE)
    with _closing_on_error(store):
        # A store without settings is one whose first add was never finished.
        if store.get_setting("retriever") is not None:
            raise _taken(directory)
    return Opened(store, settings, directory)


def _check_model_name(name: str) -> None:
    """Refuse the place of an index in the place of a model; whether there is such a model shows when it is loaded."""
    if is_location(name):
        raise ModelError(f"{parse_location(name)} is an index, not a model: open it with Retriever.load.")
    refuse_index(as_path(name))


def reopen(path: str | Path) -> Opened:
    """Open what `Retriever.save` wrote, what a retriever lives in, or a collection on a server.

    Raises
    ------
    StoreError
        If there is nothing, or it is damaged.
    """
    directory = as_path(path)
    with reading(directory / SERVER_FILE):
        server = str(read_json(directory / SERVER_FILE)["index"]) if (directory / SERVER_FILE).is_file() else None
    if server is not None:
        return _reopen_server(server)
    if not (directory / STORE_FILE).is_file():
        if is_location(path):
            return _reopen_server(os.fspath(path))
        raise StoreError(f"{directory} holds no index ({STORE_FILE} is missing). Build one with Retriever.save.")
    store = Store(directory / STORE_FILE)
    with _closing_on_error(store):
        values = store.get_setting("retriever")
        if values is None:
            raise StoreError(f"{directory} holds no index yet: its first add never ended. Call Retriever(path=...).")
        with reading(directory / STORE_FILE):
            settings = Settings(**values)
    return Opened(store, settings, directory)


def view_of(opened: Opened, encoder: Callable[[], Encoder]) -> IndexView:
    """The view of a store."""
    if opened.on_server:
        from .server import ServerView

        return cast(IndexView, ServerView(cast("ServerStore", opened.store)))
    return IndexView(opened.store, opened.settings.index, opened.directory, encoder)


def save(opened: Opened, view: IndexView, path: str | Path) -> None:
    """Write an index into a directory; of a collection on a server, where it is."""
    target, directory, store = as_path(path), opened.directory, opened.store
    if directory is not None and target.resolve() == directory.resolve():
        with store.transaction():  # nobody else writes the cache meanwhile
            view.save(target, store)
        return
    if os.path.exists(target / STORE_FILE) or os.path.exists(target / SERVER_FILE):
        raise StoreError(f"{target} holds an index already. Choose another directory, or remove it first.")
    view.reading(view.check_filled)
    make_directory(target)
    if opened.on_server:
        write_json(target / SERVER_FILE, {"index": opened.settings.index}, mode=PRIVATE)
        return
    store.backup(target / STORE_FILE)
    with Store(target / STORE_FILE) as copy, copy.transaction():
        view.save(target, copy)


@contextlib.contextmanager
def _closing_on_error(store: Store) -> Iterator[None]:
    try:
        yield
    except BaseException:
        store.close()
        raise


def _taken(directory: Path) -> StoreError:
    return StoreError(f"{directory} holds an index already. Open it with Retriever.load({str(directory)!r}).")


def _connect(index: str, settings: Settings) -> Opened:
    from .server import ServerStore

    location = parse_location(index)
    store = cast(Store, ServerStore(location, settings.on))
    return Opened(store, replace(settings, index=str(location)), None, on_server=True)


def _join(settings: Settings, context: ContextSpec) -> Opened:
    """Open a collection on a server, which is there already or is not."""
    opened = _connect(settings.index, settings)
    try:
        stored = opened.store.get_setting("retriever")
        if stored is None:
            return opened
        given = asdict(opened.settings)
        for name in ("key", "on"):
            if stored[name] != given[name]:
                raise MismatchError(
                    f"{opened.settings.index} holds documents with {name}={stored[name]!r}, not {given[name]!r}. Open "
                    "it with Retriever.load, or use another collection."
                )
        _check_context(opened.store, context)
        return opened._replace(settings=replace(opened.settings, **_kept(stored)))
    except BaseException:
        opened.store.close()
        raise


def _reopen_server(index: str) -> Opened:
    location = parse_location(index)
    if location.lite and not Path(location.address).exists():  # opening it would make it
        raise StoreError(f"{location} does not exist: there is no {location.address}.")
    opened = _connect(index, Settings(None))
    stored = opened.store.get_setting("retriever")
    if stored is None:
        try:
            there = ", ".join(cast("ServerStore", opened.store).names()) or "none"
        finally:
            opened.store.close()
        raise StoreError(f"{opened.settings.index} does not exist; collections of this package there: {there}.")
    settings = Settings(**{**stored, "index": opened.settings.index})
    return opened._replace(settings=settings)


def _kept(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What a collection was begun with and stays."""
    return {name: stored[name] for name in ("model", "context_size", "seed")}


def _check_context(store: Store, spec: ContextSpec) -> None:
    """Refuse a context that is plainly not the one in which a collection stands."""
    digest = store.get_setting("context")
    if digest is None or (isinstance(spec, str) and spec == "own"):
        return
    found = Context.restore(*store.get_context(digest))
    sources: dict[Any, str] = {None: "null", "random": "random"}
    if isinstance(spec, Context):
        same = spec == found
    else:
        same = (spec is None or isinstance(spec, str)) and sources.get(spec) == found.source
    if not same:
        raise ContextError(
            f"this collection stands in a context of its own ({found!r}). Leave out context=, or call "
            "retriever.refresh(context) to embed all of it in another."
        )
