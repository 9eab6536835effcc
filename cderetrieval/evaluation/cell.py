"""One evaluation, and how it is kept: a model in a context on one split of a dataset.

A cell has the mean of each metric and, for retrieval, the metrics of each query: significance tests need them, and mteb
does not keep them. Both files carry the sha256 of their content, because a damaged one must not pass for a score in a
paper. Files of older versions have none, but metrics must be between 0 and 1, and means those of the queries.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..files import SEAL, atomic_write, read_json, reading, unsealed, write_sealed
from .metrics import PerQuery

# The metric by which a task is ranked: nDCG@10 for retrieval, accuracy for classification, ...
MAIN = "main_score"
QUERIES = "queries"
# Eight digits of each query are kept; and rounding may carry a metric over 1.
TOLERANCE = 1e-6
# An id may hold half of a surrogate pair, which UTF-8 cannot write.
ENCODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogatepass", "newline": ""}
_TEXTS = ("model", "context", "dataset", "subset", "split", "revision", "type")
_OPTIONAL = ("group", "candidates")


@dataclass(frozen=True)
class Cell:
    """Scores of one model in one context on one split of one dataset."""

    model: str
    context: str
    seed: int
    dataset: str
    subset: str
    split: str
    revision: str  # changes with the data
    type: str  # mteb's type of the task
    metrics: dict[str, float]  # means, "main_score" among them
    group: str | None = None  # the aggregate (CQADupstack) that the dataset is part of
    scores: PerQuery | None = None  # metrics of each query, for retrieval
    audit: dict[str, Any] = field(default_factory=dict)  # what the context was made of
    seconds: float = 0.0  # of encoding, searching and scoring
    candidates: str | None = None  # first-stage model and depth, where candidates were reranked

    @property
    def system(self) -> str:
        """Model and context: what is compared."""
        return f"{self.model}/{self.context}"

    @property
    def column(self) -> str:
        """The dataset in tables: its name, with subset and split where they are not the usual ones."""
        extra = [part for part in (self.subset, self.split) if part not in ("default", "test")]
        return self.dataset + _depth(self.candidates) + (f" ({', '.join(extra)})" if extra else "")

    @property
    def file_name(self) -> str:
        """Name of its files in a folder of results."""
        return cell_name(self.dataset, self.subset, self.split, self.candidates)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the long table, one for each metric."""
        n_queries = len(self.scores.query_ids) if self.scores else None
        for metric, value in self.metrics.items():
            yield {
                "model": self.model,
                "dataset": self.column,
                "context": self.context,
                "seed": self.seed,
                "type": self.type,
                "group": self.group or self.column,
                "metric": metric,
                "value": value,
                "n_queries": n_queries,
            }


def cell_name(dataset: str, subset: str, split: str, candidates: str | None) -> str:
    """Name of the files of an evaluation.

    >>> cell_name("SciFact", "default", "test", "all-MiniLM-L6-v2@1024")
    'SciFact@1024.test'
    """
    return ".".join([dataset + _depth(candidates), *([subset] if subset != "default" else []), split])


def _depth(candidates: str | None) -> str:
    return f"@{candidates.rpartition('@')[2]}" if candidates else ""


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Read what `write_sealed` wrote, or the same without a checksum."""
    values: dict[str, Any] = read_json(path, remedy=remedy)
    return unsealed(path, values, remedy=remedy) if values.get(SEAL) is not None else values


def write_cell(path: Path, cell: Cell) -> None:
    """Write a cell; the metrics of its queries, if it has any, have been written before."""
    values: dict[str, Any] = {field.name: getattr(cell, field.name) for field in fields(cell) if field.name != "scores"}
    write_sealed(path, {**values, QUERIES: None if cell.scores is None else _text_digest(queries_path(path))})


def read_cell(path: Path) -> Cell:
    """Read a cell and the metrics of its queries; a damaged file is an error."""
    remedy = f"Remove {path} and evaluate again with the same --out."
    values = read_sealed(path, remedy)
    is_sealed = QUERIES in values
    digest = values.pop(QUERIES, None)
    with reading(path, remedy=remedy):
        cell = Cell(**values)
        _check(cell)
    queries = queries_path(path)
    if digest is None and (is_sealed or not queries.exists()):
        if cell.type == "Retrieval":
            raise StoreError(f"{queries}, which belongs to {path.name}, is missing. {remedy}")
        return cell
    scores = read_queries(queries, remedy)
    with reading(queries, remedy=remedy):
        _require(digest in (None, _text_digest(queries)), "it does not match its checksum")
        means = scores.mean()
        _require(means.keys() == cell.metrics.keys() - {MAIN}, f"its metrics are not those of {cell.dataset}")
        for name, mean in means.items():
            stored = cell.metrics[name]
            _require(abs(mean - stored) <= TOLERANCE, f"mean {name} is {mean:.6f}, not {stored:.6f}")
    return Cell(**values, scores=scores)


def queries_path(path: Path) -> Path:
    """File of the metrics of a cell's queries."""
    return path.with_name(f"{path.stem}.queries.csv")


def write_queries(path: Path, scores: PerQuery) -> None:
    """Write metrics of single queries, eight digits each."""
    with atomic_write(path) as temporary, temporary.open("w", **ENCODING) as file:
        # All ids are quoted: a carriage return in one would end its row.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["query_id", *scores.values])
        columns = [[float(f"{value:.8g}") for value in values] for values in scores.values.values()]
        writer.writerows(zip(scores.query_ids, *columns, strict=True))


def read_queries(path: Path, remedy: str) -> PerQuery:
    """Read metrics of single queries; a file that is missing or damaged is an error."""
    with reading(path, remedy=remedy), path.open("r", **ENCODING) as file:
        header, *rows = csv.reader(file, strict=True)
        _require(header[0] == "query_id" and len(set(header)) == len(header) > 1, "its columns are not metrics")
        _require(all(len(row) == len(header) for row in rows) and len(rows) > 0, "a row has another number of columns")
        ids = tuple(row[0] for row in rows)
        _require(len(set(ids)) == len(ids) and "" not in ids, "ids of queries are missing, or occur twice")
        values = np.array([row[1:] for row in rows], dtype=np.float64)
        _require(bool(np.all((values >= 0) & (values <= 1 + TOLERANCE))), "a metric is not between 0 and 1")
    return PerQuery(ids, dict(zip(header[1:], values.T.copy(), strict=True)), ())


def _check(cell: Cell) -> None:
    """Refuse a cell whose fields are of other types, or whose metrics are not scores."""
    for name in (*_TEXTS, *_OPTIONAL):
        value = getattr(cell, name)
        _require(isinstance(value, str) or (name in _OPTIONAL and value is None), f"{name} is not text")
    _require(type(cell.seed) is int, "seed is not a whole number")
    _require(_is_number(cell.seconds) and 0 <= cell.seconds < math.inf, "seconds is not a time")
    _require(isinstance(cell.audit, dict) and isinstance(cell.metrics, dict), "metrics or audit is not an object")
    _require(all(_is_number(value) for value in cell.metrics.values()), "a metric is not a number")
    main = cell.metrics[MAIN]
    _require(math.isnan(main) or abs(main) <= 1 + TOLERANCE, f"{MAIN} is {main}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(right: bool, problem: str) -> None:
    if not right:
        raise ValueError(problem)


def _text_digest(path: Path) -> str:
    """Digest of a text file, whatever git or mail has made of its line ends."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
