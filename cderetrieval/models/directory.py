"""The one way by which a model directory reaches a library: as a view of it that holds nothing but what was checked.

    with opened(directory) as view:
        model = SentenceTransformer(str(view), **SAFE)

The view is a temporary directory of the same layout. Settings are read, reduced to what :mod:`.trusted` allows and
written again; tokenizers' vocabularies and safetensors are linked. Code, pickles, adapters, other backends and all
other files are not in it, so nothing can read them. Folders that lead out of the directory are refused, and no name in
the directory is ever fetched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import ModelError
from ..files import read_json, reading
from .fits import check_module, check_numbers, check_transformer, stored_shapes, strictly
from .loading import loading
from .trusted import (
    CONFIGS,
    FILTERS,
    SHARD,
    TRANSFORMERS,
    WEIGHTED,
    SettingsFilter,
    Values,
    imported_from,
    is_known_type,
    model_config,
    model_settings,
    module_name,
    refuse,
    tokenizer_config,
    unchanged,
)

AGAIN = "Fetch or save the model again."
# Arguments of every class of sentence-transformers that reads a view.
HUB: Mapping[str, Any] = dict(trust_remote_code=False, local_files_only=True)
SAFE: Mapping[str, Any] = {**HUB, "model_kwargs": {"use_safetensors": True}}
# Files that are only read as tables of tokens, beside their settings.
VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "bpe.codes", "dict.txt", "sentencepiece.bpe.model"),
    *("sentencepiece.model", "spiece.model", "spm.model", "tokenizer.model", "source.spm", "target.spm"),
)
_TOKENIZER_FILTERS: Mapping[str, SettingsFilter] = {
    name: FILTERS[name] for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
}
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DEEPEST = 4
# Greatest number in the settings of a tokenizer: some write 10^30 for no limit.
SETTING = 10**31


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Path]:
    """A view of a directory for a class of sentence-transformers; whatever is thrown in the block is a named error."""
    with _place(directory) as view:
        with reading(directory, error=ModelError, remedy=AGAIN):
            _write_model(directory, view)
        with loading(str(directory), view), strictly(str(directory)):
            yield view


def load_tokenizer(directory: Path, *, by_config: bool = False, **settings: Any) -> Any:
    """The tokenizer of a directory."""
    from transformers import AutoTokenizer, PreTrainedConfig

    with _place(directory) as view:
        with reading(directory, error=ModelError, remedy=AGAIN):
            _copy(directory, view, _TOKENIZER_FILTERS, VOCABULARIES)
            config: dict[str, Any] = {}
            if by_config and is_regular(path := directory / "config.json"):
                # What the class of a tokenizer depends on.
                values = read_object(path)
                config = tokenizer_config({k: v for k, v in values.items() if k == "tokenizer_class"}, str(path))
                if is_known_type(values.get("model_type")):
                    config["model_type"] = values["model_type"]
            _write(view / "config.json", config)
        with loading(str(directory), view):
            if "model_type" not in config:
                # transformers would otherwise look for the model's type among its own.
                settings["config"] = PreTrainedConfig(**config)
            return AutoTokenizer.from_pretrained(str(view), **HUB, **settings)


def config_of(directory: Path) -> dict[str, Any]:
    """config.json as it stands."""
    return read_object(directory / "config.json")


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a transformer, as far as it describes the model."""
    return model_config(config_of(directory), str(directory / "config.json"))


