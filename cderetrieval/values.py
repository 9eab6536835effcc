"""Values as users hold them (numpy's and pandas' scalars, dates, UUIDs, decimals, bytes), as JSON values.

Documents from dictionaries, frames and Parquet files all pass through here, so equal values are stored alike.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import InputError

# A deeper value could be written, but not be read again from a deeper call stack.
DEPTH = 200
# Python converts numbers of up to 4,300 digits to text; no number of fewer bits than this has more.
SURE_BITS = 14_000
SHOWN = 80
# Types that need no conversion.
SIMPLE = frozenset({str, int, bool, type(None)})


def scalar(value: Any) -> Any:
    """One value as a JSON value; containers, bytes and unknown types are left as they are.

    >>> scalar(np.int64(3)), scalar(datetime.date(2024, 2, 29)), scalar(float("nan")), scalar(decimal.Decimal("0.10"))
    (3, '2024-02-29', None, 0.1)
    """
    kind = type(value)
    if kind in SIMPLE:
        return value
    if kind is float:
        return None if math.isnan(value) else value
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.generic) and not isinstance(value, str):
        return scalar(_from_numpy(value))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, uuid.UUID):
        return str(value)
    return _from_decimal(value) if isinstance(value, decimal.Decimal) else value


def plain(value: Any, depth: int = 0) -> Any:
    """A value and all that it contains as JSON values; unknown types stay. Errors continue a sentence about a field.

    >>> plain({"when": [datetime.date(2024, 2, 29)], "raw": b"owls", "counts": np.arange(2)})
    {'when': ['2024-02-29'], 'raw': 'owls', 'counts': [0, 1]}
    """
    if type(value) in SIMPLE:
        return value
    value = scalar(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return _from_bytes(bytes(value))
    if not isinstance(value, Mapping | list | tuple | np.ndarray):
        return value
    if depth >= DEPTH:
        raise InputError(f"cannot be stored as JSON (nested deeper than {DEPTH} levels); convert it first.")
    if not isinstance(value, Mapping):
        return [plain(item, depth + 1) for item in value]
    if len({str(key) for key in value}) < len(value):
        raise InputError("cannot be stored as JSON (two keys of a mapping are one as text); convert it first.")
    return {key: plain(item, depth + 1) for key, item in value.items()}


def too_long(value: int) -> bool:
    """Whether a whole number has more digits than Python writes as text."""
    if value.bit_length() < SURE_BITS:
        return False
    try:
        return not str(value)
    except ValueError:
        return True


def shown(value: Any) -> str:
    """A value for a message: short, whatever it is.

    >>> shown("owls"), shown(10**5_000)
    ("'owls'", 'int')
    """
    try:
        text = repr(value)
    except Exception:  # numbers of too many digits, deep nesting, broken classes of users
        return type(value).__name__
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def id_name(value: Any) -> str:
    """An id as text, as judgements and runs compare it: 17, 17.0 (from a frame with a gap) and "17" are equal.

    >>> id_name(17), id_name(np.float64(17)), id_name("17"), id_name(1.5)
    ('17', '17', '17', '1.5')
    """
    value = scalar(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return str(value)
    except ValueError:
        raise InputError("an id of more than 4,300 digits has no text; use another id.") from None


def _from_numpy(value: np.generic) -> Any:
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else _from_datetime(value)
    if isinstance(value, np.timedelta64):
        return None if np.isnat(value) else float(value / np.timedelta64(1, "s"))
    return float(value) if isinstance(value, np.floating) else value.item()


def _from_datetime(value: np.datetime64) -> str:
    """The text that `isoformat` gives for the same time; `item` is a whole number for nanoseconds."""
    if np.datetime_data(value)[0] in ("h", "m"):
        value = value.astype("datetime64[s]")
    text, _, fraction = str(value).partition(".")
    fraction = fraction.rstrip("0")
    return f"{text}.{fraction:0<{6 if len(fraction) <= 6 else 9}}" if fraction else text


def _from_decimal(value: decimal.Decimal) -> Any:
    if value.is_nan():
        return None
    if not value.is_finite():
        return float(value)
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= 0 and value.adjusted() < 300:
        return int(value)
    number = float(value)
    return number if math.isfinite(number) and decimal.Decimal(repr(number)) == value else str(value)


def _from_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
