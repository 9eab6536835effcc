"""``hybrid.json``: which parts a hybrid has, how documents are read, how rankings are fused.

The parts lie beside it in ``part-0``, ``part-1``, ... each the directory of a retriever. A file of this form without
parts beside it, written by hand, names a hybrid model for evaluation: ``{"parts": ["cde-minilm", "bm25"]}`` suffices.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..embedding import Model
from ..errors import MismatchError, StoreError
from ..files import make_directory, private_mode, read_json, write_json
from ..retriever import STORE_FILE
from ..store import Store
from .scores import Fusion

MANIFEST, SEAL = "hybrid.json", "sha256"
FORMAT = 1


def claim(directory: Path, n_parts: int) -> Path:
    """Make a directory for a new hybrid, or take one whose first add was never finished.

    Raises
    ------
    StoreError
        If it holds an index.
    """
    taken = any(begun(part_directory(directory, number)) for number in range(n_parts))
    if taken and not os.path.exists(directory / MANIFEST):
        raise StoreError(
            f"{directory} holds parts of a hybrid that was never saved whole ({MANIFEST} is missing). Choose another "
            "directory."
        )
    if taken or os.path.exists(directory / STORE_FILE):
        raise StoreError(f"{directory} holds an index already. Open it with load, or choose another directory.")
    return make_directory(directory)


def begun(directory: Path) -> bool:
    """Whether a part has ever finished an add."""
    if not os.path.isfile(directory / STORE_FILE):
        return False
    with Store(directory / STORE_FILE) as store:
        return store.get_setting("retriever") is not None


def part_directory(directory: Path, number: int) -> Path:
    """Directory of a part.

    Raises
    ------
    StoreError
        If it is a link: a change of the hybrid would be one of whatever it leads to.
    """
    part = directory / f"part-{number}"
    if part.is_symlink():
        raise StoreError(f"{part} is a symbolic link. Move the directory that it leads to here, in its place.")
    return part


@dataclass(frozen=True)
class Manifest:
    """What a hybrid remembers about itself.

    Attributes
    ----------
    parts
        Name of each part to the name or directory of its model; None where it was given as an object.
    fusion
        How rankings are fused.
    settings
        What all parts are made with: ``key``, ``on``, ``context_size``, ``seed``.
    indexes
        Name of each part to its index, where that is not ``"auto"``.
    """

    parts: dict[str, str | None]
    fusion: Fusion = field(default_factory=Fusion)
    settings: dict[str, Any] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the file, or the one in a directory.

        Raises
        ------
        StoreError
            If there is none, or it is damaged or of a newer version.
        """
        file = path / MANIFEST if path.is_dir() or not path.suffix else path
        if not file.is_file():
            raise StoreError(f"{path} holds no hybrid ({MANIFEST} is missing). Build one with Hybrid.save.")
        values = read_json(file)
        try:
            if values.get("format", FORMAT) > FORMAT:
                raise StoreError("it was written by a newer version; upgrade cderetrieval to read it")
            seal = values.pop(SEAL, None)  # what people and earlier versions wrote has none
            if seal not in (None, _digest(values)):
                raise StoreError(f"it does not match its checksum; restore it, or take out {SEAL} if you changed it")
            fusion = dict(values.get("fusion", {}))
            if fusion.get("weights") is not None:
                fusion["weights"] = tuple(fusion["weights"])
            others = (dict(values.get(name, {})) for name in ("settings", "indexes"))
            manifest = cls(_parts(values["parts"]), Fusion(**fusion), *others)
            manifest.fusion.vector(len(manifest.parts))
        except Exception as error:
            raise StoreError(f"{file} is no hybrid of this version: {error}.") from error
        return manifest

    def write(self, directory: Path) -> None:
        """Write the file into a directory, whole or not at all."""
        parts = [{"name": name, "model": model} for name, model in self.parts.items()]
        others = {"fusion": asdict(self.fusion), "settings": self.settings, "indexes": self.indexes}
        mode = private_mode(part_directory(directory, 0) / STORE_FILE)
        values = json.loads(json.dumps({"format": FORMAT, "parts": parts, **others}))
        write_json(directory / MANIFEST, {**values, SEAL: _digest(values)}, mode=mode)

    def models(self, given: Mapping[str, Model]) -> dict[str, Model | str]:
        """Models of all parts: those given, else their names.

        Raises
        ------
        MismatchError
            If one was given as an object and is not given now, or there is no part of a name that is given.
        """
        unknown = [name for name in given if name not in self.parts]
        if unknown:
            raise MismatchError(f"there is no part {unknown[0]!r}; there are {', '.join(map(repr, self.parts))}.")
        models = {**{name: model for name, model in self.parts.items() if model is not None}, **given}
        missing = [name for name in self.parts if name not in models]
        if missing:
            raise MismatchError(
                f"part {missing[0]!r} was built with a model that was given as an object. Open it with "
                f"Hybrid.load(path, models={{{missing[0]!r}: that_model}})."
            )
        return {name: models[name] for name in self.parts}


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _parts(values: Any) -> dict[str, str | None]:
    """Parts from a list of model names, or of ``{"name", "model"}``."""
    if not isinstance(values, list):
        raise ValueError("its parts are no list")
    parts: dict[str, str | None] = {}
    for value in values:
        name, model = (Path(value).name, value) if isinstance(value, str) else (value["name"], value["model"])
        if name in parts or not isinstance(name, str) or not isinstance(model, str | None):
            raise ValueError(f"part {name!r} is no name of its own with the name of a model")
        parts[name] = model
    if not parts:
        raise ValueError("it has no parts")
    return parts
