"""Which documents of an `add` or a `sync` are new, changed, or there already."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from ..documents import Row
from ..errors import InputError
from .collection import Collection

# Files whose rows have ids of their own.
ROWS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".gz")
# Documents that are compared with those stored at a time.
CHUNK = 500


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
        self.seen = seen

    @property
    def changes(self) -> Changes:
        """What was counted."""
        return Changes(self.added, self.replaced, self.unchanged, self.removed)

    def changed(self, rows: Iterable[Row], collection: Collection, *, all_of_them: bool = False) -> Iterator[Row]:
        """The documents whose text or fields differ from what is stored, or all of them."""
        source, empty = iter(rows), collection.count() == 0
        while chunk := list(islice(source, CHUNK)):
            known: list[Any] = [None] * len(chunk)
            if not empty:
                with contextlib.suppress(InputError):  # an id that cannot be kept: the collection names its row
                    known = collection.lookup([row[0] for row in chunk])
            for row, stored in zip(chunk, known, strict=True):
                if self.seen is not None:
                    self.seen.add(repr(row[0]))
                # By repr: 1, 1.0 and True are equal, and three values.
                if not all_of_them and stored is not None and repr(stored) == repr((row[1], dict(row[2]))):
                    self.unchanged += 1
                    continue
                self.replaced += stored is not None
                self.added += stored is None
                yield row


def unless_skipped(gone: list[Hashable], skipped: Mapping[str, str]) -> list[Hashable]:
    """Documents that have gone from a source, without those of files and folders that could not be read.

    >>> unless_skipped(["a.md", "sub/b.md", "c.csv#7"], {"notes/sub": "no permission"})
    ['a.md', 'c.csv#7']
    """
    kept = {document_id: path for document_id in gone if (path := _skipped(document_id, skipped)) is not None}
    for path, reason in skipped.items():
        if path.lower().endswith(ROWS) and path not in kept.values():
            raise InputError(f"{reason} Which documents are from this file is not known: nothing was changed.")
    return [document_id for document_id in gone if document_id not in kept]


def _skipped(document_id: Hashable, skipped: Mapping[str, str]) -> str | None:
    """The file or folder that was skipped from which a document is; its id is a path, or a path and a number."""
    parts = str(document_id).partition("#")[0].split("/")
    places = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return next((path for path in skipped for place in places if f"/{path}".endswith(f"/{place}")), None)
