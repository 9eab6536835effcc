"""Metadata filters: which documents may be answers.

    retriever("solar power", filter={"year": {">=": 2020}, "language": ["en", "fr"], "reviewed": True})
    retriever("solar power", filter={"$or": [{"tags": {"$contains": "energy"}}, {"author.country": "DK"}]})

A filter maps fields to conditions, all of which must hold: a value (equal), a list (equal to one of them), or a
dictionary of comparisons. ``author.country`` is the field ``country`` of the dictionary in the field ``author``. A
missing field, null, or a value of another type meets no condition: 1 is not "1" and not True, and ``{"!=": 1}`` means
"a number other than 1". Text is ordered by code point. A date or a time in a filter is compared as a time with ISO
texts, in UTC where they name no zone.
"""

from __future__ import annotations

import datetime
import difflib
import json
import logging
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .errors import InputError
from .values import DEPTH, scalar, shown, too_long

logger = logging.getLogger(__name__)

Value = str | int | float | bool | datetime.datetime
# How a value of a document and one of a filter, of one kind, compare.
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
CONTAINS, AND, OR, NOT = "$contains", "$and", "$or", "$not"
_SIGNS = {"$eq": "==", "$ne": "!=", "$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">=", "$in": "==", "$nin": "!="}
_SIGNS |= {sign: sign for sign in (*OPERATORS, CONTAINS)}
_LISTS = (list, tuple, set, frozenset)
# Documents among which near names are looked for.
_FIRST = 1_000
_TEXT = re.compile(
    r"(?P<field>[^<>=!]+?)\s*(?P<sign>==|!=|<=|>=|=|<|>|\bin\b|\bcontains\b)\s*(?P<value>[^<>=\s].*)", re.DOTALL
)
_WORDS = {"=": "==", "in": "$in", "contains": CONTAINS}


@dataclass(frozen=True)
class Condition:
    """One comparison of a field: it holds where it holds for any of `values`; with ``!=``, where it does for all.

    >>> Condition("year", ">=", (2020,)).holds({"year": 2021.5})
    True
    """

    field: str
    operator: str
    values: tuple[Value, ...]

    def holds(self, document: Mapping[str, Any]) -> bool:
        """Whether a document meets it."""
        found = self.compared(document)
        if self.operator == CONTAINS:
            return any(wanted in value for value, wanted in found)
        compare = OPERATORS[self.operator]
        if self.operator == "!=":
            return bool(found) and all(compare(value, wanted) for value, wanted in found)
        return any(compare(value, wanted) for value, wanted in found)

    def compared(self, document: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        """What is compared: the document's value, beside each of those wanted that are of its kind."""
        found = field_value(document, self.field)
        if self.operator == CONTAINS:
            if isinstance(found, list):  # pairs of one kind: 1 is not True
                pairs = [[_pair(item, wanted) for item in found] for wanted in self.values]
                return [
                    ([one[0] for one in some if one], wanted) for some, wanted in zip(pairs, self.values, strict=True)
                ]
            texts = [text for wanted in self.values if isinstance(text := as_stored(wanted), str)]
            return [(found, text) for text in texts if isinstance(found, str)]
        return [pair for wanted in self.values if (pair := _pair(found, wanted)) is not None]


@dataclass(frozen=True)
class Filter:
    """Conditions and filters, joined by ``$and`` (all of them), ``$or`` (any), or ``$not`` (not all of them)."""

    joined: str
    parts: tuple[Condition | Filter, ...]

    def holds(self, document: Mapping[str, Any]) -> bool:
        """Whether a document may be an answer."""
        if self.joined == OR:
            return any(part.holds(document) for part in self.parts)
        return all(part.holds(document) for part in self.parts) is (self.joined == AND)

    def conditions(self) -> Iterator[Condition]:
        """All conditions in it."""
        for part in self.parts:
            if isinstance(part, Condition):
                yield part
            else:
                yield from part.conditions()

    def passing(self, documents: Callable[[], Iterable[tuple[Any, Mapping[str, Any]]]]) -> Iterator[Any]:
        """Names of the documents, given by name, that pass; a condition that no document could meet is warned of."""
        unmet = set(self.conditions())
        count = 0
        for name, document in documents():
            count += 1
            if unmet:
                unmet = {condition for condition in unmet if not condition.compared(document)}
            if self.holds(document):
                yield name
        for condition in sorted(unmet, key=lambda one: one.field) if count else ():
            if condition.values:
                _warn(condition, [document for _, document in islice(documents(), _FIRST)])


def parse_filter(given: Mapping[str, Any]) -> Filter:
    """Check a filter as users write it.

    Parameters
    ----------
    given
        Fields to conditions. A condition is a value, a list of values, or a dictionary of comparisons: ``==``, ``!=``,
        ``<``, ``<=``, ``>``, ``>=`` (also written ``$eq``, ``$ne``, ``$lt``, ``$lte``, ``$gt``, ``$gte``), ``$in``
        and ``$nin`` with a list, and ``$contains``: a text that has this part, or a list that has this element. In
        place of a field, ``$and`` and ``$or`` take a list of filters, and ``$not`` takes a filter.

    Raises
    ------
    InputError
        If it is not a dictionary, or a condition cannot be read; the message names the field.

    Examples
    --------
    >>> wanted = parse_filter({"year": {">=": 2020, "<": 2023}, "language": ["en", "fr"]})
    >>> wanted.holds({"year": 2021, "language": "fr"}), wanted.holds({"year": 2021})
    (True, False)
    >>> parse_filter({"$not": {"author.name": {"$contains": "Li"}}}).holds({"author": {"name": "Ada"}})
    True
    """
    return _parse(given, 0)


def filter_from_text(texts: Sequence[str]) -> dict[str, Any]:
    """The filter that ``--filter`` says, one or several that must all hold: JSON, or FIELD, comparison and value."""
    return {AND: [_from_text(text) for text in texts]}


def field_value(document: Mapping[str, Any], name: str) -> Any:
    """The value of a field, ``"author.name"`` also where it is a field of a field; None where there is none."""
    if name in document:
        return document[name]
    first, dot, rest = name.partition(".")
    while dot:
        if isinstance(inner := document.get(first), Mapping) and (found := field_value(inner, rest)) is not None:
            return found
        more, dot, rest = rest.partition(".")
        first = f"{first}.{more}"
    return None


def flat(document: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Fields and fields of fields, with the names by which :func:`field_value` finds them.

    >>> list(flat({"year": 2021, "author": {"name": "Ada"}}))
    [('year', 2021), ('author.name', 'Ada')]
    """
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def value_kind(value: Any) -> str | None:
    """``"boolean"``, ``"number"`` or ``"text"``; None for what no condition can meet."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "number"
    if isinstance(value, float):
        return "number" if math.isfinite(value) else None
    return "text" if isinstance(value, str) else None


def as_stored(value: Value) -> str | int | float | bool:
    """A value of a condition as documents hold it; a time is text."""
    return value.isoformat() if isinstance(value, datetime.datetime) else value


def _pair(found: Any, wanted: Value) -> tuple[Any, Any] | None:
    """A value of a document and one of a filter, where they are of one kind."""
    if isinstance(wanted, datetime.datetime):
        when = _time(found) if isinstance(found, str) else None
        return None if when is None else (when, wanted)
    kind = value_kind(found)
    return (found, wanted) if kind is not None and kind == value_kind(wanted) else None


def _time(text: str) -> datetime.datetime | None:
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=datetime.UTC)


def _parse(given: Any, depth: int) -> Filter:
    if not isinstance(given, Mapping):
        raise InputError(f"filter= is {type(given).__name__}; pass a dictionary of field to value.")
    if depth > DEPTH:
        raise InputError(f"filter= is nested deeper than {DEPTH} levels.")
    parts: list[Condition | Filter] = []
    for name, wanted in given.items():
        if name in (AND, OR):
            if not isinstance(wanted, list | tuple) or not wanted:
                raise InputError(f"filter= has {name!r} with {shown(wanted)}; it takes a list of filters.")
            parts.append(Filter(name, tuple(_parse(one, depth + 1) for one in wanted)))
        elif name == NOT:
            parts.append(Filter(NOT, (_parse(wanted, depth + 1),)))
        else:
            parts += _conditions(name, wanted, depth)
    return Filter(AND, tuple(parts))


def _conditions(name: Any, wanted: Any, depth: int) -> Iterator[Condition | Filter]:
    if not isinstance(name, str) or not name:
        raise InputError(f"filter= names the field {shown(name)}; a field's name is text.")
    if name.startswith("$"):
        raise InputError(f"filter= has {name!r}, which joins no filters; use {AND}, {OR} or {NOT}.")
    if not isinstance(wanted, Mapping):
        wanted = {"$in" if isinstance(wanted, _LISTS) else "==": wanted}
    if not wanted:
        raise InputError(f"filter= on {name!r}: an empty dictionary asks nothing; use {' '.join(OPERATORS)}.")
    for sign, value in wanted.items():
        if sign == NOT:
            yield Filter(NOT, (_parse({name: value}, depth + 1),))
            continue
        if not isinstance(sign, str) or sign not in _SIGNS:
            known = " ".join((*OPERATORS, "$in", "$nin", CONTAINS, NOT))
            raise InputError(f"filter= on {name!r}: {shown(sign)} is not a comparison; use one of {known}.")
        several = sign in ("$in", "$nin")
        if several and not isinstance(value, _LISTS):
            raise InputError(f"filter= on {name!r}: {sign} takes a list of values, not {shown(value)}.")
        values = tuple(_value(name, one) for one in (value if several else [value]))
        yield Condition(name, _SIGNS[sign], values)


def _value(name: str, value: Any) -> Value:
    if isinstance(value, datetime.date) and type(value).__name__ != "NaTType":
        return _time(value.isoformat()) or value.isoformat()
    plain: Value = scalar(value)
    if value_kind(plain) is None or (isinstance(plain, int) and too_long(plain)):
        raise InputError(
            f"filter= on {name!r}: {shown(value)} cannot be compared; use text, a finite number, a boolean or a date."
        )
    return plain


def _from_text(text: str) -> Mapping[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            found: Mapping[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"--filter {shown(text)} is no JSON ({error}).") from error
        return found
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"--filter {shown(text)} cannot be read; write FIELD, a comparison and a value, such as 'year >= 2020', "
            "'language in [\"en\", \"fr\"]' or 'title contains owl', or a filter in JSON."
        )
    try:
        value = json.loads(match["value"])
    except (ValueError, RecursionError):
        value = match["value"]
        value = value[1:-1] if len(value) > 1 and value[0] == value[-1] == "'" else value
    return {match["field"]: {_WORDS.get(match["sign"], match["sign"]): value}}


def _warn(condition: Condition, documents: Sequence[Mapping[str, Any]]) -> None:
    """Say why no document could meet a condition."""
    name = condition.field
    found = next((value for document in documents if (value := field_value(document, name)) is not None), None)
    if found is not None:
        kinds = " or ".join(sorted({value_kind(value) or "date" for value in condition.values}))
        logger.warning(
            "filter= on %r wants a %s; no document has one there, the first has %s.", name, kinds, shown(found)
        )
        return
    names = {name: None for document in documents for name, _ in flat(document)}
    near = difflib.get_close_matches(name, names, 3, 0.6)
    there = ("like it are " if near else "there are ") + ", ".join(map(repr, near or list(names)[:8]))
    logger.warning("filter= names the field %r, which no document has; %s.", name, there)
