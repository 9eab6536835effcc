"""A new collection: the first one behind an alias, or the one of a new context that takes its place.

The collection is made under a name of its own, filled, indexed, loaded and measured, and what it is is noted down. Only
then the alias is pointed at it. Whatever fails before leaves readers and writers with what they had; whatever is left
over is dropped, here or, after a kill, by the next build.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, LockedError, ServerError
from ..vectors import Layout
from .breadth import Probe, measure
from .change import Change, Rebuild, send
from .connection import Connection
from .fields import EXACT, FORMAT, OF_PASSAGES, Identity, choose_index
from .location import Location
from .records import Records, identity_record, measured_record
from .remote import STRONG, RemoteCollection

logger = logging.getLogger(__name__)

# How long a new collection may take to show all its rows, which "Strong" reads do at once.
SHOWN_WITHIN = 60.0


@dataclass(frozen=True)
class Build:
    """What a change builds."""

    connection: Connection
    records: Records
    location: Location
    change: Change

    def begin(self, layout: Layout, replaces: str | None) -> RemoteCollection:
        """Make a collection, empty, and lease it."""
        name = f"{self.location.collection}_{secrets.token_hex(4)}"
        cut = self.change.values.get("passages") is not None
        target = RemoteCollection(self.connection, name, layout, cut)
        self.change.lease.take(target, replaces)
        return target

    def first(self) -> None:
        """Make the first collection."""
        layout = self.change.documents.layout
        assert layout is not None, "documents of a change have vectors"
        self.records.create()
        target = self.begin(layout, None)
        if self.connection.call("has_collection", self.location.collection):
            raise LockedError(
                f"another process has made {self.location} while these documents were embedded. Add them again: they "
                "are then embedded in its context."
            )
        probe = Probe()
        send(self.change.documents, target, probe)
        self._publish(target, probe, self.change.documents.count(), "create_alias")

    def replace(self, rebuilt: Rebuild, old: RemoteCollection) -> None:
        """Put the collection of a new context in the place of the old one, and drop that."""
        if not rebuilt.read:
            raise InputError("the index is empty: add documents first.")
        before = self.records.get(identity_record(old.name))
        self._publish(rebuilt.target, rebuilt.probe, rebuilt.read, "alter_alias")
        try:
            old.drop()
            self.records.forget(old.name)
            if before and before["context"] not in (None, self.change.values["context"]):
                self.records.remove_context(before["context"])
        except ServerError as error:
            logger.warning("The refresh is done, but %s could not be removed: %s", old.name, error)

    def _of_passages(self) -> dict[str, Any]:
        """How documents are cut, if they are."""
        found = {name: self.change.values.get(name) for name in OF_PASSAGES}
        return {"format": FORMAT, **found} if found["passages"] is not None else {}

    def _publish(self, collection: RemoteCollection, probe: Probe, rows: int, switch: str) -> None:
        """Index a new collection, note what it is, and point the alias at it."""
        change, layout = self.change, collection.layout
        index = choose_index(self.location.index, layout.kind, lite=self.location.lite)
        collection.build(index, rows)
        _wait_for_rows(collection, rows)
        measured: dict[str, Any] = {"parameters": {}, "recall": 1.0, "rows": rows}
        if index not in EXACT:
            measured = measure(probe, index, collection.nearest)
        for digest, (metadata, tensors) in change.contexts.items():
            self.records.put_context(digest, metadata, tensors)
        identity = Identity(
            change.values["fingerprint"],
            change.values.get("context"),
            layout.kind,
            layout.dimension,
            change.values["retriever"],
            index,
            **self._of_passages(),
        )
        self.records.put(identity_record(collection.name), identity.to_dict())
        self.records.put(measured_record(collection.name), measured)
        put_next_id(self.records, change)
        change.lease.check()
        alias = self.location.collection
        try:
            self.connection.call(switch, collection.name, alias)
        except ServerError:
            # The request may have arrived, and only its answer been lost.
            if self.connection.behind(alias) != collection.name:
                raise


def put_next_id(records: Records, change: Change) -> None:
    """Keep the number that the next document without an id gets."""
    wanted = change.values.get("next_id")
    if wanted is not None and wanted != change.read.get("next_id"):
        records.put("next_id", wanted)


def _wait_for_rows(collection: RemoteCollection, rows: int) -> None:
    """Wait until a new collection shows all its rows, so that no reader sees less behind the alias."""
    deadline = time.monotonic() + SHOWN_WITHIN
    while (found := collection.count(consistency=STRONG)) != rows:
        if time.monotonic() > deadline:
            raise ServerError(f"{collection.name} shows {found} of its {rows} rows after {SHOWN_WITHIN:.0f} seconds.")
        time.sleep(0.2)
