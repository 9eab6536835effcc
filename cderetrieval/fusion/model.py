"""A hybrid as a model: which parts, fused how, and no documents yet; what evaluation and the command line take.

``hybrid:cde-minilm+bm25`` names one by its parts, fused by reciprocal rank. Any other fusion comes from a file: the
directory of a saved hybrid, whose weights were tuned, or a JSON file such as

    {"parts": ["cde-minilm", "bm25"], "fusion": {"method": "weighted", "weights": [0.6, 0.4]}}
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..embedding import Model, is_contextual
from ..errors import ConfigError, StoreError
from ..files import as_path
from ..index.milvus.location import is_location
from ..models.load import load
from ..models.locate import HYBRID, names_of_parts
from ..retriever import Retriever
from .hybrid import Hybrid
from .manifest import MANIFEST, Manifest
from .parts import named_parts
from .scores import Fusion


@dataclass(frozen=True)
class HybridModel:
    """Models and how their rankings are fused.

    Attributes
    ----------
    parts
        Name to model.
    fusion
        How.

    Examples
    --------
    >>> from cderetrieval.testing import HashEncoder
    >>> model = HybridModel({"a": HashEncoder("a"), "b": HashEncoder("b")})
    >>> model.kind, takes_context(model), len(model.fingerprint)
    ('hybrid', False, 64)
    """

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

    def retriever(self, **options: Any) -> Hybrid:
        """An empty hybrid; `options` as for :class:`~.hybrid.Hybrid`."""
        return Hybrid(self.parts, fusion=self.fusion, **options)


AnyModel = Model | HybridModel


def takes_context(model: AnyModel) -> bool:
    """Whether a model, or some part of it, is contextual."""
    if isinstance(model, HybridModel):
        return any(is_contextual(part) for part in model.parts.values())
    return is_contextual(model)


def is_hybrid(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a hybrid: ``hybrid:A+B``, a saved hybrid's directory, or a JSON file."""
    text = os.fspath(name)
    path = as_path(text)
    return text.startswith(HYBRID) or (path / MANIFEST).is_file() or (path.suffix == ".json" and path.is_file())


def hybrid_parts(name: str | os.PathLike[str]) -> tuple[dict[str, str], Fusion]:
    """Names of the models of a hybrid, by the names of its parts, and how it fuses.

    Raises
    ------
    ModelError
        If a part is not named.
    StoreError
        If the file of a hybrid is damaged.
    MismatchError
        If a part was built with a model that has no name.

    Examples
    --------
    >>> hybrid_parts("hybrid:cde-minilm+bm25")[0]
    {'cde-minilm': 'cde-minilm', 'bm25': 'bm25'}
    """
    text = os.fspath(name)
    if not text.startswith(HYBRID):
        manifest = Manifest.read(as_path(text))
        return {part: str(model) for part, model in manifest.models({}).items()}, manifest.fusion
    return {part: str(model) for part, model in named_parts(names_of_parts(text)).items()}, Fusion()


def load_model(name: str | os.PathLike[str], *, device: str | None = None, dtype: str = "auto") -> AnyModel:
    """Load a model of any family by name: a hybrid, or whatever :func:`cderetrieval.load` knows.

    Raises
    ------
    ModelError
        If a part is not named, or cannot be loaded.
    StoreError
        If the file of a hybrid is damaged.
    """
    if not is_hybrid(name):
        return load(name, device=device, dtype=dtype)
    parts, fusion = hybrid_parts(name)
    return HybridModel({part: load(model, device=device, dtype=dtype) for part, model in parts.items()}, fusion)


def create_index(model: str, path: Path | None, **options: Any) -> Retriever | Hybrid:
    """An empty index for a model of any family, by name: in a directory, or, by ``index=``, on a server.

    `options` are as for a retriever.

    Raises
    ------
    StoreError
        If the directory holds an index.
    """
    if not is_hybrid(model):
        if path is not None and (path / MANIFEST).exists():
            raise StoreError(f"{path} holds an index already, a hybrid. Choose another directory.")
        return Retriever(model, path=path, **options)
    parts, fusion = hybrid_parts(model)
    return Hybrid(parts, fusion=fusion, path=path, **options)


def open_index(
    path: str | os.PathLike[str], *, model: str | None = None, device: str | None = None
) -> Retriever | Hybrid:
    """Open a directory that holds an index, a hybrid's or any other, or a collection on a server.

    Parameters
    ----------
    path
        The directory, or where the collection is.
    model
        Where the model of the index has moved; of a hybrid ``PART=MODEL``.
    device
        Where models compute.

    Raises
    ------
    ConfigError
        If the part of a hybrid is not named.
    StoreError
        If the directory holds no index.
    """
    if not (as_path(path) / MANIFEST).is_file():
        return Retriever.load(os.fspath(path) if is_location(path) else as_path(path), model=model, device=device)
    models: dict[str, Model] = {}
    if model is not None:
        part, separator, moved = model.partition("=")
        if not separator:
            raise ConfigError(f"model {model!r}: {path} is a hybrid; say which part's model has moved, as PART=MODEL.")
        models[part] = load(moved, device=device)
    return Hybrid.load(as_path(path), models=models, device=device)
