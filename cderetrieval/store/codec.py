"""What a row of the store looks like: JSON text with a checksum (vectors: see :mod:`.blobs`).

SQLite finds a torn page but not a flipped bit inside a value. Each value therefore carries a crc32 that starts from the
row's number: it finds the flipped bit, and also a good value that turns up in a wrong row. JSON is written as ASCII, so
text with a lone surrogate (a broken scrape) is stored and comes back as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any
from zlib import crc32

from ..errors import InputError, StoreError
from ..values import scalar, shown, too_long


class Damage(StoreError):
    """A value that is not the one that was written; the store that holds it adds its name and the remedy."""


def encode_id(document_id: Hashable) -> str:
    """The JSON text of an id; 1, 1.0, "1" and True are four ids."""
    document_id = scalar(document_id)
    if isinstance(document_id, str):
        encoded = encode_basestring_ascii(document_id)
        # Two surrogates side by side come back from JSON as one character, and would then be another id.
        if document_id.isascii() or json.loads(encoded) == document_id:
            return encoded
        raise InputError(f"id {document_id!r} holds a broken surrogate pair; use another id.")
    if isinstance(document_id, int) and too_long(document_id):
        raise InputError("an id is a number of more than 4,300 digits; use another id.")
    if isinstance(document_id, int) or (isinstance(document_id, float) and math.isfinite(document_id)):
        return json.dumps(document_id)
    raise InputError(
        f"id {shown(document_id)} is {type(document_id).__name__}; use text, a finite number or a boolean."
    )


def encode_text(text: str) -> str:
    """The JSON text of a document's text."""
    if not isinstance(text, str):
        raise InputError(f"text is {type(text).__name__}, not str.")
    return encode_basestring_ascii(text)


def encode_json(value: Mapping[str, Any]) -> str:
    """The JSON text of a mapping whose keys are strings."""
    for key in value:
        if not isinstance(key, str):
            raise InputError(f"field {key!r} has a name that is not text.")
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        for key, item in value.items():
            try:
                json.dumps(item)
            except (TypeError, ValueError, RecursionError) as error:
                raise InputError(f"field {key!r} cannot be stored as JSON ({error}); convert it first.") from error
        raise


def checksum(text: str, seq: int) -> int:
    """Checksum of an ASCII text that belongs to row `seq`; of a number above 32 bits, zlib takes the lower ones."""
    return crc32(text.encode(), seq)


def decode(text: str, expected: int, seq: int) -> Any:
    """The value of a JSON text, once its checksum is found right."""
    if checksum(text, seq) != expected:
        raise Damage(f"row {seq} does not match its checksum")
    return json.loads(text)


def decode_ids(texts: Sequence[str]) -> list[Hashable]:
    """Many ids at once, in one call of the JSON parser: ten times faster than one by one."""
    return list(json.loads(f"[{','.join(texts)}]"))
