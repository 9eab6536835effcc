"""How far a job is: a bar on a terminal, else a line every half minute, each with rate and remaining time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from ..runtime import progress

logger = logging.getLogger(__name__)

EVERY = 30.0


class Progress:
    """Counts documents."""

    def __init__(self, what: str, total: int, done: int = 0, *, show: bool = True) -> None:
        self.what, self.total, self.done, self._earlier = what, total, done, done
        self._bar = progress(range(total), what, show=show)
        self._bar.update(done)
        self._logs = show and self._bar.disable
        self._started = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def watch(self, results: Iterable[dict[str, Any]], documents: Callable[[int], int]) -> Iterator[dict[str, Any]]:
        """Pass results of blocks through, and count the documents of each block."""
        for result in results:
            self.add(documents(result["block"]))
            yield result

    def add(self, documents: int) -> None:
        """Count documents that were done."""
        self.done += documents
        self._bar.update(documents)
        now = time.monotonic()
        if self._logs and now - self._said >= EVERY:
            self._said = now
            rate = (self.done - self._earlier) / max(now - self._started, 1e-9)
            left = duration((self.total - self.done) / rate) if rate else "unknown time"
            share = 100 * self.done / max(self.total, 1)
            counted = f"{self.done:,} of {self.total:,} documents ({share:.1f} %)"
            logger.info("%s: %s, %s a second, %s left", self.what, counted, f"{rate:,.0f}", left)


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> [duration(value) for value in (42, 300, 9_000)]
    ['42 s', '5 min', '2.5 h']
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"
