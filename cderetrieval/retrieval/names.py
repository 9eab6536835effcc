"""Names of models, one or several: ``hybrid:A+B``, a list, a dictionary, the directory of a saved hybrid, a JSON file.

``hybrid:cde-minilm+bm25`` fuses by reciprocal rank. Other fusions come from the directory of a saved hybrid, whose
weights may have been tuned, or from a JSON file such as

    {"parts": ["cde-minilm", "bm25"], "fusion": {"method": "weighted", "weights": [0.6, 0.4]}}
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ..context.spec import ContextSpec
from ..errors import ConfigError, InputError, MismatchError, StoreError
from ..files import as_path, read_json
from ..index.manifest import STORE_FILE
from ..models.load import load
from ..models.locate import HYBRID, names_of_parts, short_name
from ..store import Store
from ..types import is_contextual
from .collection import Settings
from .embedder import Embedder, Model, in_context
from .fusion import Fusion

Models = str | Path | Model | Sequence[str | Path | Model] | Mapping[str, str | Path | Model]
MANIFEST, SEAL, FORMAT = "hybrid.json", "sha256", 1


def named_models(models: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Models by name; where no names are given, the names of their models, numbered where they repeat."""
    if isinstance(models, Mapping):
        named = {str(name): model for name, model in models.items()}
        if len(named) < len(models):
            raise InputError(f"two parts have one name: {', '.join(map(repr, models))}. A name is a text.")
    else:
        named = {}
        for model in models:
            name = base = _name(model)
            number = 2
            while name in named:
                name, number = f"{base}-{number}", number + 1
            named[name] = model
    if not named:
        raise InputError("a hybrid has no parts: pass a list of models or names.")
    return named


def _name(model: Any) -> str:
    if isinstance(model, str | Path):
        return short_name(model)
    return "bm25" if getattr(model, "kind", None) == "lexical" else type(model).__name__


@dataclass(frozen=True)
class HybridModel:
    """Models and how their rankings are fused, without documents: what evaluation takes."""

    parts: Mapping[str, Model]
    fusion: Fusion = field(default_factory=Fusion)
    kind: ClassVar[str] = "hybrid"

    def __post_init__(self) -> None:
        self.fusion.vector(len(self.parts))

    @property
    def fingerprint(self) -> str:
        """Digest of the models and the fusion; the names of the parts do not count."""
        values = [[model.fingerprint for model in self.parts.values()], asdict(self.fusion)]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def context_size(self) -> int:
        """Number of context documents of the first contextual part; 0 where there is none."""
        return next((model.context_size for model in self.parts.values() if is_contextual(model)), 0)


AnyModel = Model | HybridModel


def takes_context(model: AnyModel) -> bool:
    """Whether a model, or some part of it, is contextual."""
    if isinstance(model, HybridModel):
        return any(is_contextual(part) for part in model.parts.values())
    return is_contextual(model)


def load_model(name: str | os.PathLike[str], **compute: Any) -> AnyModel:
    """Load a model of any family by name: a hybrid, or whatever :func:`cderetrieval.load` knows and takes."""
    if not is_hybrid(name):
        return load(name, **compute)
    parts, fusion = hybrid_parts(name)
    return HybridModel({part: load(model, **compute) for part, model in parts.items()}, fusion)


def is_hybrid(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a hybrid: ``hybrid:A+B``, a saved hybrid's directory, or a JSON file."""
    text, path = os.fspath(name), as_path(name)
    if text.startswith(HYBRID) or (path / MANIFEST).is_file() or (path.suffix == ".json" and path.is_file()):
        return True
    return (path / STORE_FILE).is_file() and _saved(path).models is not None


def hybrid_parts(name: str | os.PathLike[str]) -> tuple[dict[str, str], Fusion]:
    """Names of the models of a hybrid, by the names of its parts, and how it fuses.

    >>> hybrid_parts("hybrid:cde-minilm+bm25")[0]
    {'cde-minilm': 'cde-minilm', 'bm25': 'bm25'}
    """
    text, path = os.fspath(name), as_path(name)
    if text.startswith(HYBRID):
        return named_models(names_of_parts(text)), Fusion()
    settings = _saved(path) if (path / STORE_FILE).is_file() else read_manifest(path)
    models = settings.models or {}
    for part, model in models.items():
        if model is None:
            raise MismatchError(f"part {part!r} of {path} was built with a model that was given as an object.")
    return {part: str(model) for part, model in models.items()}, settings.fusion or Fusion()


def _saved(directory: Path) -> Settings:
    """What the retriever in a directory remembers about itself."""
    with Store(directory / STORE_FILE) as store:
        return Settings.from_dict(store.get_setting("retriever") or {"model": None})


def read_manifest(path: Path) -> Settings:
    """Read ``hybrid.json``, the file or the one in a directory: written by hand, or by versions before 0.2."""
    file = path / MANIFEST if path.is_dir() or not path.suffix else path
    if not file.is_file():
        raise StoreError(f"{path} holds no hybrid ({MANIFEST} is missing). Build one with Hybrid.save.")
    values = read_json(file)
    try:
        if values.get("format", FORMAT) > FORMAT:
            raise StoreError("it was written by a newer version; upgrade cderetrieval to read it")
        seal = values.pop(SEAL, None)  # what people wrote has none
        if seal not in (None, hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()):
            raise StoreError(f"it does not match its checksum; restore it, or take out {SEAL} if you changed it")
        models = _models(values["parts"])
        settings = Settings.from_dict(
            {
                **dict.fromkeys(("model", "context_size")),
                **dict(values.get("settings", {})),
                "models": models,
                "indexes": dict(values.get("indexes", {})) or None,
                "fusion": dict(values.get("fusion", {})),
            }
        )
        (settings.fusion or Fusion()).vector(len(models))
    except Exception as error:
        raise StoreError(f"{file} is no hybrid of this version: {error}.") from error
    return settings


def _models(values: Any) -> dict[str, str | None]:
    """Parts from a list of model names, or of ``{"name", "model"}``."""
    if not isinstance(values, list):
        raise ValueError("its parts are no list")
    models: dict[str, str | None] = {}
    for value in values:
        name, model = (Path(value).name, value) if isinstance(value, str) else (value["name"], value["model"])
        if name in models or not isinstance(name, str) or not isinstance(model, str | None):
            raise ValueError(f"part {name!r} is no name of its own with the name of a model")
        models[name] = model
    if not models:
        raise ValueError("it has no parts")
    return models


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
