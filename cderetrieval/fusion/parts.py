"""What users give as the parts of a hybrid, named and checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..embedding import ContextSpec, Model, is_contextual
from ..errors import ContextError, InputError, StoreError
from ..models.locate import short_name
from ..retriever import Retriever
from ..store import Store
from .manifest import Manifest, begun, part_directory
from .scores import Fusion
from .together import follow, id_names

Part = str | Path | Model | Retriever


def named_parts(parts: Sequence[Part] | Mapping[str, Part]) -> dict[str, Part]:
    """Parts by name; where no names are given, the names of their models, numbered where they repeat.

    Raises
    ------
    InputError
        If there is no part.

    Examples
    --------
    >>> list(named_parts(["org/minilm", "bm25", "bm25"]))
    ['minilm', 'bm25', 'bm25-2']
    """
    if isinstance(parts, str | Path | Retriever) or not isinstance(parts, Iterable):
        raise InputError(f"parts is {type(parts).__name__}; pass a list of models, names or retrievers.")
    if isinstance(parts, Mapping):
        named = {str(name): part for name, part in parts.items()}
    else:
        named = {}
        for part in parts:
            name = base = _name(part)
            number = 2
            while name in named:
                name, number = f"{base}-{number}", number + 1
            named[name] = part
    if not named:
        raise InputError("a hybrid has no parts: pass a list of models, names or retrievers.")
    return named


def _name(part: Part) -> str:
    if isinstance(part, Retriever):
        return Path(part._embedder.name).name
    if isinstance(part, str | Path):
        return short_name(part)
    return "bm25" if getattr(part, "kind", None) == "lexical" else type(part).__name__


def make_parts(named: Mapping[str, Part], directory: Path | None, **options: Any) -> dict[str, Retriever]:
    """Retrievers for all parts; those that are retrievers already stay where they are.

    Parameters
    ----------
    named
        Parts by name.
    directory
        Where new ones keep their documents; None: in memory.
    options
        Of new retrievers; `key` and `on` are, where None, those of the first part that is a retriever.

    Raises
    ------
    InputError
        If two retrievers differ in `key` or `on`, one is given together with a directory or lives on a server, or
        `index` names no part.
    """
    index = options.pop("index")
    indexes = dict(index) if isinstance(index, Mapping) else dict.fromkeys(named, index)
    unknown = [name for name in indexes if name not in named]
    if unknown:
        raise InputError(f"index= names part {unknown[0]!r}; the parts are {', '.join(map(repr, named))}.")
    given = [part for part in named.values() if isinstance(part, Retriever)]
    if given and directory is not None:
        raise InputError("parts given as retrievers stay where they are: leave out path=, and call save(path).")
    for field, default in (("key", "id"), ("on", None)):
        if options[field] is None:
            options[field] = getattr(given[0]._settings, field) if given else default
    retrievers = {}
    for number, (name, part) in enumerate(named.items()):
        place = None if directory is None else part_directory(directory, number)
        options["index"] = indexes.get(name, "auto")
        retrievers[name] = part if isinstance(part, Retriever) else Retriever(part, path=place, **options)
        if not isinstance(retrievers[name]._store, Store):
            raise InputError(f"part {name!r} lives on a server; a hybrid changes its parts together, on one machine.")
    _check_fields(retrievers)
    return retrievers


def open_parts(
    directory: Path, manifest: Manifest, models: Mapping[str, Model], **options: Any
) -> dict[str, Retriever]:
    """The parts that lie in a directory.

    Parameters
    ----------
    directory, manifest
        Of the hybrid.
    models
        Part name to model, where one was given as an object or has moved.
    options
        Device and number format.

    Raises
    ------
    StoreError
        If no part has ever finished an add.
    """
    places = [part_directory(directory, number) for number in range(len(manifest.parts))]
    finished = [begun(place) for place in places]
    if not any(finished):
        raise StoreError(f"{directory} holds no documents yet: its first add never ended. Call Hybrid(..., path=...).")
    retrievers = {}
    with contextlib.ExitStack() as opened:
        for (name, model), place, has_documents in zip(manifest.models(models).items(), places, finished, strict=True):
            if has_documents:
                retrievers[name] = Retriever.load(place, model=models.get(name), **options)
            else:
                # Killed in its first add, after another part had committed: it will follow that one.
                index = manifest.indexes.get(name, "auto")
                retrievers[name] = Retriever(model, path=place, index=index, **options, **manifest.settings)
            opened.callback(retrievers[name].close)
        opened.pop_all()  # none is closed where all are open
    return retrievers


def manifest_of(retrievers: Mapping[str, Retriever], fusion: Fusion) -> Manifest:
    """What a hybrid of these parts remembers about itself."""
    first = next(iter(retrievers.values()))._settings
    settings = {name: getattr(first, name) for name in ("key", "on", "context_size", "seed")}
    models = {name: part._settings.model for name, part in retrievers.items()}
    indexes = {name: part._settings.index for name, part in retrievers.items() if part._settings.index != "auto"}
    return Manifest(models, fusion, settings, indexes)


def _check_fields(retrievers: Mapping[str, Retriever]) -> None:
    """Refuse parts that read documents differently."""
    first, *others = retrievers
    for name in others:
        for field in ("key", "on"):
            values = [getattr(retrievers[part]._settings, field) for part in (first, name)]
            if values[0] != values[1]:
                raise InputError(
                    f"parts {first!r} and {name!r} read documents differently: {field} is {values[0]!r} and "
                    f"{values[1]!r}. Make them with the same key and on."
                )


def fill(retrievers: Mapping[str, Retriever]) -> None:
    """Give the documents of the first part that has some to those that have none.

    Raises
    ------
    InputError
        If two hold different documents; the message names one.
    """
    full = {name: part for name, part in retrievers.items() if len(part)}
    if not full:
        return
    first, *others = full
    known = id_names(full[first])
    for name in others:
        different = known ^ id_names(full[name])
        if different:
            raise InputError(
                f"parts {first!r} and {name!r} hold different documents: {len(different)} ids are in one only, the "
                f"first is {min(different)}. Give parts with the same documents, or with none: those are filled."
            )
    for part in retrievers.values():
        if not len(part):
            follow(part, full[first])


def give_context(parts: Iterable[Retriever], context: ContextSpec) -> None:
    """Tell contextual parts what their context is to be; the others take none.

    Raises
    ------
    ContextError
        If there is no contextual part.
    """
    if isinstance(context, str) and context == "own":
        return
    if isinstance(context, str) and context == "centre":
        raise ContextError(
            "context='centre' makes another model of a dense one: name that part 'centre:MODEL' instead."
        )
    contextual = [part for part in parts if is_contextual(part._embedder.model)]
    if not contextual:
        raise ContextError("context= was given, but no part of this hybrid is contextual. Leave it out.")
    for part in contextual:
        part._embedder.forget(context)
