"""A retriever as frameworks see it: texts with metadata, found by queries; ids are text."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..documents import Row
from ..errors import InputError
from ..passages import field_of
from ..retrieval.retriever import Retriever
from ..values import id_name

# A document of a framework: its id (None: a new one), its text, and its metadata.
Item = tuple[str | None, str, Mapping[str, Any]]

# Comparisons of frameworks, in the words of this package's filters.
SIGNS = {"==": "==", "!=": "!=", ">": ">", "<": "<", ">=": ">=", "<=": "<="}
SIGNS |= {"in": "$in", "not in": "$nin", "nin": "$nin", "contains": "$contains"}


class Found(NamedTuple):
    """A text that was found: a passage, or a whole document."""

    # Id of the document; `id` tells its passages apart where these are what is ranked.
    source: str
    id: str
    text: str
    metadata: dict[str, Any]
    score: float | None = None
    # Where the text is in its document; None where it is the whole of it.
    start: int | None = None
    end: int | None = None
    heading: str = ""

    @property
    def described(self) -> dict[str, Any]:
        """The metadata, and of a part of a document where it is."""
        if self.start is None:
            return self.metadata
        return {"heading": self.heading, "start": self.start, "end": self.end, **self.metadata}


class Adapter:
    """Documents in, passages out. `whole`: documents out."""

    def __init__(self, retriever: Retriever, *, whole: bool = False) -> None:
        if not isinstance(retriever, Retriever):
            raise InputError(f"retriever is {type(retriever).__name__}; pass a Retriever, or Retriever.load(path).")
        self.retriever, self.whole = retriever, whole

    def find(self, query: str, k: int, **options: Any) -> list[Found]:
        """The best k texts; `options` as of a retriever's call."""
        if not len(self.retriever):
            return []
        hits = self.retriever([query], k, documents=True, passages=not self.whole, **options)[0]
        return [self._found(hit, options.get("by") == "passage") for hit in hits]

    def add(self, items: Iterable[Item], **options: Any) -> list[str]:
        """Add documents; their ids."""
        rows = [self._row(number, item) for number, item in enumerate(items)]
        if rows:
            self.retriever.add(rows, **options)
        ids = [str(row[self.key]) for row in rows]
        return [one for one in ids if one in self.retriever] if options.get("skip_empty") else ids

    def get(self, ids: Sequence[str]) -> list[Found]:
        """Those of the documents that are there."""
        own = [self.own_id(name) for name in dict.fromkeys(ids)]
        rows = zip(own, self.retriever.get(own), strict=True)
        return [self._document((one, "", document)) for one, document in rows if document is not None]

    def all(self) -> Iterator[Found]:
        """Each document."""
        return map(self._document, self.retriever.collection.rows())

    def remove(self, ids: Iterable[str]) -> None:
        """Remove those of the documents that are there."""
        own = [self.own_id(name) for name in dict.fromkeys(ids)]
        if there := [one for one in own if one in self.retriever]:
            self.retriever.remove(there)

    def own_id(self, name: str) -> Hashable:
        """The id that a text names: an index that was made elsewhere may have numbers."""
        if name not in self.retriever:
            with contextlib.suppress(ValueError):
                value = json.loads(name)
                if isinstance(value, int | float) and value in self.retriever:
                    return value
        return name

    @property
    def key(self) -> str:
        """Field of the id."""
        return self.retriever.collection.settings.key

    def _body(self, payload: Mapping[str, Any]) -> str:
        """Field of a document's text, after its title."""
        collection = self.retriever.collection
        on = collection.settings.on
        return field_of(payload, on, collection.passages) or ("text" if on is None else on[-1])

    def _row(self, number: int, item: Item) -> dict[str, Any]:
        name, text, metadata = item
        row = {self.key: str(uuid.uuid4()) if name is None else name, self._body(metadata): text}
        if double := sorted(set(row) & set(metadata)):
            raise InputError(
                f"metadata of document {number} has the field {double[0]!r}, which here holds the document's "
                f"{'id' if double[0] == self.key else 'text'}: rename it, or make the Retriever with another key= or "
                "on=."
            )
        return row | dict(metadata)

    def _document(self, row: Row) -> Found:
        payload = row[2]
        body, name = self._body(payload), id_name(row[0])
        metadata = {field: value for field, value in payload.items() if field not in (self.key, body)}
        text = payload.get(body)
        return Found(name, name, text if isinstance(text, str) else row[1], metadata)

    def _found(self, hit: Mapping[str, Any], several: bool) -> Found:
        document = self._document((hit["id"], "", hit["document"]))._replace(score=float(hit["similarity"]))
        passage = hit.get("passage")
        if passage is None or passage["text"].strip() == document.text.strip():
            return document
        start = passage["start"]
        return document._replace(
            id=f"{document.id}#{start}" if several else document.id,
            text=passage["text"],
            start=start,
            end=passage["end"],
            heading=passage["heading"],
        )


def condition(field: Any, sign: Any, value: Any) -> dict[str, Any]:
    """A filter of one comparison, in a framework's words.

    >>> condition("language", "in", ["en", "fr"])
    {'language': {'$in': ['en', 'fr']}}
    """
    if sign not in SIGNS or not isinstance(field, str):
        raise InputError(f"filters: {sign!r} on {field!r} is not translated; use a field and {' '.join(SIGNS)}.")
    return {field: {SIGNS[sign]: value}}


def together(word: str, filters: list[dict[str, Any]]) -> dict[str, Any]:
    """A filter of several: all of them, any of them, or not all of them.

    >>> together("NOT", [condition("year", ">", 2020)])
    {'$not': {'$and': [{'year': {'>': 2020}}]}}
    """
    if word.lower() not in ("and", "or", "not") or not filters:
        raise InputError(f"filters: {word!r} of {len(filters)} conditions is not translated; use AND, OR or NOT.")
    return {"$not": {"$and": filters}} if word.lower() == "not" else {f"${word.lower()}": filters}
