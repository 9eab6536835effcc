"""Change the parts of a hybrid together: in all of them, or in none.

Each part is a whole retriever with a store of its own, and SQLite commits one file at a time. A change runs in a
transaction in every part, so an error anywhere undoes it everywhere. The commits then come one after the other, and a
process that is killed between two of them leaves some parts ahead. Each change therefore writes a stamp into every
part: a random name, the name of the change before, and the number from which on its documents stand. A part whose stamp
names another's as the one before is ahead of it by this one change, and holds all that the other lacks: the other
follows it. Only texts are copied; each part embeds them by its own model.

This package reaches into `Retriever` where nobody else should: a change of a hybrid is one of each part's transactions.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..errors import LockedError, StoreError
from ..retriever import Retriever

T = TypeVar("T")

STAMP = "hybrid"
# How long a process waits for another that is between the commits of two parts; they take milliseconds.
PATIENCE = 10.0


class Together:
    """Transactions and snapshots over all parts.

    Parameters
    ----------
    parts
        The retrievers.
    one_past
        Whether all their changes were made by one hybrid. Where retrievers were put together that have pasts of their
        own, their stamps say nothing, and what a killed process left cannot be told.
    """

    def __init__(self, parts: Sequence[Retriever], one_past: bool) -> None:
        self._parts = parts
        self._one_past = one_past
        self._first = self._changes()

    def change(self, body: Callable[[], None]) -> None:
        """One transaction in each part, committed one after the other."""
        self.agree()
        change = secrets.token_hex(8)

        def stamped() -> None:
            firsts = [next_number(part) for part in self._parts]
            body()
            _put_stamps(self._parts, change, firsts)

        try:
            _within([part._store.transaction for part in self._parts], stamped)
        except BaseException:
            _complete(self._parts, change)
            raise

    def reading(self, call: Callable[[], T]) -> T:
        """What `call` returns: all its reads see the same documents in all parts, whatever is committed meanwhile."""

        def together() -> list[T]:
            return [call()] if self._in_step() else []

        while not (found := _within([part._store.committed for part in self._parts], together)):
            self.agree()
        return found[0]

    def _changes(self) -> list[Any]:
        return [_stamp(part)["change"] for part in self._parts]

    def _in_step(self) -> bool:
        """Whether no part is ahead; of parts with pasts of their own: by what a thread here is committing."""
        changes = self._changes()
        if len(set(changes)) == 1:
            return True
        return not self._one_past and (changes == self._first or not any(p._store.changing for p in self._parts))

    def agree(self) -> None:
        """Wait for a process that is between two commits; complete what one that was killed there has left.

        Raises
        ------
        LockedError
            If another process stays between two commits for longer than any takes.
        StoreError
            If the parts were not written by one hybrid.
        """
        deadline = time.monotonic() + PATIENCE
        while self._one_past and not self._in_step():
            try:
                _catch_up(self._parts)
            except LockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def next_number(part: Retriever) -> int:
    """The number that a part's next document gets."""
    return int(part._store.get_setting("next_seq", 1))


def follow(part: Retriever, leader: Retriever) -> None:
    """Make a part hold the documents of another which is one change ahead, or of which it holds none."""
    target = _stamp(leader)
    after = 0 if len(part) == 0 else target["first"] - 1

    def copy() -> None:
        first = next_number(part)
        there = id_names(leader)
        part._store.remove([document_id for document_id in part._store.live()[1] if repr(document_id) not in there])
        part._put(leader._store.rows(after))
        if target["change"] is not None:
            part._store.set_setting(STAMP, {**target, "first": first})

    part._change(copy)


def id_names(part: Retriever) -> set[str]:
    """Ids of a part's documents by repr: 1, 1.0 and True are three ids, and equal in Python."""
    return {repr(document_id) for document_id in part._store.live()[1]}


def _stamp(part: Retriever) -> dict[str, Any]:
    found = part._store.get_setting(STAMP)
    return {"change": None, "previous": None, "first": 1} if found is None else dict(found)


def _within(blocks: Sequence[Callable[[], contextlib.AbstractContextManager[None]]], call: Callable[[], T]) -> T:
    """What `call` returns inside all these blocks, the first outermost."""
    if not blocks:
        return call()
    with blocks[0]():
        return _within(blocks[1:], call)


def _complete(parts: Sequence[Retriever], change: str) -> None:
    """Where a change was cut off between two commits, let the other parts follow those that hold it."""
    holders = [part for part in parts if _stamp(part)["change"] == change]
    for part in parts if holders else []:
        if part not in holders:
            follow(part, holders[0])


def _put_stamps(parts: Sequence[Retriever], change: str, firsts: Sequence[int]) -> None:
    previous = _stamp(parts[0])["change"]
    for part, first in zip(parts, firsts, strict=True):
        part._store.set_setting(STAMP, {"change": change, "previous": previous, "first": first})


def _catch_up(parts: Sequence[Retriever]) -> None:
    """Let the parts that a killed process left behind follow one that is ahead.

    All of them are held meanwhile: a thread of this process may just be between two commits.
    """
    _within([part._store.transaction for part in parts], lambda: _follow_ahead(parts))


def _follow_ahead(parts: Sequence[Retriever]) -> None:
    stamps = [_stamp(part) for part in parts]
    changes = {one["change"] for one in stamps}
    ahead = [i for i, one in enumerate(stamps) if changes == {one["change"], one["previous"]}]
    if len(changes) > 1 and not ahead:
        raise StoreError(
            "the parts of this hybrid hold different documents and do not belong together; was one of them put back "
            "from a copy, or changed by itself? Put all of them back, or build the hybrid again."
        )
    for part, one in zip(parts, stamps, strict=True):
        if ahead and one["change"] != stamps[ahead[0]]["change"]:
            follow(part, parts[ahead[0]])
