"""A document as a row of a Milvus collection, and back.

- ``id``, the primary key: the JSON text of the id, so that 1, 1.0, "1" and True are four ids. Text is marked ``s:``
  and holds neither double quotes nor backslashes: pymilvus's iterators write keys into expressions as they are.
- ``seq``: a number that grows with insertion.
- ``passages``, where documents are cut: how many vectors a document has, as a negative number unless the first is that
  of its head. The further ones are rows of their own, with 0 here, no payload, and a key that is that of the document
  after their number, ``p3:s:d7``.
- ``payload``: the document as JSON, its embedded text where that does not follow from the document, and the spans of
  its passages. What is longer than a Milvus string (65,535 bytes) is compressed.
- ``metadata``: what filters can ask for, text, numbers and booleans under names that tell their types (``t:``, ``n:``,
  ``b:``): Milvus 2.3 and Milvus Lite compare values of unlike types in unlike ways.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from ..errors import InputError, StoreError
from ..filters import AND, CONTAINS, NOT, Condition, Filter, as_stored, flat, value_kind
from ..splitting import Span
from .expressions import EVERYTHING, INT64, Expression, all_of, any_of, can_be_written, compare, is_plain

MAX_KEY = 1_024
MAX_STRING = 65_535
MAX_JSON = 65_536
# Longer texts cannot be asked for; they would only fill the field.
MAX_METADATA_TEXT = 512
# As many fields of that length, of four bytes a character, and their names fit.
FEW_FIELDS = 16
TEXT = "s:"
PREFIXES = {"text": "t:", "number": "n:", "boolean": "b:"}
_can_be_named = lru_cache(is_plain)
# Made once: `json.dumps` makes an encoder for each call, which takes longer than a short document does.
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ESCAPES: dict[str, str] = {"%": "%25", "\\": "%5C", '"': "%22"}


def key_of(id_json: str) -> str:
    r"""Primary key of an id, given as its JSON text.

    >>> [key_of(text) for text in ('"d7"', '7', '"a\\"b"', 'true')]
    ['s:d7', '7', 's:a%5C%22b', 'true']
    """
    key = id_json
    if id_json.startswith('"'):
        key = TEXT + id_json[1:-1]
        for plain, escaped in _ESCAPES.items():
            key = key.replace(plain, escaped)
    if len(key) > MAX_KEY:
        raise InputError(f"id {id_json[:40]}... is {len(key):,} bytes long; Milvus holds ids of up to {MAX_KEY:,}.")
    return key


def id_json_of(key: str) -> str:
    r"""JSON text of the id of a primary key.

    >>> id_json_of('s:a%5C%22b')
    '"a\\"b"'
    """
    if not key.startswith(TEXT):
        return key
    text = key[len(TEXT) :]
    if "%" in text:
        for plain, escaped in reversed(_ESCAPES.items()):
            text = text.replace(escaped, plain)
    return f'"{text}"'


def passage_key(key: str, number: int) -> str:
    """Primary key of a passage: the first of a document has that of the document.

    >>> passage_key("s:d7", 0), passage_key("s:d7", 3)
    ('s:d7', 'p3:s:d7')
    """
    return f"p{number}:{key}" if number else key


def signed(spans: Sequence[Span]) -> int:
    """How many vectors a document has, negative unless the first is that of its head."""
    return len(spans) if spans and spans[0].head else -max(1, len(spans))


def owner_of(key: str) -> tuple[str, int]:
    """Key of the document of a passage, and its number in it.

    >>> owner_of("p3:s:d7"), owner_of("s:p3:s:d7")
    (('s:d7', 3), ('s:p3:s:d7', 0))
    """
    if not key.startswith("p"):
        return key, 0
    number, _, owner = key[1:].partition(":")
    if not number.isdecimal():
        raise StoreError(f"the collection holds ids that this package did not write ({key!r}).")
    return owner, int(number)


def ids_of(keys: Sequence[str]) -> list[Hashable]:
    """Ids of primary keys. Where all are plain text, without anything escaped, no parser is needed: 10,000 in 2 ms."""
    if set(map(itemgetter(0), keys)) == {TEXT[0]} and "%" not in "".join(keys):
        return [key[len(TEXT) :] for key in keys]
    try:
        return list(json.loads(f"[{','.join(id_json_of(key) for key in keys)}]"))
    except ValueError as error:
        raise StoreError(f"the collection holds ids that this package did not write ({error}).") from error


def encode_payload(document: Mapping[str, Any], text: str | None, spans: Sequence[Span] = ()) -> str:
    """A document, its text where it must be kept, and its spans, as the string that is stored."""
    value = [document, text, spans] if spans else [document] if text is None else [document, text]
    packed = _compact(value)
    if not packed.isascii():
        try:
            size = len(packed.encode())
        except UnicodeEncodeError:  # a lone surrogate
            packed = json.dumps(value, separators=(",", ":"))
            size = len(packed)
    else:
        size = len(packed)
    if size <= MAX_STRING:
        return packed
    small = base64.b64encode(zlib.compress(packed.encode())).decode()
    if len(small) > MAX_STRING:
        raise InputError(
            f"it takes {size:,} bytes, {len(small):,} when compressed; Milvus holds {MAX_STRING:,}. Keep long fields "
            "elsewhere and add the document without them, or use an index on this machine."
        )
    return small


def decode_payload(stored: str) -> tuple[dict[str, Any], str | None]:
    """The document, and its text where that was kept.

    >>> decode_payload(encode_payload({"id": 1, "text": "é" * 90_000}, None))[0]["id"]
    1
    """
    document, text, _ = decode_row(stored)
    return document, text


def decode_row(stored: str) -> tuple[dict[str, Any], str | None, list[Span]]:
    """The same, and the spans."""
    try:
        packed = stored if stored.startswith("[") else zlib.decompress(base64.b64decode(stored, validate=True))
        document, text, spans = (*json.loads(packed), None, ())[:3]
        return document, text, [Span(*span) for span in spans or ()]
    except (ValueError, TypeError, zlib.error) as error:
        raise StoreError(f"the collection holds a document that this package did not write ({error}).") from error


def metadata_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What filters can ask for of a document.

    >>> metadata_of({"year": 2021, "language": "fr", "open": True, "tags": ["a"], "missing": None})
    {'n:year': 2021, 't:language': 'fr', 'b:open': 1}
    """
    found: dict[str, Any] = {}
    for name, value in flat(document):
        kind = value_kind(value)
        if kind is None or not _can_be_named(name):
            continue
        if kind == "text":
            if len(value) > MAX_METADATA_TEXT or not can_be_written(value):
                continue
        elif kind == "boolean":
            value = int(value)
        elif isinstance(value, int) and value not in INT64:
            continue
        found[PREFIXES[kind] + name] = value
    if len(found) > FEW_FIELDS:
        size = len(json.dumps(found, ensure_ascii=False).encode())
        if size > MAX_JSON:
            raise InputError(f"its {len(found)} short fields take {size:,} bytes; Milvus can filter by {MAX_JSON:,}.")
    return found


