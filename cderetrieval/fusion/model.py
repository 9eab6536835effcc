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
from ..errors import ModelError
from ..models.hub import load
from .hybrid import Hybrid
from .manifest import MANIFEST, Manifest
from .parts import named_parts
from .scores import Fusion

PREFIX = "hybrid:"


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
    path = Path(text)
    return text.startswith(PREFIX) or (path / MANIFEST).is_file() or (path.suffix == ".json" and path.is_file())


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
    text = os.fspath(name)
    if text.startswith(PREFIX):
        names = text.removeprefix(PREFIX).split("+")
        if not all(names):
            raise ModelError(f"model {text!r} names no part, or an empty one; write it as {PREFIX}cde-minilm+bm25.")
        named: dict[str, Any] = named_parts(names)
        fusion = Fusion()
    else:
        manifest = Manifest.read(Path(text))
        named, fusion = manifest.models({}), manifest.fusion
    return HybridModel({part: load(model, device=device, dtype=dtype) for part, model in named.items()}, fusion)
