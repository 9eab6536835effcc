"""Who may use what, one at a time, in a way that an interrupt at any moment cannot leave taken.

Ctrl-C may strike between any two steps: after a lock was taken and before that was noted, or in the middle of giving it
back. So nothing here counts. A turn belongs to a :class:`Holder`, which is alive as long as its ``with`` block: the
block alone holds the object that `with` calls at its end, and CPython drops that object when the block is left, in
whichever way. The turn of a dead holder is mended by the next who wants it.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from ..runtime import after_fork

# Seconds between two looks at a turn that another thread holds: the first, and the longest.
SHORTEST, LONGEST = 0.0001, 0.002


# How often this process was forked from another that had this module.
_forks = 0


class Holder:
    """What is known of one `with` block while it runs; `alive` tells whether it does."""

    def __init__(self) -> None:
        self.scope: Callable[[], Any] = _nothing
        # What it has asked for, in this order: noted before it is taken.
        self.turns: list[Hashable] = []
        self._forks = _forks

    @property
    def alive(self) -> bool:
        """Whether the block still runs, in this process: a forked child has copies of its parent's threads' blocks."""
        return self.scope() is not None and self._forks == _forks


class Turns:
    """Turns by name."""

    def __init__(self, mend: Callable[[Any], None] | None = None) -> None:
        # The holder that has a turn, by name.
        self.holders: dict[Hashable, Any] = {}
        self._queues: dict[Hashable, dict[Holder, None]] = {}
        self._mend = _nothing if mend is None else weakref.WeakMethod(mend)
        self._mending = threading.Lock()

    def offer(self, name: Hashable, holder: Holder) -> bool:
        """Whether the turn is now this holder's. It is taken in one step, that of the dictionary."""
        holder.turns.append(name)
        found = self.holders.setdefault(name, holder)
        if found is not holder and not found.alive:
            self.reclaim(name, found)
            found = self.holders.setdefault(name, holder)
        if found is not holder:
            holder.turns.pop()
        return found is holder

    def take(self, name: Hashable, holder: Holder) -> None:
        """Wait for the turn, behind those that wait already."""
        queue = self._queues.setdefault(name, {})
        if not queue and self.offer(name, holder):
            return
        queue[holder] = None
        try:
            wait_until(lambda: _first(queue) is holder and self.offer(name, holder))
        finally:
            queue.pop(holder, None)

    def turn(self, name: Hashable) -> contextlib.AbstractContextManager[None]:
        """A block that has the turn."""
        return Scope(functools.partial(self.take, name), self.drop, Holder())

    def reclaim(self, name: Hashable, holder: Any) -> None:
        """Take the turn from a dead holder, if it still has it, once what its block left has been put right."""
        with self._mending:
            if self.holders.get(name) is holder:
                if (mend := self._mend()) is not None:
                    mend(holder)
                del self.holders[name]

    def drop(self, holder: Holder, *_: object) -> None:
        """Give back all turns that a holder has."""
        for name in holder.turns:
            if self.holders.get(name) is holder:
                del self.holders[name]


def wait_until(done: Callable[[], bool]) -> None:
    """Ask again and again, for what has no lock that could stay taken."""
    wait = SHORTEST
    while not done():
        time.sleep(wait)
        wait = min(2 * wait, LONGEST)


class _Called(property):
    """A method that is looked up and then called without its object, whose life is that of a block (see `Scope`)."""

    def __call__(self, block: Any, *end: object) -> Any:
        """As a function of the class, which `contextlib.ExitStack` calls."""
        return self.__get__(block)(*end)


class Scope(functools.partial[Any]):
    """A context manager out of two functions of a holder, which is alive from the one to the other.

    No Python frame has it in a local variable: a traceback keeps those, and with them the holder, long after the block
    was left. Between the two calls the `with` statement alone holds it.
    """

    enter: Callable[[], None]

    def __new__(cls, enter: Callable[[Any], None], leave: Callable[..., None], holder: Holder) -> Scope:
        """Tie a holder to a new scope."""
        scope = super().__new__(cls, leave, holder)
        scope.enter = functools.partial(enter, holder)
        holder.scope = weakref.ref(scope)
        return scope

    __enter__: Any = _Called(operator.attrgetter("enter"))
    __exit__: Any = _Called(operator.attrgetter("__call__"))


def _first(queue: dict[Holder, None]) -> Holder | None:
    """Who waits longest; those that were cut off wait no more."""
    for holder in list(queue):
        if holder.alive:
            return holder
        queue.pop(holder, None)
    return None


def _nothing() -> None:
    return None


@after_fork
def _count_fork() -> None:
    global _forks
    _forks += 1