def expression(wanted: Filter) -> Expression:
    r"""A filter as Milvus reads it.

    >>> from cderetrieval.filters import parse_filter
    >>> expression(parse_filter({"year": {">=": 2020}, "language": ["en", "fr"]}))
    '(metadata["n:year"] >= 2020) and (metadata["t:language"] == "en" or metadata["t:language"] == "fr")'
    """
    if wanted.joined == NOT:
        raise InputError("filter=: Milvus negates no filter ($not); use '!=' or '$nin', or an index on this machine.")
    parts = [_condition(part) if isinstance(part, Condition) else expression(part) for part in wanted.parts]
    if wanted.joined == AND:
        return all_of(part for part in parts if part)
    return any_of(all_of([part]) for part in parts) if all(parts) else EVERYTHING


def _condition(condition: Condition) -> Expression:
    name, sign, values = condition.field, condition.operator, [as_stored(value) for value in condition.values]
    if sign == CONTAINS:
        raise InputError(f"filter= on {name!r}: Milvus has no {CONTAINS} here; use an index on this machine.")
    if not values:
        return compare("seq", "<", 0)  # any of nothing
    if sign != "!=":
        return any_of(_comparison(name, sign, value) for value in values)
    kinds = dict.fromkeys(map(value_kind, values))  # a value of one of these kinds, and none of that kind here
    return any_of(all_of(_comparison(name, sign, v) for v in values if value_kind(v) == kind) for kind in kinds)


def _comparison(name: str, sign: str, value: Any) -> Expression:
    kind = value_kind(value)
    assert kind is not None, "parse_filter let it pass"
    if not _can_be_named(name):
        raise InputError(f"filter= on {name!r}: Milvus cannot filter by a name with quotes, backslashes or controls.")
    if kind == "text" and not (len(value) <= MAX_METADATA_TEXT and can_be_written(value)):
        raise InputError(
            f"filter= on {name!r}: Milvus compares texts of up to {MAX_METADATA_TEXT} characters without controls and "
            "lone surrogates."
        )
    if isinstance(value, int) and value not in INT64:
        raise InputError(f"filter= on {name!r}: {value} is beyond the 64-bit integers of Milvus.")
    asked = int(value) if kind == "boolean" else value
    signs = ("<", ">") if sign == "!=" else (sign,)  # a missing field would be unequal for Milvus 2.3
    return any_of(compare("metadata", one, asked, key=PREFIXES[kind] + name) for one in signs)
