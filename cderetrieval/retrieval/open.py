"""Create or open a collection: in memory, in a directory, or on a server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ..context.spec import CENTRE, OWN, ContextLike, ContextSpec
from ..errors import ConfigError, InputError, MismatchError, ModelError, StoreError
from ..files import as_path, closing_on_error, make_directory, read_json, reading
from ..index.manifest import STORE_FILE
from ..milvus.location import is_location, parse_location
from ..models.document_context import AUTO, DocumentContext, DocumentContextLike
from ..models.locate import refuse_index
from ..passages import Passages, PassagesLike
from ..runtime import Compute
from ..store import Store
from .collection import SERVER_FILE, Collection, Settings
from .embedder import with_statistics
from .fusion import Fusion
from .local import INCOMPLETE, LocalCollection
from .merge import open_parts, remove_parts
from .names import MANIFEST, Models, indexes_of, parse_models
from .rerank import RerankLike


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
    with closing_on_error(collection):
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
    # Milvus Lite keeps a directory of that name too.
    if server is None and is_location(path) and not (file.is_file() or (directory / MANIFEST).is_file()):
        server = os.fspath(path)
    if server is not None:
        from ..milvus.open import reopen as reopen_server

        return reopen_server(server)
    if not file.is_file() and (directory / MANIFEST).is_file():
        try:
            return open_parts(directory)
        except (StoreError, OSError):
            if not file.is_file():  # else another process has merged them meanwhile
                raise
    if not file.is_file():
        raise StoreError(f"{directory} holds no index ({STORE_FILE} is missing). Build one with Retriever.save.")
    collection = LocalCollection(Settings(None), directory)
    with closing_on_error(collection):
        values = collection.get_setting("retriever")
        if values is None:
            raise StoreError(f"{directory} holds no index yet: its first add never ended. Call Retriever(path=...).")
        with reading(file):
            collection.settings = Settings.from_dict(values)
            collection.passages = Passages.stored(collection.get_setting("passages"))
        if collection.get_setting(INCOMPLETE) and (directory / MANIFEST).is_file():  # a merge was cut off
            remove_parts(directory, collection.settings)
    return collection


class Options(TypedDict, total=False):
    """What a new retriever takes beside its model; see :class:`~.retriever.Retriever`."""

    key: str
    on: str | Sequence[str] | None
    context: ContextLike | ContextSpec
    context_size: int | None
    passages: PassagesLike
    document_context: DocumentContextLike
    index: str | Mapping[str, str]
    fusion: str | Fusion | None
    rerank: RerankLike | None
    depth: int
    device: str | None
    dtype: str
    runtime: str
    precision: str
    seed: int


def holds_index(path: str | Path) -> bool:
    """Whether there is an index to open; a store whose first add never ended holds none."""
    directory = as_path(path)
    if any(os.path.exists(directory / name) for name in (SERVER_FILE, MANIFEST)):
        return True
    if not os.path.isfile(directory / STORE_FILE):
        return False
    with Store(directory / STORE_FILE) as store:
        return store.get_setting("retriever") is not None


def asked_models(path: str | Path, model: Models, options: Options) -> Any:
    """The models to open an index with: of those that were asked for, the ones that are not there by the same name."""
    collection = reopen(path)
    try:
        settings = collection.settings
    finally:
        collection.close()
    named, _ = parse_models(model, options.get("fusion"))
    if ContextSpec.parse(options.get("context", OWN)).source == CENTRE:
        named = {name: with_statistics(one) for name, one in named.items()}
    known = settings.models or {"": settings.model}
    if set(named) != set(known):
        shown = ", ".join(name or str(known[name] or "a model given as an object") for name in known)
        raise MismatchError(f"{as_path(path)} was built with {shown}, not {model!r}. Open it with that, or build anew.")
    others = {name: one for name, one in named.items() if not isinstance(one, str | Path) or str(one) != known[name]}
    return (others or None) if settings.models is not None else others.get("")


def check_options(collection: Collection, options: Options) -> None:
    """Refuse options that are not those of an index; its context may have been refreshed, and is not compared."""
    settings = collection.settings
    asked: dict[str, Any] = {**options}
    made: dict[str, Any] = {name: getattr(settings, name) for name in ("key", "on", "context_size", "seed", "fusion")}
    made |= {"index": settings.index, "passages": collection.passages.how}
    made["precision"] = settings.precision or Compute.precision
    if isinstance(asked.get("on"), str):
        asked["on"] = [asked["on"]]
    if settings.models is not None:
        made["index"] = settings.indexes
        asked |= {"index": indexes_of(options["index"], settings.models)} if "index" in options else {}
        if isinstance(fusion := asked.get("fusion"), str | None) and settings.fusion is not None:
            asked["fusion"] = settings.fusion if fusion in (None, settings.fusion.method) else fusion
    if "passages" in asked:
        asked["passages"] = Passages.parse(options["passages"]).how
    document = DocumentContext.parse(options.get("document_context", AUTO))
    kept = collection.get_setting("document")
    if isinstance(document, DocumentContext) and kept is not None:
        made["document_context"], asked["document_context"] = kept, document.to_dict()
    for name, value in made.items():
        given = list(asked[name]) if name == "on" and asked.get(name) else asked.get(name)
        if name in asked and given != value:
            raise MismatchError(
                f"this index was made with {name}={value!r}, not {given!r}. Leave it out, or build a new index."
            )


def save(collection: Collection, path: str | Path, overwrite: bool = False) -> None:
    """Write an index into a directory; of a collection on a server, where it is."""
    target = as_path(path)
    own = collection.directory is not None and target.resolve() == collection.directory.resolve()
    there = [name for name in (STORE_FILE, SERVER_FILE, MANIFEST) if os.path.exists(target / name)]
    if not own and there and not (overwrite and there == [STORE_FILE]):
        hint = "Remove it first" if overwrite else "Choose another directory, or pass overwrite=True"
        raise StoreError(f"{target} holds an index already. {hint}.")
    collection.save(target)


def _taken(directory: Path) -> StoreError:
    return StoreError(f"{directory} holds an index already. Open it with Retriever.open({str(directory)!r}).")
