"""Relevance judgements (qrels) in any form, as query id to document id to grade.

Accepted are nested dictionaries, dictionaries of lists of relevant ids, data frames, and rows of BEIR or TREC as
tuples, named tuples or dictionaries. Ids are compared as text (:func:`~cderetrieval.values.id_name`).
"""

from __future__ import annotations

import decimal
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from .errors import InputError
from .queries import text_ids
from .values import id_name, scalar, shown

T = TypeVar("T")
Qrels = dict[str, dict[str, int]]

QUERY_COLUMNS = ("query_id", "query", "qid", "q_id", "topic")
DOCUMENT_COLUMNS = ("doc_id", "corpus_id", "document_id", "docid", "docno", "did", "id")
GRADE_COLUMNS = ("score", "relevance", "rel", "grade", "label")
# The largest integer of trec_eval; larger grades would also hide small ones in sums of gains.
MAX_GRADE = 2**31 - 1


def as_qrels(qrels: Any) -> Qrels:
    """Judgements as nested dictionaries."""
    return nested(qrels, GRADE_COLUMNS, "qrels", parse_grade, listed=1)


def judged(qrels: Any) -> Qrels:
    """Judgements without queries of which nothing is judged: trec_eval and BEIR leave them out too."""
    return {query: grades for query, grades in as_qrels(qrels).items() if grades}


def parse_grade(value: Any, where: str) -> int:
    """Read a grade: a whole number, also one written as a float; a negative one stays negative."""
    number = isinstance(value, numbers.Real | decimal.Decimal | np.generic)
    written = isinstance(value, str) and "_" not in value  # Python reads 1_0 as ten
    try:
        grade = float(value) if number or written else math.nan
    except (TypeError, ValueError, OverflowError):
        grade = math.nan
    if not grade.is_integer() or abs(grade) > MAX_GRADE:  # also nan and inf
        reason = "is too large" if abs(grade) > MAX_GRADE else "is not a whole number"
        raise InputError(f"{where}: grade {shown(value)} {reason}; scale fractional grades to integers first.")
    return int(grade)


def nested(
    source: Any, columns: tuple[str, ...], what: str, read: Callable[[Any, str], T], *, listed: Any = None
) -> dict[str, dict[str, T]]:
    """Read query id to document id to value from any form; `listed` is the value of documents in plain lists."""
    found: dict[str, dict[str, T]] = {}
    rows = _of_mapping(source, what, listed) if isinstance(source, Mapping) else _triples(source, columns, what)
    for query, document, value in rows:
        named = found.setdefault(_name(query, what, "query"), {})
        if document is _NOTHING:
            continue
        name = _name(document, what, "document")
        where = f"query {query!r}, document {document!r}"
        one = read(value, where)
        if named.setdefault(name, one) != one:
            raise InputError(f"{what}: {where} occurs twice, with {named[name]} and {one}.")
    return found


# Marks a query, whose documents follow if it has any.
_NOTHING = object()


def _of_mapping(source: Mapping[Any, Any], what: str, listed: Any) -> Iterator[tuple[Any, Any, Any]]:
    names: dict[str, Any] = {}
    for query, row in source.items():
        name = _name(query, what, "query")
        if name in names:
            raise InputError(f"{what}: queries {shown(names[name])} and {shown(query)} are one as text, {name!r}.")
        names[name] = query
        yield query, _NOTHING, None
        if isinstance(row, Mapping):
            if listed is None:  # two judgements of one document may agree; of two hits a run would lose one
                text_ids(row, f"{what}, documents of query {name!r}")
            yield from ((query, document, value) for document, value in row.items())
        elif listed is not None and _is_list(row):
            yield from ((query, document, listed) for document in row)
        else:
            form = "a dictionary of document ids" + ("" if listed is None else ", or a list of the relevant ones")
            raise InputError(f"{what}: of query {query!r} there is {shown(row)}, a {type(row).__name__}; pass {form}.")


def _is_list(row: Any) -> bool:
    """Whether it lists ids; a pandas Series whose index is not a count may hold the grades of the ids there."""
    counted = not hasattr(row, "to_dict") or list(row.keys()) == list(range(len(row)))
    return isinstance(row, list | tuple | set | frozenset) or (hasattr(row, "tolist") and counted)


def _triples(source: Any, columns: tuple[str, ...], what: str) -> Iterator[tuple[Any, Any, Any]]:
    wanted = (QUERY_COLUMNS, DOCUMENT_COLUMNS, columns)
    if hasattr(source, "columns"):
        picked = [_pick(source.columns, known, what) for known in wanted]
        yield from zip(*(list(source[column]) for column in picked), strict=True)
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes):
        for row in source:
            if hasattr(row, "_fields"):
                query, document, value = (getattr(row, _pick(row._fields, known, what)) for known in wanted)
            elif isinstance(row, Mapping):
                query, document, value = (row[_pick(row, known, what)] for known in wanted)
            else:
                query, document, value = _positions(row, what)
            yield query, document, value
    else:
        raise InputError(f"{what}: a {type(source).__name__} is none of: dictionary, data frame, tuples, path.")


def _positions(row: Any, what: str) -> tuple[Any, Any, Any]:
    if isinstance(row, tuple | list | np.ndarray):
        if len(row) == 3:
            return row[0], row[1], row[2]
        if len(row) == 4 and what == "qrels":  # TREC: query, iteration (never used), document, grade
            return row[0], row[2], row[3]
    raise InputError(f"{what}: expected (query, document, value), found {shown(row)}.")


def _pick(columns: Iterable[Any], known: tuple[str, ...], what: str) -> Any:
    names = [(str(column).lower().replace("-", "_"), column) for column in columns]
    for name in known:
        found = [column for lower, column in names if lower == name]
        if len(found) > 1:
            raise InputError(f"{what}: {len(found)} columns are named {name}; rename all but one.")
        if found:
            return found[0]
    raise InputError(f"{what}: no column named {' or '.join(known)} among {', '.join(name for name, _ in names)}.")


def _name(value: Any, what: str, kind: str) -> str:
    """The text of an id, which is text, a number or a boolean."""
    value = scalar(value)
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, str | int | float) or not finite or value == "":
        raise InputError(f"{what}: {shown(value)} is not the id of a {kind}; ids are text or numbers.")
    return id_name(value)
