"""Who may use what, one at a time, in a way that an interrupt at any moment cannot leave taken.

Ctrl-C may strike between any two steps: after a lock was taken and before that was noted, or in the middle of giving it
back. So nothing here counts. A turn belongs to a :class:`Mark`, and a mark is alive as long as its ``with`` block: the
block alone holds the object that `with` calls at its end, and CPython drops that object when the block is left, in
whichever way. The turn of a dead mark is mended by the next who wants it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any

# Seconds between two looks at a turn that another thread holds: the first, and the longest.
SHORTEST, LONGEST = 0.0001, 0.002


# How often this process was forked from another that had this module.
_forks = 0


class Mark:
    """What is known of one `with` block while it runs; `alive` tells whether it does."""

    def __init__(self) -> None:
        self.block: Callable[[], Any] = _nothing
        self._forks = _forks

    @property
    def alive(self) -> bool:
        """Whether the block still runs, in this process: a forked child has copies of its parent's threads' blocks."""
        return self.block() is not None and self._forks == _forks


class Turns:
    """Turns by name."""

    def __init__(self, mend: Callable[[Any], None] | None = None) -> None:
        self._holders: dict[Hashable, Any] = {}
        self._queues: dict[Hashable, dict[Mark, None]] = {}
        self._mend = _nothing if mend is None else weakref.WeakMethod(mend)
        self._mending = threading.Lock()

    def offer(self, name: Hashable, mark: Mark) -> bool:
        """Whether the turn is now this mark's. It is taken and noted in one step, that of the dictionary."""
        holder = self._holders.setdefault(name, mark)
        if holder is not mark and not holder.alive:
            self.bury(name, holder)
            holder = self._holders.setdefault(name, mark)
        return holder is mark

    def take(self, name: Hashable, mark: Mark) -> None:
        """Wait for the turn, behind those that wait already."""
        queue = self._queues.setdefault(name, {})
        if not queue and self.offer(name, mark):
            return
        queue[mark] = None
        try:
            wait_until(lambda: _first(queue) is mark and self.offer(name, mark))
        finally:
            queue.pop(mark, None)

    def turn(self, name: Hashable) -> contextlib.AbstractContextManager[None]:
        """A block that has the turn."""
        return Block(functools.partial(self.take, name), functools.partial(_drop, self, name), Mark())

    def bury(self, name: Hashable, mark: Any) -> None:
        """Take the turn from a dead mark, if it still has it, once what its block left has been put right."""
        with self._mending:
            if self._holders.get(name) is mark:
                if (mend := self._mend()) is not None:
                    mend(mark)
                del self._holders[name]

    def drop(self, name: Hashable, mark: Mark) -> None:
        """Give the turn back; harmless where it is another's."""
        if self._holders.get(name) is mark:
            del self._holders[name]

    def holder(self, name: Hashable) -> Any:
        """The mark that has the turn, or None."""
        return self._holders.get(name)


def wait_until(done: Callable[[], bool]) -> None:
    """Ask again and again, for what has no lock that could stay taken."""
    wait = SHORTEST
    while not done():
        time.sleep(wait)
        wait = min(2 * wait, LONGEST)


class _Called:
    """A method that is looked up and then called without its object, whose life is that of a block (see `Block`)."""

    def __init__(self, find: Callable[[Any], Callable[..., Any]]) -> None:
        self._find = find

    def __get__(self, block: Any, owner: type | None = None) -> Callable[..., Any]:
        return (lambda found, *end: self._find(found)(*end)) if block is None else self._find(block)


class Block(functools.partial[Any]):
    """A context manager out of two functions of a mark, which is alive from the one to the other.

    No Python frame has it in a local variable: a traceback keeps those, and with them the mark, long after the block
    was left. Between the two calls the `with` statement alone holds it.
    """

    enter: Callable[[], None]

    def __new__(cls, enter: Callable[[Any], None], leave: Callable[..., None], mark: Mark) -> Block:
        """Tie a mark to a new block."""
        block = super().__new__(cls, leave, mark)
        block.enter = functools.partial(enter, mark)
        mark.block = weakref.ref(block)
        return block

    __enter__ = _Called(lambda block: block.enter)
    __exit__ = _Called(lambda block: block)


def _first(queue: dict[Mark, None]) -> Mark | None:
    """Who waits longest; those that were cut off wait no more."""
    for mark in list(queue):
        if mark.alive:
            return mark
        queue.pop(mark, None)
    return None


def _drop(turns: Turns, name: Hashable, mark: Mark, *_: object) -> None:
    turns.drop(name, mark)


def _nothing() -> None:
    return None


def _after_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
