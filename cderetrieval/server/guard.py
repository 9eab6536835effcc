"""Who is building a new collection for an alias: one process at a time, and the others know.

A build (the first `add`, or `refresh`) may take hours. It leaves a note with the name of what it builds, and renews it
every 20 seconds; a note that was not renewed for two minutes is that of a process that died, and whoever builds next
drops what it left: the new collection, or the old one where the alias had been switched already.

A refresh copies the documents of the old collection, so what others write there meanwhile could be lost: every writer
looks for the note after it has written, and does not acknowledge its change where there is one. The note is written
before the refresh reads, with "Strong" consistency on both sides, so one of the two sees the other. Clocks of machines
may differ by a minute.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import threading
import time
from typing import Any

from ..errors import CDEError, LockedError
from ..index.milvus.connection import Connection
from ..index.milvus.notes import Notes

logger = logging.getLogger(__name__)

NOTE = "building"
BEAT = 20.0
LAPSED = 120.0


def check_unguarded(notes: Notes, alias: str) -> None:
    """Refuse to go on while a living process builds a new collection.

    Raises
    ------
    LockedError
        If one does.
    """
    found = notes.get(NOTE)
    if found is not None and _alive(found):
        raise LockedError(
            f"process {found['pid']} on {found['host']} is building a new collection for {alias!r}, and a change would "
            f"be lost in it. Nothing was acknowledged: try again when it is done, {LAPSED:.0f} seconds after a crash."
        )


class Guard:
    """The note of one build.

    Parameters
    ----------
    connection, notes
        Of the alias.
    alias
        Whose collection is built.
    replaces
        The collection behind it, if there is one.

    Raises
    ------
    LockedError
        If another process is building one.
    """

    def __init__(self, connection: Connection, notes: Notes, alias: str, replaces: str | None = None) -> None:
        check_unguarded(notes, alias)
        self._replaces = replaces
        self._connection = connection
        self._notes = notes
        self._alias = alias
        self.target = f"{alias}_{secrets.token_hex(4)}"
        self._done = threading.Event()
        left = notes.get(NOTE)
        self._beat()
        if left is not None:
            self._clear(left)
        self._thread = threading.Thread(target=self._keep, name="cderetrieval-guard", daemon=True)
        self._thread.start()

    def _clear(self, left: dict[str, Any]) -> None:
        """Drop what a process that died had begun, or had replaced; never what the alias points at."""
        for name in {left["target"], left["replaces"]} - {self._replaces, None}:
            logger.warning("Dropping %s, which a process that died has left.", name)
            self._connection.call("drop_collection", name)

    def _beat(self) -> None:
        place = {"host": platform.node(), "pid": os.getpid(), "time": time.time()}
        self._notes.put(NOTE, {"target": self.target, "replaces": self._replaces, **place})

    def _keep(self) -> None:
        while not self._done.wait(BEAT):
            try:
                self.check()
                self._beat()
            except CDEError as error:  # the next beat may reach the server; the last word is `check` at the end
                logger.warning("The note of a build could not be renewed: %s", error)

    def check(self) -> None:
        """The build is still this process's to end.

        Raises
        ------
        LockedError
            If others took it for dead.
        """
        found = self._notes.get(NOTE)
        if found is None or found["target"] != self.target:
            raise LockedError(
                f"this process could not renew its note for {LAPSED:.0f} seconds, and another took over "
                f"{self._alias!r}. Nothing was changed; try again."
            )

    def release(self) -> None:
        """End the build: take the note away, if it is this one's."""
        self._done.set()
        self._thread.join()
        found = self._notes.get(NOTE)
        if found is not None and found["target"] == self.target:
            self._notes.remove([NOTE])


def _alive(note: dict[str, Any]) -> bool:
    if time.time() - note["time"] > LAPSED:
        return False
    if note["host"] != platform.node():
        return True
    try:
        os.kill(int(note["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
