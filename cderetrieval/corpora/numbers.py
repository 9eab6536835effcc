"""Columns of a CSV that hold nothing but numbers, as numbers: filters then compare them as such."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from .readers import Rows

# 007 is a code and no number, and a whole number of more digits may be an id.
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?([eE][+-]?\d{1,2})?")


def with_numbers(rows: Callable[[], Rows], text: Collection[str]) -> Rows:
    """Rows in which columns of numbers are numbers, and null where they are empty; those of `text` stay text.

    >>> list(with_numbers(lambda: iter([(2, {"id": "7", "year": "2019"}), (3, {"id": "8", "year": ""})]), {"id"}))
    [(2, {'id': '7', 'year': 2019}), (3, {'id': '8', 'year': None})]
    """
    names = _columns_of_numbers(rows(), text)
    for number, row in rows():
        yield number, row | {name: _number(row[name]) for name in names}


def _columns_of_numbers(rows: Rows, text: Collection[str]) -> set[str]:
    found: set[str] = set()
    possible: set[str] | None = None
    for _, row in rows:
        possible = {name for name in row if name not in text} if possible is None else possible
        possible = {name for name in possible if not row[name] or _NUMBER.fullmatch(row[name])}
        found |= {name for name in possible if row[name]}
        if not possible:
            break
    return found & (possible or set())


def _number(value: str) -> int | float | None:
    return None if not value else int(value) if value.lstrip("-").isdigit() else float(value)
