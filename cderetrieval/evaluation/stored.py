"""One evaluation on disk: written with a checksum, and never read as anything but what was written.

A number of a results folder ends in a paper, so a damaged one must not pass for a score. Files carry the sha256 of
their content. Those that older versions wrote have none; they must at least agree with themselves: metrics between 0
and 1, and the mean of the queries equal to the mean that stands beside it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..files import atomic_write, read_json, reading, write_json
from .cell import MAIN, Cell
from .metrics import PerQuery

SEAL, QUERIES = "sha256", "queries"
# Eight digits of each query are kept; and rounding may carry a metric over 1.
TOLERANCE = 1e-6
# An id may hold half of a character.
ENCODING: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogatepass", "newline": ""}
_OPTIONAL = ("group", "candidates")


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object as JSON with the checksum of its content."""
    plain = json.loads(json.dumps(values))
    write_json(path, {**plain, SEAL: _digest(plain)})


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Read what :func:`write_sealed` wrote, or the same without a checksum.

    Raises
    ------
    StoreError
        If it is no object, or the checksum is another.
    """
    values: dict[str, Any] = read_json(path, remedy=remedy)
    seal = values.pop(SEAL, None)
    if seal not in (None, _digest(values)):
        raise StoreError(f"{path} does not match its checksum. {remedy}")
    return values


def write_cell(path: Path, cell: Cell) -> None:
    """Write a cell whose metrics of single queries, if it has any, stand in their file already."""
    values: dict[str, Any] = {field.name: getattr(cell, field.name) for field in fields(cell) if field.name != "scores"}
    write_sealed(path, {**values, QUERIES: None if cell.scores is None else _text_digest(queries_path(path))})


def read_cell(path: Path) -> Cell:
    """Read a cell.

    Raises
    ------
    StoreError
        If it, or its metrics of single queries, are damaged.
    """
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
        _agree(digest in (None, _text_digest(queries)), "it does not match its checksum")
        _check_scores(cell, scores)
    return Cell(**values, scores=scores)


def queries_path(path: Path) -> Path:
    """Where the metrics of single queries of a cell are."""
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
    """Read metrics of single queries.

    Raises
    ------
    StoreError
        If the file is missing or damaged.
    """
    with reading(path, remedy=remedy), path.open("r", **ENCODING) as file:
        header, *rows = csv.reader(file, strict=True)
        _agree(header[0] == "query_id" and len(set(header)) == len(header) > 1, "its columns are not metrics")
        _agree(all(len(row) == len(header) for row in rows) and len(rows) > 0, "a row has another number of columns")
        ids = tuple(row[0] for row in rows)
        _agree(len(set(ids)) == len(ids) and "" not in ids, "ids of queries are missing, or occur twice")
        values = np.array([row[1:] for row in rows], dtype=np.float64)
        _agree(bool(np.all((values >= 0) & (values <= 1 + TOLERANCE))), "a metric is not between 0 and 1")
    return PerQuery(ids, dict(zip(header[1:], values.T.copy(), strict=True)), ())


def _check(cell: Cell) -> None:
    """Refuse a cell whose fields are of other types, or whose metrics are no scores."""
    values = asdict(cell)
    for name in ("model", "context", "dataset", "subset", "split", "revision", "type", *_OPTIONAL):
        right = isinstance(values[name], str) or (name in _OPTIONAL and values[name] is None)
        _agree(right, f"{name} is no text")
    _agree(type(cell.seed) is int, "seed is no whole number")
    _agree(_is_number(cell.seconds) and 0 <= cell.seconds < math.inf, "seconds is no time")
    _agree(isinstance(cell.audit, dict) and isinstance(cell.metrics, dict), "metrics or audit is no object")
    _agree(all(_is_number(value) for value in cell.metrics.values()), "a metric is no number")
    main = cell.metrics[MAIN]
    _agree(math.isnan(main) or abs(main) <= 1 + TOLERANCE, f"{MAIN} is {main}")


def _check_scores(cell: Cell, scores: PerQuery) -> None:
    """Refuse means that are not those of the queries."""
    means = scores.mean()
    _agree(means.keys() == cell.metrics.keys() - {MAIN}, f"its metrics are not those of {cell.dataset}")
    for name, mean in means.items():
        _agree(abs(mean - cell.metrics[name]) <= TOLERANCE, f"mean {name} is {mean:.6f}, not {cell.metrics[name]:.6f}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _agree(right: bool, what: str) -> None:
    if not right:
        raise ValueError(what)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _text_digest(path: Path) -> str:
    """Of a text file, whose line ends git and mail may have changed."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
