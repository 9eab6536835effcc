"""Metadata filters: which documents may be answers.

    retriever("solar power", filter={"year": {">=": 2020}, "language": ["en", "fr"], "reviewed": True})

A filter maps fields to conditions, all of which must hold: a value (equal), a list (equal to one of them), or a
dictionary of comparisons. Text is ordered by code point, and dates are their ISO text. A missing field, null, or a
value of another type meets no condition: 1 is not "1" and not True, and ``{"!=": 1}`` means "a number other than 1".
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InputError
from .values import scalar, shown, too_long

Value = str | int | float | bool
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """One comparison of a field: it holds where it holds for any of `values` (several only with ``==``).

    >>> Condition("year", ">=", (2020,)).holds({"year": 2021.5})
    True
    """

    field: str
    operator: str
    values: tuple[Value, ...]

    def holds(self, document: Mapping[str, Any]) -> bool:
        """Whether a document meets it."""
        found = document.get(self.field)
        kind = value_kind(found)
        compare = OPERATORS[self.operator]
        return kind is not None and any(kind == value_kind(value) and compare(found, value) for value in self.values)


@dataclass(frozen=True)
class Filter:
    """All of these conditions."""

    conditions: tuple[Condition, ...]

    def holds(self, document: Mapping[str, Any]) -> bool:
        """Whether a document may be an answer."""
        return all(condition.holds(document) for condition in self.conditions)


def parse_filter(given: Mapping[str, Any]) -> Filter:
    """Check a filter as users write it.

    Raises
    ------
    InputError
        If it is not a dictionary, or a condition cannot be read; the message names the field.

    Examples
    --------
    >>> wanted = parse_filter({"year": {">=": 2020, "<": 2023}, "language": ["en", "fr"]})
    >>> wanted.holds({"year": 2021, "language": "fr"}), wanted.holds({"year": 2021})
    (True, False)
    """
    if not isinstance(given, Mapping):
        raise InputError(f"filter= is {type(given).__name__}; pass a dictionary of field to value.")
    conditions: list[Condition] = []
    for name, wanted in given.items():
        if not isinstance(name, str) or not name:
            raise InputError(f"filter= names the field {shown(name)}; a field's name is text.")
        if isinstance(wanted, Mapping):
            if not wanted:
                raise InputError(f"filter= on {name!r}: an empty dictionary asks nothing; use {' '.join(OPERATORS)}.")
            conditions += [_comparison(name, sign, value) for sign, value in wanted.items()]
        elif isinstance(wanted, list | tuple | set | frozenset):
            conditions.append(Condition(name, "==", tuple(_value(name, value) for value in wanted)))
        else:
            conditions.append(Condition(name, "==", (_value(name, wanted),)))
    return Filter(tuple(conditions))


def value_kind(value: Any) -> str | None:
    """``"boolean"``, ``"number"`` or ``"text"``; None for what no condition can meet."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "number"
    if isinstance(value, float):
        return "number" if math.isfinite(value) else None
    return "text" if isinstance(value, str) else None


def _comparison(name: str, sign: Any, value: Any) -> Condition:
    if sign not in OPERATORS:
        raise InputError(f"filter= on {name!r}: {shown(sign)} is not a comparison; use one of {' '.join(OPERATORS)}.")
    return Condition(name, sign, (_value(name, value),))


def _value(name: str, value: Any) -> Value:
    plain: Value = scalar(value)
    if value_kind(plain) is None or (isinstance(plain, int) and too_long(plain)):
        raise InputError(
            f"filter= on {name!r}: {shown(value)} cannot be compared; use text, a finite number or a boolean."
        )
    return plain
