"""Qrels and runs in whatever form they come, made one: query id to document id to grade or score.

The forms are those that `ir_measures` accepts, and this package's own hits: nested dictionaries, data frames, tuples or
named tuples, TREC and BEIR files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..corpora.qrels import DOCUMENT_COLUMNS, GRADE_COLUMNS, QUERY_COLUMNS, parse_grade, read_qrels, read_rows
from ..errors import InputError
from ..files import as_path

Run = dict[str, dict[str, float]]
SCORE_COLUMNS = ("score", "similarity", "sim")


def as_qrels(qrels: Any) -> dict[str, dict[str, int]]:
    """Judgements as nested dictionaries.

    Parameters
    ----------
    qrels
        Nested dictionary; data frame with columns such as query_id, doc_id, relevance; iterable of (query, document,
        grade) or of named tuples with such fields; or the path of a TREC or BEIR file.

    Raises
    ------
    InputError
        If a grade is no whole number, or the form is none of these.

    Examples
    --------
    >>> as_qrels([("q1", "d1", 1), ("q1", "d2", 0)])
    {'q1': {'d1': 1, 'd2': 0}}
    """
    if isinstance(qrels, str | Path):
        return read_qrels(qrels)
    return {
        query: {
            document: parse_grade(grade, f"query {query!r}, document {document!r}") for document, grade in row.items()
        }
        for query, row in _nested(qrels, GRADE_COLUMNS, "qrels").items()
    }


def as_run(run: Any) -> Run:
    """Scored documents as nested dictionaries.

    Parameters
    ----------
    run
        As for :func:`as_qrels`, with scores; a :class:`~cderetrieval.types.Hits`; or the path of a TREC run file.

    Raises
    ------
    InputError
        If a score is no number, or the form is none of these.

    Examples
    --------
    >>> as_run({"q1": {"d1": 0.5}})
    {'q1': {'d1': 0.5}}
    """
    if isinstance(run, str | Path):
        rows = _nested(_read_run(as_path(run)), SCORE_COLUMNS, "run")
    else:
        rows = _nested(run.to_run() if hasattr(run, "to_run") else run, SCORE_COLUMNS, "run")
    return {
        query: {document: _score(score, query, document) for document, score in row.items()}
        for query, row in rows.items()
    }


def _score(value: Any, query: str, document: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if math.isnan(score):
        raise InputError(f"run: the score of query {query!r}, document {document!r} is no number: {value!r}.")
    return score


def _nested(source: Any, value_columns: tuple[str, ...], what: str) -> dict[str, dict[str, Any]]:
    if isinstance(source, Mapping):
        return {str(query): {str(document): value for document, value in row.items()} for query, row in source.items()}
    nested: dict[str, dict[str, Any]] = {}
    for query, document, value in _triples(source, value_columns, what):
        if str(document) in nested.setdefault(str(query), {}):
            raise InputError(f"{what}: query {query!r}, document {document!r} occurs twice.")
        nested[str(query)][str(document)] = value
    return nested


def _triples(source: Any, value_columns: tuple[str, ...], what: str) -> Iterator[tuple[Any, Any, Any]]:
    if hasattr(source, "columns"):
        columns = [_pick(source.columns, known, what) for known in (QUERY_COLUMNS, DOCUMENT_COLUMNS, value_columns)]
        yield from zip(*(source[column].tolist() for column in columns), strict=True)
    elif isinstance(source, Iterable):
        for row in source:
            if hasattr(row, "_fields"):
                names = [_pick(row._fields, known, what) for known in (QUERY_COLUMNS, DOCUMENT_COLUMNS, value_columns)]
                yield getattr(row, names[0]), getattr(row, names[1]), getattr(row, names[2])
            elif isinstance(row, tuple | list) and len(row) == 3:
                yield row[0], row[1], row[2]
            else:
                raise InputError(f"{what}: expected (query, document, value), found {row!r}.")
    else:
        raise InputError(f"{what}: a {type(source).__name__} is none of: dictionary, data frame, tuples, path.")


def _pick(columns: Iterable[Any], known: tuple[str, ...], what: str) -> Any:
    by_name = {str(column).lower().replace("-", "_"): column for column in columns}
    for name in known:
        if name in by_name:
            return by_name[name]
    raise InputError(f"{what}: no column named {' or '.join(known)} among {', '.join(by_name)}.")


def _read_run(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, fields in read_rows(path):
        if len(fields) != 6:
            form = "query Q0 document rank score tag"
            raise InputError(f"{path}, line {number}: {len(fields)} columns; a TREC run has six: {form}.")
        yield fields[0], fields[2], fields[4]
