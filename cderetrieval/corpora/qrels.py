"""Relevance judgements as files: BEIR's three tab-separated columns, TREC's four, with a header or without one.

A first line is a header only if it uses a known column name, so that a typing error in a grade is not taken for one.
Quotes are read line by line, so that a stray quote cannot swallow the lines after it.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from ..files import as_path
from ..judgements import DOCUMENT_COLUMNS, GRADE_COLUMNS, QUERY_COLUMNS, Qrels, parse_grade
from .jsonl import read_lines, refuse_controls, refuse_repeated

logger = logging.getLogger(__name__)


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements separated by tabs, commas or spaces, of three columns or of TREC's four."""
    path = as_path(path)
    qrels: Qrels = {}
    columns: tuple[int, int, int] | None = None
    n_columns = n_judgements = 0
    for number, fields in read_rows(path):
        where = f"{path}, line {number}"
        if columns is None:
            header = _header(fields, where)
            columns, n_columns = header or _columns(fields, where), len(fields)
            if header:
                continue
        if len(fields) != n_columns:
            raise InputError(f"{where}: {len(fields)} columns, the first line has {n_columns}: {fields[:5]}.")
        query, document, text = (fields[column].strip() for column in columns)
        if not (query and document):
            raise InputError(f"{where}: an id is empty: {fields}.")
        grade = parse_grade(text, where)
        if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
            raise InputError(f"{where}: {query!r}, {document!r} was judged {qrels[query][document]} above.")
        n_judgements += 1
    n_repeated = n_judgements - sum(map(len, qrels.values()))
    if n_repeated:
        logger.info("%s repeats %d judgements; each counts once.", path, n_repeated)
    return qrels


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a file whose columns are separated by tabs or spaces."""
    for number, line in read_lines(path):
        refuse_controls(path, number, line)
        yield number, _split(line, path.suffix)


def _split(line: str, ending: str) -> list[str]:
    separator = "\t" if "\t" in line else "," if ending == ".csv" else None
    if separator is None:
        return line.split()
    try:
        quoted = next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return line.split(separator)
    return quoted if len(quoted) > 2 else line.split(separator)


def _header(fields: list[str], where: str) -> tuple[int, int, int] | None:
    """Positions of query, document and grade, if the fields are column names."""
    names = [field.strip().lower().replace("-", "_") for field in fields]
    found = [
        next((names.index(name) for name in known if name in names), None)
        for known in (QUERY_COLUMNS, DOCUMENT_COLUMNS, GRADE_COLUMNS)
    ]
    query, document, grade = found
    if query is None or document is None or grade is None:
        return None
    refuse_repeated([name for name in names if name in (names[query], names[document], names[grade])], where)
    return query, document, grade


def _columns(fields: list[str], where: str) -> tuple[int, int, int]:
    if len(fields) == 3:
        return 0, 1, 2
    if len(fields) == 4:  # TREC: query, iteration (never used), document, grade
        return 0, 2, 3
    raise InputError(
        f"{where}: {len(fields)} columns; qrels have query, document, grade, or TREC's four: {fields[:5]}."
    )
