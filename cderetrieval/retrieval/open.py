"""Create or open a collection: in memory, in a directory, or on a server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..context.spec import ContextSpec
from ..errors import ConfigError, InputError, ModelError, StoreError
from ..files import as_path, make_directory, read_json, reading
from ..index.manifest import STORE_FILE
from ..milvus.location import is_location, parse_location
from ..models.locate import refuse_index
from ..passages import Passages
from .collection import SERVER_FILE, Collection, Settings
from .local import INCOMPLETE, LocalCollection
from .merge import open_parts, remove_parts
from .names import MANIFEST


def create(settings: Settings, path: str | Path | None, context: ContextSpec) -> Collection:
    """Open the collection of a new retriever; one on a server may be there already, and is then joined."""
    _check_models(settings)
    if isinstance(settings.index, str | os.PathLike) and is_location(settings.index):
        if path is not None:
            raise ConfigError("with index= on a server nothing is kept here: leave out path=.")
        from ..milvus.open import join

        return join(settings, context)
    if path is None:
        return LocalCollection(settings, None)
    directory = make_directory(as_path(path))
    if os.path.exists(directory / SERVER_FILE) or os.path.exists(directory / MANIFEST):
        raise _taken(directory)
    collection = LocalCollection(settings, directory)
    with _closing_on_error(collection):
        # A store without settings is one whose first add was never finished.
        if collection.get_setting("retriever") is not None:
            raise _taken(directory)
    return collection


def _check_models(settings: Settings) -> None:
    """Refuse the place of an index in the place of a model, and what no index is called."""
    for name in (settings.models or {"": settings.model}).values():
        if name is not None and is_location(name):
            raise ModelError(f"{parse_location(name)} is an index, not a model: open it with Retriever.load.")
        if name is not None:
            refuse_index(as_path(name))
    for index in (settings.indexes or {"": settings.index}).values():
        if index == "auto":
            continue
        if not (isinstance(index, str | os.PathLike) and is_location(index)):
            from ..index.kinds import check_factory  # loads faiss

            check_factory(index)
        elif settings.models is not None:
            raise InputError("several models are kept together on one machine: index= cannot be on a server.")


def reopen(path: str | Path) -> Collection:
    """Open what `Retriever.save` wrote, what a retriever lives in, or a collection on a server."""
    directory = as_path(path)
    file = directory / STORE_FILE
    with reading(directory / SERVER_FILE):
        server = str(read_json(directory / SERVER_FILE)["index"]) if (directory / SERVER_FILE).is_file() else None
    if server is not None:
        return _reopen_server(server)
    if not file.is_file() and (directory / MANIFEST).is_file():
        try:
            return open_parts(directory)
        except (StoreError, OSError):
            if not file.is_file():  # else another process has merged them meanwhile
                raise
    if not file.is_file():
        if is_location(path):
            return _reopen_server(os.fspath(path))
        raise StoreError(f"{directory} holds no index ({STORE_FILE} is missing). Build one with Retriever.save.")
    collection = LocalCollection(Settings(None), directory)
    with _closing_on_error(collection):
        values = collection.get_setting("retriever")
        if values is None:
            raise StoreError(f"{directory} holds no index yet: its first add never ended. Call Retriever(path=...).")
        with reading(file):
            collection.settings = Settings.from_dict(values)
            collection.passages = Passages.stored(collection.get_setting("passages"))
        if collection.get_setting(INCOMPLETE) and (directory / MANIFEST).is_file():  # a merge was cut off
            remove_parts(directory, collection.settings)
    return collection


def _reopen_server(index: str) -> Collection:
    from ..milvus.open import reopen

    return reopen(index)


def save(collection: Collection, path: str | Path) -> None:
    """Write an index into a directory; of a collection on a server, where it is."""
    target = as_path(path)
    own = collection.directory is not None and target.resolve() == collection.directory.resolve()
    if not own and any(os.path.exists(target / name) for name in (STORE_FILE, SERVER_FILE, MANIFEST)):
        raise StoreError(f"{target} holds an index already. Choose another directory, or remove it first.")
    collection.save(target)


@contextlib.contextmanager
def _closing_on_error(collection: LocalCollection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        collection.close()
        raise


def _taken(directory: Path) -> StoreError:
    return StoreError(f"{directory} holds an index already. Open it with Retriever.load({str(directory)!r}).")
