"""Which documents of an `add` or a `sync` are new, changed, or there already."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..corpora.file_kinds import JSON, ROWS, kind_of
from ..corpora.readers import ending_of
from ..documents import DEFAULT_FIELDS, Row
from ..errors import InputError
from ..passages import FIELD
from ..store.codec import encode_json
from .collection import Collection
from .local import LocalCollection

logger = logging.getLogger(__name__)

# Documents that are compared with those stored at a time.
CHUNK = 1_000


class Changes(NamedTuple):
    """What a change did: how many documents were added, replaced, left as they are, and removed."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in self._asdict().items())


class Tally:
    """Counts documents as they go by; `seen` collects their ids, by `repr`: 1, 1.0 and True are three."""

    def __init__(self, seen: set[str] | None = None) -> None:
        self.added = self.replaced = self.unchanged = self.removed = 0
        # Of those replaced, the documents that kept their vectors.
        self.kept = 0
        self.seen = seen

    @property
    def changes(self) -> Changes:
        """What was counted."""
        return Changes(self.added, self.replaced, self.unchanged, self.removed)

    def changed(self, rows: Iterable[Row], collection: Collection, *, all_of_them: bool = False) -> Iterator[Row]:
        """The documents whose text or fields differ from what is stored, or all of them.

        On a server all: a change that was cut off there is completed by the same call, so nothing is taken as done.
        Sending them shows which were there (:meth:`settle`).
        """
        source = iter(rows)
        local = collection if isinstance(collection, LocalCollection) and collection.count() else None
        while chunk := list(islice(source, CHUNK)):
            known: list[Any] = [None] * len(chunk)
            if local is not None:
                ids = [row[0] for row in chunk]
                with contextlib.suppress(InputError):  # an id that cannot be kept: the collection names its row
                    known = [held or None for held in local.holds(ids)] if all_of_them else local.lookup(ids)
            for row, stored in zip(chunk, known, strict=True):
                if self.seen is not None:
                    self.seen.add(repr(row[0]))
                compared = None if all_of_them else stored
                if compared is not None and _equal(compared, row):
                    self.unchanged += 1
                    continue
                self.replaced += stored is not None
                self.added += stored is None
                if local is not None and compared is not None and _reads_equal(compared, row, local):
                    local.put_fields(row)
                    self.kept += 1
                else:
                    yield row

    def settle(self, collection: Collection) -> None:
        """Once a server has the documents: count those that were there."""
        self.added -= collection.replaced
        self.replaced += collection.replaced


def _equal(stored: tuple[str, dict[str, Any]], row: Row) -> bool:
    """Whether a document is as it is stored; by repr: 1, 1.0 and True are equal, and three values."""
    if stored[0] != row[1]:
        return False
    if repr(stored[1]) == repr(dict(row[2])):
        return True
    with contextlib.suppress(InputError):  # what cannot be kept: the collection names its row
        # JSON makes text of the names of fields within fields, of 1 in {"sizes": {1: "small"}} for example.
        return repr(stored[1]) == repr(json.loads(encode_json(row[2])))
    return False


def _reads_equal(stored: tuple[str, dict[str, Any]], row: Row, collection: Collection) -> bool:
    """Whether all that a model reads of a document, and all by which it is cut, is as it is stored."""
    names = {*(collection.settings.on or DEFAULT_FIELDS), "text", FIELD, collection.passages.field}
    before, after = ([repr(fields.get(name)) for name in names] for fields in (stored[1], row[2]))
    with contextlib.suppress(InputError):  # what cannot be kept: the collection names its row
        encode_json(row[2])
        return stored[0] == row[1] and before == after
    return False


def unless_skipped(gone: list[Hashable], skipped: Iterable[str], collection: Collection) -> list[Hashable]:
    """Documents that have gone from a source, without those that may be in files and folders that were skipped."""
    rest = [document_id for document_id in gone if not _is_below(document_id, skipped)]
    tables = [path for path in skipped if _has_rows(path) or kind_of(Path(path)) is None or not ending_of(Path(path))]
    if not tables or not rest:
        return rest
    known: list[Hashable] = []  # to come from another file: rows of a table may have any id
    for start in range(0, len(rest), CHUNK):
        some = rest[start : start + CHUNK]
        known += [one for one, found in zip(some, collection.lookup(some), strict=True) if _is_of_file(one, found)]
    if len(known) < len(rest):
        logger.warning("%d documents were not found, and stay: they may be in %s.", len(rest) - len(known), tables[0])
    return known


def _is_below(document_id: Hashable, paths: Iterable[str]) -> bool:
    """Whether a document is of one of these files or folders; its id is a path, or a path and a number."""
    places = [
        "/".join(parts[: count + 1])
        for name in {str(document_id), str(document_id).partition("#")[0]}
        for parts in [name.split("/")]
        for count in range(len(parts))
    ]
    return any(f"/{path}".endswith(f"/{place}") for path in paths for place in places)


def _is_of_file(document_id: Hashable, found: Any) -> bool:
    """Whether a document is a file, or a row with the number that it has in its file."""
    fields: Mapping[str, Any] = found[1]
    is_file = "kind" in fields and f"/{fields.get('path')}".endswith(f"/{document_id}")
    return is_file or _has_rows(str(document_id).rpartition("#")[0])


def _has_rows(path: str) -> bool:
    """Whether the documents of a file are rows, which may have ids of their own."""
    return path.lower().endswith(".gz") or kind_of(Path(path)) in (ROWS, JSON)
