"""How far a job is: a bar on a terminal, else a line every half minute, each with rate and remaining time."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from ..runtime import progress

logger = logging.getLogger(__name__)

EVERY = 30.0


class Progress:
    """Counts documents."""

    def __init__(self, what: str, total: int, done: int = 0, *, show: bool = True) -> None:
        self.what, self.total, self.done, self._earlier = what, total, done, done
        self._bar = progress(range(total), what, show=show)
        self._bar.update(done)
        self._show = show and self._bar.disable
        self._started = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def rate(self) -> float:
        """Documents a second of this run, its start included."""
        return (self.done - self._earlier) / max(time.monotonic() - self._started, 1e-9)

    def add(self, documents: int) -> None:
        """Count documents that were done."""
        self.done += documents
        self._bar.update(documents)
        now = time.monotonic()
        if self._show and now - self._said >= EVERY:
            self._said = now
            logger.info("%s", self.line())

    def line(self) -> str:
        """Where the job stands."""
        left = (self.total - self.done) / self.rate if self.done > self._earlier else float("nan")
        share = 100 * self.done / max(self.total, 1)
        return (
            f"{self.what}: {self.done:,} of {self.total:,} documents ({share:.1f} %), {self.rate:,.0f} a second, "
            f"{duration(left)} left"
        )


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> [duration(value) for value in (42, 300, 9_000, float("nan"))]
    ['42 s', '5 min', '2.5 h', 'unknown time']
    """
    if seconds != seconds:
        return "unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"
