"""Where training pairs come from: files of JSON lines or Parquet, folders of them, and data sets of the hub.

A line is ``{"query", "document", "domain"?, "negatives"?, "scores"?}``, or, as in the files that multi-qa and the all-*
models were trained on, a list ``[query, document, negative...]`` or ``{"texts": [...]}``. ``scores`` are those of a
teacher, for distillation: the document's, then one for each negative. A ``data_config.json`` as those models ship it
lists files with weights: a batch comes from a file with probability weight / sum of weights, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..corpora.jsonl import MEND, read_json_lines
from ..corpora.readers import read_parquet
from ..errors import InputError
from ..files import as_path, read_json
from ..values import shown

PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.parquet")
CONFIG = "data_config.json"
LARGEST = float(np.finfo(np.float32).max)
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
    """Turn files, folders, ``data_config.json`` files and ``hub:`` names into sources.

    A folder gives its ``data_config.json``, or where it has none every ``.jsonl``, ``.jsonl.gz`` and ``.parquet`` file,
    by name. ``hub:bge-full-data`` and the like are fetched first, see :mod:`~cderetrieval.training.hub_data`;
    ``pydocs:numpy,pandas`` are docstrings, see :mod:`~cderetrieval.training.docstring_pairs`.

    Raises
    ------
    InputError
        If a name is nothing of these, or a folder holds no such file.
    """
    from .docstring_pairs import docstring_sources
    from .hub_data import hub_sources

    sources: list[Source] = []
    for name in map(str, names):
        path = as_path(name)
        if name.startswith("hub:"):
            sources += hub_sources(name.removeprefix("hub:"))
        elif name.startswith("pydocs:"):
            sources += docstring_sources(name.removeprefix("pydocs:"))
        elif path.is_dir():
            sources += _folder(path)
        elif path.name == CONFIG:
            sources += _weighted(path)
        elif path.is_file():
            sources.append(Source(str(path), _stem(path)))
        else:
            raise InputError(f"training data {name!r}: there is no such file or folder. A hub name starts with 'hub:'.")
    _refuse_mixed_weights(sources)
    return sources


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".parquet")


def _folder(path: Path) -> list[Source]:
    if (path / CONFIG).is_file():
        return _weighted(path / CONFIG)
    files = sorted(file for pattern in PATTERNS for file in path.glob(pattern))
    if not files:
        raise InputError(f"{path} holds no training data: no {', '.join(PATTERNS)}.")
    return [Source(str(file), _stem(file)) for file in files]


def _weighted(path: Path) -> list[Source]:
    entries = read_json(path, object, error=InputError, remedy=MEND)
    if not isinstance(entries, list):
        raise InputError(f'{path}: expected a list of {{"name", "weight"}}.')
    sources = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InputError(f"{path}, entry {number}: no 'name' of a file.")
        weight = entry.get("weight", 1)
        if not _is_number(weight) or weight < 0:
            raise InputError(f"{path}, entry {number}: weight={shown(weight)} must be a number of at least 0.")
        if weight:
            sources.append(Source(str(path.parent / entry["name"]), _stem(Path(entry["name"])), float(weight)))
    return sources


def _refuse_mixed_weights(sources: Sequence[Source]) -> None:
    unweighted = [source.name for source in sources if source.weight is None]
    if unweighted and len(unweighted) < len(sources):
        raise InputError(f"some training sets have weights, {unweighted[0]} has none: give all of them one, or none.")


def read_rows(source: Source) -> Iterator[tuple[int, Row]]:
    """Rows of a source with their numbers, from 1.

    Raises
    ------
    InputError
        If a row cannot be used; the message names file, line and field.
    """
    path = Path(source.path)
    wanted = (source.query, source.document, source.negatives, source.domain, source.scores)
    rows = read_parquet(path, columns=wanted, extra="train") if path.suffix == ".parquet" else read_json_lines(path)
    for number, values in rows:
        yield number, _row(source, values, f"{source.path}, line {number}")


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
    return Row(
        _text(values, source.query, where),
        _text(values, source.document, where),
        negatives,
        _domain(values, source, where),
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
    numbers = isinstance(value, list) and all(map(_is_number, value))
    if not numbers or len(value) != 1 + negatives:
        raise InputError(
            f"{where}: field {name!r} must list the teacher's scores of the document and of its {negatives} negatives, "
            f"{1 + negatives} numbers; found {shown(value)}."
        )
    return tuple(map(float, value))


def _is_number(value: Any) -> bool:
    """Whether a value is a number that float32, in which scores are kept, can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _domain(values: Mapping[str, Any], source: Source, where: str) -> str:
    value = values.get(source.domain)
    if value is None:
        return source.name
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"{where}: an empty domain (field {source.domain!r}, {shown(value)}). Name it, or leave the field out: the "
            "domain is then the file's name."
        )
    return value
