"""Expressions of Milvus, and the one place where a value enters one.

Templates (``filter_params``) would keep values out of the text, but neither Milvus 2.3 nor Milvus Lite has them. So a
value is written as a literal that both read back as it was: text in double quotes, quotes and backslashes escaped, and
what one of the two cannot read refused. A connection takes no filter but an :class:`Expression`, and no ``ids=``, which
pymilvus pastes between single quotes as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

from ..errors import InputError
from ..filters import OPERATORS

INT64 = range(-(2**63), 2**63)
_UNWRITABLE = re.compile("[\x00-\x1f\ud800-\udfff]")
_FIELD = re.compile("[a-z]+")
# Made once: `json.dumps` makes an encoder for each call.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class Expression(str):
    """What selects rows. Only this module makes one; what is put together by hand is plain text."""

    __slots__ = ()


EVERYTHING = Expression()


def can_be_written(text: str) -> bool:
    """Whether a text can stand in an expression: no controls, which Milvus Lite cannot unescape, no surrogates."""
    return _UNWRITABLE.search(text) is None


def is_plain(text: str) -> bool:
    """Whether a text needs no escaping: pymilvus's iterators paste keys between double quotes as they are."""
    return can_be_written(text) and not set('"\\') & set(text)


def literal(value: str | int | float) -> str:
    r"""A value as Milvus reads it.

    >>> print(literal('"O\'Brien"'), literal(-1.5))
    "\"O'Brien\"" -1.5
    """
    if isinstance(value, str):
        if not can_be_written(value):
            raise InputError(f"{value[:40]!r}: Milvus compares no text with controls or lone surrogates.")
        return _encode(value)
    if value not in INT64 if isinstance(value, int) else not math.isfinite(value):
        raise InputError(f"{value!r} is beyond the numbers of Milvus.")
    return _encode(value)


def compare(field: str, sign: str, value: str | int | float, *, key: str | None = None) -> Expression:
    """Rows whose field, or a key of it, compares so with a value.

    >>> compare("metadata", ">=", 2020, key="n:year")
    'metadata["n:year"] >= 2020'
    """
    if sign not in OPERATORS:
        raise InputError(f"{sign!r} is no comparison.")
    return Expression(f"{_named(field, key)} {sign} {literal(value)}")


def one_of(field: str, values: Iterable[str]) -> Expression:
    """Rows whose field is one of the values.

    >>> one_of("id", ["s:a", "7"])
    'id in ["s:a", "7"]'
    """
    return Expression(f"{_named(field)} in [{', '.join(map(literal, values))}]")


def starting_with(field: str, prefix: str) -> Expression:
    """Rows whose field starts so; the prefix holds nothing that ``like`` takes for a pattern.

    >>> starting_with("name", "building:")
    'name like "building:%"'
    """
    if set(r"%_\\") & set(prefix):
        raise InputError(f"{prefix!r} is a pattern, not the start of a name.")
    return Expression(f"{_named(field)} like {literal(prefix + '%')}")


def all_of(parts: Iterable[Expression]) -> Expression:
    """Rows that each part selects."""
    return Expression(" and ".join(f"({part})" for part in parts))


def any_of(parts: Iterable[Expression]) -> Expression:
    """Rows that at least one part selects."""
    return Expression(" or ".join(parts))


def _named(field: str, key: str | None = None) -> str:
    if not _FIELD.fullmatch(field) or not (key is None or is_plain(key)):
        raise InputError(f"{field!r}, {key!r}: Milvus has no field with quotes, backslashes or controls.")
    return field if key is None else f"{field}[{literal(key)}]"
