"""What users call documents, as rows of (id, text, payload), and queries: each checked before anything is done.

Accepted: dictionaries with a key field and text fields, strings, a pandas frame, BEIR rows (``_id``), a dictionary of
id to document as beir loads it, or any iterable of these. Rows stream: nothing is held but the ids seen.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InputError
from .vectors import is_vectors

logger = logging.getLogger(__name__)

Row = tuple[Hashable, str, dict[str, Any]]

# Where `on` is not given: what BEIR rows hold. Only the last is required.
DEFAULT_FIELDS = ("title", "text")


def document_rows(
    documents: Any,
    key: str,
    on: Sequence[str] | None,
    next_id: int = 0,
    *,
    skip_empty: bool = False,
    may_be_empty: bool = False,
) -> Iterator[Row]:
    """Check documents and yield (id, text to embed, payload).

    Parameters
    ----------
    documents
        See the module's first lines.
    key
        Field of the id; in BEIR rows ``_id`` stands for ``id``.
    on
        Fields that make the text, joined by spaces; None: ``title``, where there is one, and ``text``.
    next_id
        First number given to strings, which have no id of their own.
    skip_empty
        Leave out documents with an empty text, and log how many, in place of an error.
    may_be_empty
        Whether there may be no document at all, as in a part of a corpus.

    Raises
    ------
    InputError
        At the first bad row; the message names the row, the field and the remedy.

    Examples
    --------
    >>> list(document_rows([{"id": 7, "title": "Owls", "text": "hunt at night"}], "id", None))
    [(7, 'Owls hunt at night', {'id': 7, 'title': 'Owls', 'text': 'hunt at night'})]
    """
    seen: dict[str, int] = {}
    skipped = 0
    for number, document in enumerate(_iterate(documents)):
        if isinstance(document, str):
            row: Row = (next_id + number, document, {key: next_id + number, "text": document})
        elif isinstance(document, Mapping):
            payload = {str(name): _plain(value) for name, value in document.items()}
            row = (_document_id(payload, key, number), document_text(payload, on, number), payload)
        else:
            raise InputError(f"document {number} is {type(document).__name__}; pass dictionaries or strings.")
        if not row[1].strip():
            if skip_empty:
                skipped += 1
                continue
            raise InputError(
                f"document {number} (id {row[0]!r}) has an empty text in {_names(on)}. Give it one, or pass "
                "skip_empty=True to leave such documents out."
            )
        name = repr(row[0])
        if name in seen:
            raise InputError(
                f"document {number} has id {row[0]!r}, which document {seen[name]} of this call has too. "
                "Ids must differ within one call; a later call replaces."
            )
        seen[name] = number
        yield row
    if skipped:
        logger.warning("%d documents with an empty text were left out.", skipped)
    if not seen and not may_be_empty:
        raise InputError("no documents: the call got an empty collection.")


def query_texts(queries: Any) -> tuple[list[Hashable] | None, list[str] | None]:
    """Query ids, where there are any, and texts; no texts for ready vectors.

    Raises
    ------
    InputError
        If a query is empty or no string; the message names it.
    """
    if is_vectors(queries):
        return None, None
    if not isinstance(queries, Iterable):
        raise InputError(f"queries is {type(queries).__name__}; pass a string, a list of them, or vectors.")
    query_ids = list(queries) if isinstance(queries, Mapping) else None
    texts = (
        [queries] if isinstance(queries, str) else list(queries.values() if isinstance(queries, Mapping) else queries)
    )
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            what = "is empty" if isinstance(text, str) else f"is {type(text).__name__}, not a string"
            raise InputError(f"query {row} {what}.")
    return query_ids, texts


def _iterate(documents: Any) -> Iterable[Any]:
    """One document after the other, from a frame, a mapping of id to document, or an iterable."""
    if isinstance(documents, str | bytes):
        raise InputError("documents is one string; pass a list of documents.")
    if hasattr(documents, "itertuples"):
        columns = [str(column) for column in documents.columns]
        return (dict(zip(columns, row, strict=True)) for row in documents.itertuples(index=False, name=None))
    if isinstance(documents, Mapping):
        return _from_mapping(documents)
    if not isinstance(documents, Iterable):
        raise InputError(f"documents is {type(documents).__name__}; pass a list, a frame or another iterable.")
    return documents


def _from_mapping(documents: Mapping[Any, Any]) -> Iterator[Any]:
    """A dictionary of id to document; one document by itself is the likelier mistake."""
    if not all(isinstance(document, Mapping) for document in documents.values()):
        raise InputError(
            "documents is one dictionary; pass a list of documents, [document], or a dictionary of id to dictionary."
        )
    for document_id, document in documents.items():
        yield {"_id": document_id, **document}


def _document_id(payload: Mapping[str, Any], key: str, number: int) -> Hashable:
    name = "_id" if key == "id" and key not in payload and "_id" in payload else key
    if name not in payload:
        fields = ", ".join(payload) or "none"
        raise InputError(f"document {number} has no field {key!r}; its fields are: {fields}. Name the id with key=.")
    value = payload[name]
    if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"document {number}: {key!r} is {value!r}; an id is a string, a finite number or a boolean.")
    return value


def document_text(payload: Mapping[str, Any], on: Sequence[str] | None, number: int) -> str:
    """The fields' texts joined by spaces; null counts as empty. `number` is the document's, for the message."""
    parts = []
    for name in DEFAULT_FIELDS if on is None else on:
        if name not in payload:
            if on is None and name != DEFAULT_FIELDS[-1]:
                continue
            fields = ", ".join(payload) or "none"
            raise InputError(f"document {number} has no field {name!r}; its fields are: {fields}. Name them with on=.")
        value = payload[name]
        if value is not None and not isinstance(value, str):
            raise InputError(f"document {number}: field {name!r} is {type(value).__name__}, not a string.")
        if value and value.strip():
            parts.append(value.strip())
    return " ".join(parts)


def _plain(value: Any) -> Any:
    """Numpy scalars as Python values, the frame's missing values as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _names(on: Sequence[str] | None) -> str:
    return ", ".join(repr(name) for name in (DEFAULT_FIELDS if on is None else on))
