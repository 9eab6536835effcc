"""The models that a retriever is made with or opened with: what users give, as embedders and settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..context.spec import ContextSpec
from ..errors import ConfigError, InputError, MismatchError
from .collection import Settings
from .embedder import Embedder, Model, in_context
from .fusion import Fusion
from .names import hybrid_parts, is_hybrid, named_models

Models = str | Path | Model | Sequence[str | Path | Model] | Mapping[str, str | Path | Model]


def begin(
    model: Any, fusion: str | Fusion | None, spec: ContextSpec, settings: Settings, **compute: Any
) -> tuple[Settings, list[Embedder]]:
    """The embedders of a new retriever, and what it has to remember of them; `settings` say the rest."""
    named, fusion = parse_models(model, fusion)
    options = options_of(settings, **compute)
    if settings.precision is not None and not all(isinstance(one, str | Path) for one in named.values()):
        raise ConfigError("precision= is for models that are named: load the others with load(..., precision=).")
    if fusion is None:
        embedder = Embedder(named[""], spec, **options)
        return replace(settings, model=embedder.name), [embedder]
    embedders = in_context([Embedder(one, ContextSpec(), **options) for one in named.values()], spec)
    names = {name: embedder.name for name, embedder in zip(named, embedders, strict=True)}
    indexes = indexes_of(settings.index, names)
    return replace(settings, index="auto", models=names, indexes=indexes, fusion=fusion), embedders


def options_of(settings: Settings, **compute: Any) -> dict[str, Any]:
    """What the embedders of a retriever are told."""
    kept = {"context_size": settings.context_size, "seed": settings.seed, "precision": settings.precision}
    return {**kept, **compute}


def parse_models(model: Any, fusion: str | Fusion | None) -> tuple[dict[str, Any], Fusion | None]:
    """Models by name, and how they are fused; one model has no name and no fusion."""
    if isinstance(model, str | Path) and is_hybrid(model):
        model, found = hybrid_parts(model)
        fusion = found if fusion is None else fusion
    elif not isinstance(model, Sequence | Mapping) or isinstance(model, str):
        if fusion is not None:
            raise InputError("fusion= is for several models: pass a list of them, or 'hybrid:A+B'.")
        return {"": model}, None
    named = named_models(model)
    fusion = fusion if isinstance(fusion, Fusion) else Fusion(fusion or "rrf")
    fusion.vector(len(named))
    return named, fusion


def indexes_of(index: str | Mapping[str, str], names: Mapping[str, Any]) -> dict[str, str] | None:
    """The index of each model, where that is not ``"auto"``."""
    indexes = dict(index) if isinstance(index, Mapping) else dict.fromkeys(names, index)
    check_names(indexes, names, "index=")
    return {name: one for name, one in indexes.items() if one != "auto"} or None


def check_names(given: Iterable[str], names: Iterable[str], where: str) -> None:
    """Refuse names that are not those of the models of this index."""
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(f"{where} names part {unknown[0]!r}; the parts are {', '.join(map(repr, names))}.")


def moved_models(settings: Settings, model: Any) -> dict[str, Any]:
    """The models of an index, by name: those given now, else what the index says."""
    if settings.models is None:
        return {"": model or settings.model}
    if isinstance(model, str) and "=" in model:  # as on the command line
        model = dict([model.split("=", 1)])
    if model is not None and not isinstance(model, Mapping):
        raise ConfigError(f"model {str(model)!r}: this is a hybrid; say which part's model has moved, as PART=MODEL.")
    models = dict(model or {})
    unknown = [name for name in models if name not in settings.models]
    if unknown:
        raise MismatchError(f"there is no part {unknown[0]!r}; there are {', '.join(map(repr, settings.models))}.")
    found = {**settings.models, **models}
    missing = [name for name, one in found.items() if one is None]
    if missing:
        raise MismatchError(
            f"part {missing[0]!r} was built with a model that was given as an object. Open it with "
            f"load(path, model={{{missing[0]!r}: that_model}})."
        )
    return found
