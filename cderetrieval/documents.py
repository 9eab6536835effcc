"""Documents in the forms that users have, checked row by row.

Accepted: dictionaries with a key field and text fields, strings, a pandas frame, BEIR rows (``_id``), a dictionary of
id to document as beir loads it, or any iterable of these. Rows stream; only the ids are held.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .errors import InputError
from .passages import FIELD, Passages, field_of, joined
from .values import SIMPLE, plain, scalar, shown, too_long

logger = logging.getLogger(__name__)

# Id, text to embed, and all fields.
Row = tuple[Hashable, str, Mapping[str, Any]]

# Fields of the text by default, those of BEIR rows; only the last is required.
DEFAULT_FIELDS = ("title", "text")
ONE = Passages(None)


class ContentId(str):
    """The id of a document that came without one: a hash of its fields, so that an equal document has an equal id."""

    __slots__ = ()

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> ContentId:
        """The id of these fields, in whatever order; 128 bits."""
        return cls(hashlib.sha256(json.dumps(payload, sort_keys=True, default=repr).encode()).hexdigest()[:32])


def document_rows(
    documents: Any,
    key: str,
    on: Sequence[str] | None,
    next_id: int = 0,
    *,
    skip_empty: bool = False,
    may_be_empty: bool = False,
    passages: Passages = ONE,
) -> Iterator[Row]:
    """Check documents and yield (id, text to embed, payload)."""
    seen: dict[str, int] = {}
    skipped = repeated = 0
    for number, row in enumerate(each_row(documents, key, on, next_id, passages)):
        if not row[1].strip():
            if skip_empty:
                skipped += 1
                continue
            fields = ", ".join(map(repr, DEFAULT_FIELDS if on is None else on))
            raise InputError(
                f"document {number} (id {row[0]!r}) has an empty text in {fields}. Give it one, or pass "
                "skip_empty=True to leave such documents out."
            )
        name = repr(row[0])
        if name in seen and isinstance(row[0], ContentId):
            repeated += 1
            continue
        if name in seen:
            raise InputError(
                f"document {number} has id {row[0]!r}, which document {seen[name]} of this call has too. "
                "Ids must differ within one call; a later call replaces."
            )
        seen[name] = number
        yield row
    if skipped:
        logger.warning("%d documents with an empty text were left out.", skipped)
    if repeated:
        logger.warning("%d documents without an id are repeated, and were left out.", repeated)
    if not seen and not may_be_empty:
        raise InputError("no documents: the call got an empty collection.")


def each_row(
    documents: Any, key: str, on: Sequence[str] | None, next_id: int = 0, passages: Passages = ONE
) -> Iterator[Row]:
    """Yield (id, text, payload) of each document; unlike :func:`document_rows`, texts may be empty and ids equal."""
    nameless = False
    for number, document in enumerate(each(documents)):
        if isinstance(document, list):
            document = {key: next_id + number, FIELD: document}
        if isinstance(document, str):
            yield next_id + number, document, {key: next_id + number, "text": document}
        elif isinstance(document, Mapping):
            fields = {str(name): scalar(value) for name, value in document.items()}
            if len(fields) < len(document):
                raise InputError(f"document {number}: {_repeated(document)}; rename one of them.")
            unnamed = key == "id" and not {"id", "_id"} & fields.keys()
            nameless = nameless or (unnamed and number == 0)  # later ones may have lost theirs
            if nameless and unnamed:
                fields = {"id": ContentId.of(_payload(fields, number)), **fields}
            row_id = _document_id(fields, key, number)
            yield row_id, document_text(fields, on, number, passages), _payload(fields, number)
        else:
            raise InputError(f"document {number} is {type(document).__name__}; pass dictionaries or strings.")


def each(documents: Any) -> Iterable[Any]:
    """The rows of a table, a list or a dictionary."""
    if isinstance(documents, str | bytes):
        raise InputError("documents is one string; pass a list of documents.")
    if hasattr(documents, "itertuples"):
        columns = [str(column) for column in documents.columns]
        if len(set(columns)) < len(columns):
            raise InputError(f"the frame: {_repeated(columns)}; rename one of them.")
        return (dict(zip(columns, row, strict=True)) for row in documents.itertuples(index=False, name=None))
    if isinstance(documents, Mapping):
        if not all(isinstance(document, Mapping) for document in documents.values()):
            raise InputError(
                "documents is one dictionary; pass a list of documents, [document], or a dictionary of id to "
                "dictionary."
            )
        return ({"_id": document_id, **document} for document_id, document in documents.items())
    if not isinstance(documents, Iterable):
        raise InputError(f"documents is {type(documents).__name__}; pass a list, a frame or another iterable.")
    return documents


def _document_id(payload: Mapping[str, Any], key: str, number: int) -> Hashable:
    name = "_id" if key == "id" and key not in payload and "_id" in payload else key
    if name not in payload:
        fields = ", ".join(payload) or "none"
        raise InputError(f"document {number} has no field {key!r}; its fields are: {fields}. Name the id with key=.")
    return checked_id(payload[name], f"document {number}: {key!r}")


def checked_id(value: Any, where: str) -> Hashable:
    """An id that can be kept; `where` names it in a message."""
    value = scalar(value)
    if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{where} is {shown(value)}; an id is a string, a finite number or a boolean.")
    if isinstance(value, int) and too_long(value):
        raise InputError(f"{where} is a number of more than 4,300 digits; use another id.")
    return value


def _payload(fields: Mapping[str, Any], number: int) -> dict[str, Any]:
    payload = {}
    for name, value in fields.items():
        try:
            payload[name] = value if type(value) in SIMPLE else plain(value)
        except InputError as error:
            raise InputError(f"row {number}: field {name!r} {error}") from error
    return payload


def _repeated(names: Iterable[Any]) -> str:
    name, count = Counter(map(str, names)).most_common(1)[0]
    return f"{count} fields are named {name!r}"


def document_text(payload: Mapping[str, Any], on: Sequence[str] | None, number: int, passages: Passages = ONE) -> str:
    """Join the texts of the fields by spaces; null counts as empty. `number` is the document's, for messages."""
    cut = field_of(payload, on, passages)
    if cut is not None and cut not in payload:
        fields = ", ".join(payload) or "none"
        raise InputError(f"document {number} has no field {cut!r}; its fields are: {fields}. Name it with passages=.")
    parts = []
    for name in DEFAULT_FIELDS if on is None else on:
        if name not in payload or name == cut:
            if name == cut or (on is None and (name != DEFAULT_FIELDS[-1] or cut is not None)):
                continue
            fields = ", ".join(payload) or "none"
            raise InputError(f"document {number} has no field {name!r}; its fields are: {fields}. Name them with on=.")
        value = payload[name]
        if value is not None and not isinstance(value, str):
            raise InputError(f"document {number}: field {name!r} is {type(value).__name__}, not a string.")
        if value and value.strip():
            parts.append(value.strip())
    if cut is not None:
        try:
            parts.append(joined(payload[cut], cut))
        except InputError as error:
            raise InputError(f"document {number}: {error}") from error
    return " ".join(parts)
