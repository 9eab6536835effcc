"""The hub data sets that the paper trains on: where they are, what their fields are called, which prompts they take.

``hub:nomic-unsupervised``  239M weakly paired texts of 29 domains (stage one of the paper)
``hub:nomic-supervised``    1.8M queries with mined negatives, 10 domains
``hub:bge-full-data``       the training data of BGE, with mined negatives, 30 and more domains (v1 and v2 end on it)

The table is ``hub_data.json``. Only Parquet and JSON lines are fetched, never a loading script.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelError
from .source import PATTERNS, Source, data_set_name


def hub_data() -> dict[str, dict[str, Any]]:
    """The table: repository, names of the fields, and domains by the prompt of their texts; others are searches."""
    text = (files("cderetrieval.training") / "hub_data.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table


def hub_sources(name: str) -> list[Source]:
    """Fetch a data set by its name in the table, or find it in the hub's local cache."""
    table = hub_data()
    if name not in table:
        raise InputError(f"hub:{name} is unknown; use one of {', '.join(sorted(table))}, or local files.")
    return files_of(table[name], _fetch(table[name]["repository"]))


def files_of(data: Mapping[str, Any], directory: Path) -> list[Source]:
    """Sources of a data set that was fetched into `directory`; shards of one split are one data set."""
    found = sorted(file for pattern in PATTERNS for file in directory.rglob(pattern))
    if not found:
        raise InputError(f"{data['repository']} holds no {', '.join(PATTERNS)} in {directory}.")
    prompts = {"*": ("search_query: ", "search_document: ")}
    for prompt, domains in data["prompts"].items():
        prompts |= dict.fromkeys(domains, (prompt, prompt))
    names = [re.sub(r"-\d+-of-\d+(-[0-9a-f]+)?$", "", data_set_name(file.name)) for file in found]
    return [Source(str(f), name, prompts=prompts, **data["fields"]) for f, name in zip(found, names, strict=True)]


def _fetch(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"the hub did not give the data set {repository!r} ({reason}). Check the network.") from error
