"""Where training pairs come from: files of JSON lines or Parquet, folders of them, docstrings, data sets of the hub.

A line is ``{"query", "document", "domain"?, "negatives"?, "scores"?}``, or, as in the files that multi-qa and the all-*
models were trained on, a list ``[query, document, negative...]`` or ``{"texts": [...]}``. ``scores`` are a teacher's,
for distillation: the document's, then one for each negative. A whole document, ``{"title", "sections"}``, becomes a
pair for each of its passages (:mod:`.sections`). A ``data_config.json`` lists files with weights, as those models ship
it: a batch comes from a file with probability weight / sum of weights, whatever its size.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..corpora import pydocs
from ..corpora.jsonl import MEND, read_json_lines
from ..corpora.readers import read_parquet
from ..errors import InputError, ModelError
from ..files import as_path, atomic_write, read_json
from ..values import shown
from .sections import is_document, pairs_of

logger = logging.getLogger(__name__)

CONFIG = "data_config.json"
LARGEST = float(np.finfo(np.float32).max)
PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.parquet")
Prompts = Mapping[str, Sequence[str]]


class Row(NamedTuple):
    """One training example."""

    query: str
    document: str
    negatives: tuple[str, ...]
    domain: str
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Source:
    """One file of training pairs.

    Parameters
    ----------
    path
        JSON lines (``.jsonl``, ``.jsonl.gz``) or Parquet.
    name
        Name of the data set; also the domain of rows that name none.
    weight
        Share of batches, relative to the other sources; None: by size.
    query, document, negatives, domain, scores
        Names of the fields.
    prompts
        Domain to the prompts of its queries and documents; ``"*"`` serves all others. None: the model's own.

    Examples
    --------
    >>> Source("faq.jsonl", "faq", query="question", document="answer").domain
    'domain'
    """

    path: str
    name: str
    weight: float | None = None
    query: str = "query"
    document: str = "document"
    negatives: str = "negatives"
    domain: str = "domain"
    prompts: Prompts = field(default_factory=dict)
    scores: str = "scores"

    def __post_init__(self) -> None:
        if self.weight is not None and not self.weight > 0:
            raise InputError(f"weight={self.weight!r} of {self.name} must be above 0; leave the file out instead.")


def find_sources(names: Sequence[str | Path]) -> list[Source]:
    """Turn files, folders, ``data_config.json`` files, ``hub:`` and ``pydocs:`` names into sources.

    A folder gives its ``data_config.json``, or without one every ``.jsonl``, ``.jsonl.gz`` and ``.parquet`` file.
    """
    sources: list[Source] = []
    for name in map(str, names):
        path = as_path(name)
        if name.startswith("hub:"):
            sources += hub_sources(name.removeprefix("hub:"))
        elif name.startswith("pydocs:"):
            sources += _docstrings(name.removeprefix("pydocs:"))
        elif path.name == CONFIG or (path / CONFIG).is_file():
            sources += _weighted(path / CONFIG if path.is_dir() else path)
        elif path.is_dir():
            sources += _folder(path)
        elif path.is_file():
            sources.append(Source(str(path), _data_set_name(path.name)))
        else:
            raise InputError(f"training data {name!r}: there is no such file or folder. A hub name starts with 'hub:'.")
    unweighted = [source.name for source in sources if source.weight is None]
    if unweighted and len(unweighted) < len(sources):
        raise InputError(f"some training sets have weights, {unweighted[0]} has none: give all of them one, or none.")
    return sources


def _data_set_name(file_name: str) -> str:
    """Name of the data set in a file."""
    return file_name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".parquet")


def _folder(path: Path) -> list[Source]:
    files = sorted(file for pattern in PATTERNS for file in path.glob(pattern))
    if not files:
        raise InputError(f"{path} holds no training data: no {', '.join(PATTERNS)}.")
    return [Source(str(file), _data_set_name(file.name)) for file in files]


def _weighted(path: Path) -> list[Source]:
    sources = []
    for number, entry in enumerate(read_json(path, list, error=InputError, remedy=MEND), start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InputError(f"{path}, entry {number}: no 'name' of a file.")
        weight = entry.get("weight", 1)
        if not _is_number(weight) or weight < 0:
            raise InputError(f"{path}, entry {number}: weight={shown(weight)} must be a number of at least 0.")
        if weight:
            name = _data_set_name(Path(entry["name"]).name)
            sources.append(Source(str(path.parent / entry["name"]), name, float(weight)))
    return sources


def _docstrings(packages: str) -> list[Source]:
    """Questions and docstrings of installed packages, the same that :mod:`~cderetrieval.corpora.pydocs` asks."""
    logger.warning("trained on the docstrings of %s: do not evaluate on them.", packages)
    sources = []
    for package in (name.strip() for name in packages.split(",")):
        dataset = pydocs.load(package, max_documents=sys.maxsize, max_queries=sys.maxsize)
        documents = {row["id"]: f"{row['title']} {row['text']}".strip() for row in dataset.corpus}
        rows = [
            {"query": dataset.queries[query], "document": documents[document], "domain": package}
            for query, judged in dataset.qrels.items()
            for document in judged
        ]
        path = pydocs.cache_folder() / "pairs" / f"pydocs-{package}.jsonl"
        with atomic_write(path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        sources.append(Source(str(path), f"pydocs-{package}"))
    return sources


def hub_sources(name: str, directory: Path | None = None) -> list[Source]:
    """Sources of a data set of the hub, once it is in `directory`; shards of one split are one data set.

    ``hub_data.json`` has the repository, the names of the fields, and domains by the prompt of their texts; all other
    domains are searches.
    """
    table: dict[str, Any] = read_json(Path(__file__).with_name("hub_data.json"))
    if name not in table:
        raise InputError(f"hub:{name} is unknown; use one of {', '.join(sorted(table))}, or local files.")
    data = table[name]
    directory = directory or _fetch(data["repository"])
    found = sorted(file for pattern in PATTERNS for file in directory.rglob(pattern))
    if not found:
        raise InputError(f"{data['repository']} holds no {', '.join(PATTERNS)} in {directory}.")
    prompts = {"*": ("search_query: ", "search_document: ")}
    for prompt, domains in data["prompts"].items():
        prompts |= dict.fromkeys(domains, (prompt, prompt))
    names = [re.sub(r"-\d+-of-\d+(-[0-9a-f]+)?$", "", _data_set_name(file.name)) for file in found]
    return [Source(str(f), name, prompts=prompts, **data["fields"]) for f, name in zip(found, names, strict=True)]


def _fetch(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"the hub did not give the data set {repository!r} ({reason}). Check the network.") from error


def read_rows(source: Source) -> Iterator[tuple[int, Row]]:
    """Rows of a source with their numbers, from 1; one that cannot be used is an error that names file and field."""
    path = Path(source.path)
    wanted = (source.query, source.document, source.negatives, source.domain, source.scores)
    rows = read_parquet(path, columns=wanted, extra="train") if path.suffix == ".parquet" else read_json_lines(path)
    for number, values in rows:
        where = f"{source.path}, line {number}"
        if source.query in values or not is_document(values):
            yield number, _row(source, values, where)
            continue
        named = {source.domain: values[source.domain]} if source.domain in values else {}
        for query, passage in pairs_of(values, where):
            yield number, _row(source, {**named, source.query: query, source.document: passage}, where)


def _row(source: Source, values: Any, where: str) -> Row:
    if isinstance(values, dict) and source.query not in values and isinstance(values.get("texts"), list):
        values = values["texts"]
    if isinstance(values, list):
        if len(values) < 2:
            raise InputError(f"{where}: a list needs a query and a document, found {len(values)} texts.")
        values = {source.query: values[0], source.document: values[1], source.negatives: values[2:]}
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected an object or a list of texts, found {shown(values)}.")
    negatives = _negatives(values.get(source.negatives), source.negatives, where)
    domain = values.get(source.domain)
    if domain is not None and (not isinstance(domain, str) or not domain.strip()):
        raise InputError(
            f"{where}: an empty domain (field {source.domain!r}, {shown(domain)}). Name it, or leave the field out: "
            "the domain is then the file's name."
        )
    return Row(
        _text(values, source.query, where),
        _text(values, source.document, where),
        negatives,
        source.name if domain is None else domain,
        _scores(values.get(source.scores), len(negatives), source.scores, where),
    )


def _text(values: Mapping[str, Any], name: str, where: str) -> str:
    if name not in values:
        raise InputError(f"{where}: no field {name!r}; it has {', '.join(sorted(values)) or 'none'}.")
    value = values[name]
    if isinstance(value, list) and value:
        value = value[0]  # "pos": [best, ...]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: field {name!r} must be a text that is not empty, found {shown(value)}.")
    return value


def _negatives(value: Any, name: str, where: str) -> tuple[str, ...]:
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"{where}: field {name!r} must be a list of texts that are not empty.")
    return tuple(texts)


def _scores(value: Any, negatives: int, name: str, where: str) -> tuple[float, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(map(_is_number, value)) or len(value) != 1 + negatives:
        raise InputError(
            f"{where}: field {name!r} must list the teacher's scores of the document and of its {negatives} negatives, "
            f"{1 + negatives} numbers; found {shown(value)}."
        )
    return tuple(map(float, value))


def _is_number(value: Any) -> bool:
    """Whether a value is a number that float32, in which scores are kept, can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
