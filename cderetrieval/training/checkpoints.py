"""Checkpoints that are whole, and a resume that is the same run.

A checkpoint counts once its ``run.json`` is there, which is written last, after every process has written its part. It
holds what identifies the run (the data's fingerprint, the recipe, the model's settings, the number of processes) and
the sha256 of every other file. A run is continued only if all of these are the same, so that it finds the same batches
and the same losses.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MismatchError, StoreError
from ..files import as_path, read_json, sha256_file, write_json

logger = logging.getLogger(__name__)

RUN, FILES = "run.json", "files"
# Keys of what identifies a run, see `run_record`.
_TYPES = {"format": int, "data": str, "recipe": dict, "settings": dict, "processes": int}
# What may change between the parts of one run: how much, how often, and how it is computed, not what.
FREE = {
    *("name", "data", "chunk_tokens", "first_chunk_tokens", "checkpointing", "compile"),
    *("log_steps", "save_steps", "evaluate_steps", "keep", "loggers", "workers"),
}


def run_record(data: str, recipe: Mapping[str, Any], settings: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """What identifies a run, as JSON values."""
    record = {"format": 1, "data": data, "recipe": dict(recipe), "settings": dict(settings), "processes": processes}
    return dict(json.loads(json.dumps(record)))


def mark_whole(checkpoint: Path, record: Mapping[str, Any]) -> None:
    """Write the file that makes a checkpoint count."""
    write_json(checkpoint / RUN, {**record, FILES: _digests(checkpoint)})


def last_checkpoint(output: str | Path) -> Path | None:
    """Newest whole checkpoint of a run; None where there is none."""
    found = [path for path in as_path(output).glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(found, key=lambda path: -int(path.name.rpartition("-")[2])):
        if (path / RUN).is_file():
            return path
        logger.warning("%s is not whole and is passed over.", path)
    return None


def check_same_run(checkpoint: Path, record: Mapping[str, Any]) -> None:
    """Refuse to continue a checkpoint that is damaged, or of other data, model, recipe or number of processes."""
    remedy = f"delete {checkpoint} and resume from another."
    was = read_json(checkpoint / RUN, object, remedy=remedy[0].upper() + remedy[1:])
    files = was.pop(FILES, None) if isinstance(was, dict) else None  # older records have none
    if not isinstance(was, dict) or any(not isinstance(was.get(name), kind) for name, kind in _TYPES.items()):
        raise StoreError(f"{checkpoint / RUN} is not a record of a run; {remedy}")
    if was["settings"] != record["settings"]:
        raise MismatchError(
            f"{checkpoint} holds a model of another architecture: {_differences(was['settings'], record['settings'])}. "
            "Train into another directory, or use that recipe."
        )
    if was["data"] != record["data"]:
        raise MismatchError(
            f"the training data changed since {checkpoint} was written (fingerprint {was['data'][:12]}, now "
            f"{record['data'][:12]}). Restore it, or start a new run from that model with base={str(checkpoint)!r}."
        )
    if was["processes"] != record["processes"]:
        raise MismatchError(
            f"{checkpoint} was written by {was['processes']} processes, this run has {record['processes']}: its "
            "batches would be others. Start as many."
        )
    # What is empty says nothing, and recipes of earlier versions may lack it.
    recipes = (was["recipe"], record["recipe"])
    fixed = [{name: value for name, value in recipe.items() if name not in FREE and value != {}} for recipe in recipes]
    if fixed[0] != fixed[1]:
        raise MismatchError(f"{checkpoint} was trained by another recipe: {_differences(*fixed)}. Change it back.")
    if files is not None and files != (found := _digests(checkpoint)):
        known = files if isinstance(files, dict) else {}
        names = sorted(name for name in {*known, *found} if known.get(name) != found.get(name))
        raise StoreError(f"{checkpoint} is damaged: {', '.join(names)} is not what was saved; {remedy}")


def _digests(checkpoint: Path) -> dict[str, str]:
    """Name of each file of a checkpoint, but its record, to its sha256."""
    paths = (path for path in checkpoint.rglob("*") if path.is_file() and path.name != RUN)
    return {path.relative_to(checkpoint).as_posix(): sha256_file(path) for path in sorted(paths)}


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return ", ".join(f"{name} was {was.get(name)!r}, is {now.get(name)!r}" for name in names)[:500]