@contextlib.contextmanager
def _place(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cderetrieval-") as place:
        view = Path(place) / (directory.resolve().name or "model")
        view.mkdir()
        yield view


def _write_model(directory: Path, view: Path) -> None:
    if (directory / "adapter_config.json").exists():
        raise ModelError(
            f"{directory} is an adapter (PEFT) of another model, which is not loaded from here: merge both and save "
            "the result."
        )
    _copy(directory, view, {"config_sentence_transformers.json": model_settings}, ("README.md",))
    taken: set[Path] = set()
    path = directory / "modules.json"
    if not is_regular(path):
        if not is_regular(directory / "config.json"):
            raise ModelError(f"{directory} cannot be loaded as a model: it has neither modules.json nor config.json.")
        _write_module(directory, "", view, "Transformer", taken)
        return
    entries = read_json(path, list, error=ModelError, remedy=AGAIN)
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ModelError(f"{path} lists a module without a name. {AGAIN}")
        name = module_name(entry.get("type"), str(path))
        _write_module(directory, entry.get("path"), view, name, taken)
        entry["type"] = imported_from(name)
    _write(view / "modules.json", entries)


def _write_module(directory: Path, path: Any, view: Path, name: str, taken: set[Path], depth: int = 0) -> None:
    """One module's folder in the view, with what its class reads; `taken` are the folders of the others."""
    folder = _inside(directory, path)
    target = view / path
    if target in taken:
        # The settings of the second would overwrite those of the first, which were checked for another class.
        raise refuse(str(directory), f"path={path!r} of two modules")
    taken.add(target)
    target.mkdir(parents=True, exist_ok=True)
    if name in ("Router", "Asym"):
        _write_router(directory, path, view, taken, depth)
        return
    filters = {**FILTERS, "config.json": CONFIGS.get(name, unchanged)}
    settings = _copy(folder, target, filters, (*VOCABULARIES, *weight_files(folder)))
    if name in WEIGHTED:
        weights = weight_files(target)
        if not weights:
            raise no_weights(folder)
        _check_fit(folder, settings, weights, name)


def _check_fit(folder: Path, settings: Mapping[str, Values], weights: list[str], name: str) -> None:
    """Compare the sizes in a module's settings with its weights, before its class is made."""
    shapes: dict[str, list[int]] = {}
    for file in weights:
        shapes |= stored_shapes(folder / file)
    tasks = [values.get("transformer_task") for file, values in settings.items() if file.startswith("sentence_")]
    masked = name == "MLMTransformer" or "fill-mask" in tasks
    for file, values in settings.items():
        where = str(folder / file)
        if not file.endswith("config.json"):
            continue
        if file == "config.json" and name in TRANSFORMERS:
            check_transformer(values, shapes, where, masked=masked)
        elif file not in FILTERS or name not in TRANSFORMERS:
            check_module(values, shapes, where)
        else:
            check_numbers(values, where, lambda key: SETTING)


def _write_router(directory: Path, path: str, view: Path, taken: set[Path], depth: int) -> None:
    if depth > _DEEPEST:
        raise refuse(str(directory), "a router in a router in a router")
    folder, target = directory / path, view / path
    found = folder / "router_config.json"
    source = found if is_regular(found) else folder / "config.json"
    values = read_object(source)
    types = values.get("types")
    if not isinstance(types, dict):
        raise ModelError(f"{source} has no 'types' of modules. {AGAIN}")
    for part, type_name in types.items():
        name = types[part] = module_name(type_name, str(source))
        _write_module(directory, PurePosixPath(path, part).as_posix(), view, name, taken, depth + 1)
    values["types"] = {part: imported_from(name) for part, name in types.items()}
    _write(target / source.name, values)


def _inside(directory: Path, path: Any) -> Path:
    """A folder of the directory: a relative path that no link leads elsewhere."""
    if not isinstance(path, str):
        raise refuse(str(directory), f"path={path!r} of a module")
    windows = PureWindowsPath(path)
    folder = directory / path
    if (
        windows.anchor
        or ".." in windows.parts
        or "\0" in path
        or not folder.resolve().is_relative_to(directory.resolve())
    ):
        raise refuse(str(directory), f"path={path!r} of a module, which leads out of the directory,")
    return folder


def weight_files(folder: Path) -> list[str]:
    """Names of a folder's weights: the whole, or its shards."""
    if is_regular(folder / "model.safetensors"):
        return ["model.safetensors"]
    return sorted(path.name for path in folder.glob("model-*.safetensors") if SHARD.fullmatch(path.name))


def no_weights(folder: Path) -> ModelError:
    """Build the error for a folder without safetensors."""
    pickled = sorted(path.name for path in folder.glob("*") if path.suffix in _PICKLED)
    return ModelError(
        f"{folder} holds no model.safetensors. Pickled weights ({', '.join(pickled) or 'pytorch_model.bin'}) are not "
        "read, because they can run code: convert them with safetensors first."
    )


def _copy(
    folder: Path, target: Path, filters: Mapping[str, SettingsFilter], linked: tuple[str, ...]
) -> dict[str, Values]:
    """Settings, checked, and links to files of tokens and weights; the settings are returned by file."""
    settings = {
        name: allowed(read_object(folder / name), str(folder / name))
        for name, allowed in filters.items()
        if is_regular(folder / name)
    }
    for name, values in settings.items():
        _write(target / name, values)
    for name in linked:
        if is_regular(folder / name):
            _link(folder / name, target / name)
    return settings


def is_regular(path: Path) -> bool:
    """Whether there is a file; what is none, a pipe or a device for one, is refused: reading could wait for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        raise refuse(str(path), "something other than a regular file")
    return True


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model directory."""
    is_regular(path)
    values: dict[str, Any] = read_json(path, error=ModelError, remedy=AGAIN)
    return values


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:  # Windows lets only some users link
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
