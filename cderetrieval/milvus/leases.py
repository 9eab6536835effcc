"""Who is building a new collection for an alias: one process at a time, and the others know.

A build (the first `add`, or `refresh`) may take hours. While it runs, a second alias, ``<alias>_building``, points at
what is being built: making an alias is one step that only one process can win, and looking for one costs a millisecond.

A note says who builds. It is written before anything is made and removed after everything is cleared, so a note names
whatever a killed process leaves. It is renewed every 20 seconds; one that was not renewed for two minutes, or whose
process is gone from this machine, is that of a build that died, and whoever comes next drops what it left: the new
collection, or the old one where the alias had been switched already. Clocks of machines may differ by a minute.

A refresh copies the documents of the old collection, so what others write there meanwhile could be lost: every writer
looks for the second alias after it has written, and does not acknowledge its change where there is one. The refresh
makes that alias before it reads, with "Strong" consistency, so one of the two sees the other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
import time
from typing import Any

from ..errors import CDEError, LockedError, ServerError
from ..files import process_lives
from .connection import Connection
from .location import Location
from .records import Records
from .remote import RemoteCollection

logger = logging.getLogger(__name__)

BUILDING = "_building"
NOTE = "building:"
BEAT = 20.0
LAPSED = 120.0


class Lease:
    """The right to build a new collection for an alias, from :meth:`take` to :meth:`release`."""

    def __init__(self, connection: Connection, records: Records, alias: str) -> None:
        self._connection = connection
        self._records = records
        self._alias = alias
        self._target: RemoteCollection | None = None
        self._note: dict[str, Any] = {"host": platform.node(), "pid": os.getpid()}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="cderetrieval-lease", daemon=True)

    def check_free(self) -> None:
        """Refuse to go on while a living process builds; clear away what a dead one left."""
        if not self._connection.call("has_collection", self._alias + BUILDING):
            return
        target = self._connection.behind(self._alias + BUILDING)
        note = None if target is None else self._records.get(NOTE + target)
        if note is not None and _alive(note):
            raise LockedError(
                f"process {note['pid']} on {note['host']} is building a new collection for {self._alias!r}, and a "
                "change would be lost in it. Nothing was acknowledged: try again when it is done, or "
                f"{LAPSED:.0f} seconds after it died."
            )
        self._clear()

    def take(self, target: RemoteCollection, replaces: str | None) -> None:
        """Leave the note, make `target`, in the place of another collection, and tell the others."""
        self.check_free()
        self._clear()
        self._target, self._note["replaces"] = target, replaces
        self._beat(target.name)
        target.create()
        try:
            self._connection.call("create_alias", target.name, self._alias + BUILDING)
        except ServerError as error:
            raise LockedError(f"another process has just begun to build {self._alias!r}. Try again later.") from error
        self._thread.start()

    def check(self) -> None:
        """The build is still this process's to end."""
        name = self._target.name if self._target is not None else ""
        if self._records.get(NOTE + name) is None or not self._holds(name):
            raise LockedError(
                f"this process could not renew its note for {LAPSED:.0f} seconds, and another took over "
                f"{self._alias!r}. Nothing was changed; try again."
            )

    def release(self) -> None:
        """End the build, if there is one. What was built is dropped, unless the alias points at it."""
        if self._target is None:
            return
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        name = self._target.name
        if self._holds(name):
            self._connection.call("drop_alias", self._alias + BUILDING)
        if self._connection.behind(self._alias) != name:
            self._target.drop()
            self._records.forget(name)
        self._records.remove([NOTE + name])

    def _clear(self) -> None:
        """Drop what processes that died had begun, or had replaced; never what the alias points at."""
        dead = {name: note for name, note in self._records.starting_with(NOTE).items() if not _alive(note)}
        for name, note in dead.items():
            target = name.removeprefix(NOTE)
            with contextlib.suppress(ServerError):  # another process may clear it away at the same time
                if self._holds(target):
                    self._connection.call("drop_alias", self._alias + BUILDING)
                for left in {target, note["replaces"]} - {self._connection.behind(self._alias), None}:
                    logger.warning("Dropping %s, which a process that died has left.", left)
                    self._connection.call("drop_collection", left)
                    self._records.forget(left)
                self._records.remove([name])

    def _holds(self, name: str) -> bool:
        return self._connection.behind(self._alias + BUILDING) == name

    def _beat(self, name: str) -> None:
        self._records.put(NOTE + name, {**self._note, "time": time.time()})

    def _keep(self) -> None:
        assert self._target is not None
        while not self._done.wait(BEAT):
            try:
                self.check()
                self._beat(self._target.name)
            except CDEError as error:  # the next beat may reach the server; the last word is `check` at the end
                logger.warning("The note of a build could not be renewed: %s", error)


def _alive(note: dict[str, Any]) -> bool:
    lapsed = time.time() - note["time"] > LAPSED
    return not lapsed and (note["host"] != platform.node() or process_lives(int(note["pid"])))


def overtaken(location: Location) -> LockedError:
    """What a writer says after a refresh that it did not see."""
    return LockedError(
        f"another process has refreshed the context of {location} while this change was written to the old collection. "
        "It was not acknowledged; make it again."
    )
