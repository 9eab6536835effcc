"""Ctrl-C at random moments of a living object: it goes on, whole, and never advises to delete what is sound.

A timer raises KeyboardInterrupt somewhere inside a search, `add`, `remove`, `refresh` or `save`. Then the same object
must hold the documents before the call or after it, and answer; and the interrupt must have reached the caller, or the
call must have ended.
"""

from __future__ import annotations

import random
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from .child import ANSWER, Report, in_child
from .kills import KINDS, changes_of, holds

# Shortest and longest time from the beginning of a call to its interrupt, in seconds; short ones are as frequent.
DELAY = 2e-5, 1e-2
LIFE = 60


class Timer:
    """Raises KeyboardInterrupt once, after a while, unless it was stopped before."""

    def __init__(self) -> None:
        self.armed = self.fired = False
        signal.signal(signal.SIGALRM, self._raise)

    def start(self, seconds: float) -> None:
        """Start to count."""
        self.armed, self.fired = True, False
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        """Raise no more."""
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed, self.fired = False, True
            raise KeyboardInterrupt


def run(interrupts: int, seed: int) -> Report:
    """Interrupt so many calls, in memory and on disk, of each kind of index."""
    report, rng, lives = Report(), random.Random(seed), 0
    while report.counts["interrupts"] < interrupts:
        kind, on_disk = KINDS[lives % len(KINDS)], bool(lives // len(KINDS) % 2)
        lives += 1
        life, left = rng.randrange(2**30), min(LIFE, interrupts - report.counts["interrupts"])
        outcome, found = in_child(lambda k=kind, d=on_disk, s=life, n=left: _one_life(k, d, s, n), timeout=300)
        if outcome != ANSWER:
            report.failures.append(f"{kind}, {'disk' if on_disk else 'memory'}, seed {life}: {outcome}: {found}")
            report.counts["interrupts"] += left
            continue
        report.counts.update(found[0])
        report.failures += found[1]
    return report


def _one_life(kind: str, on_disk: bool, seed: int, interrupts: int) -> tuple[dict[str, int], list[str]]:
    rng, report, timer = random.Random(seed), Report(), Timer()
    with tempfile.TemporaryDirectory() as folder:
        changes = changes_of(kind)
        retriever = changes.new(Path(folder) / "index" if on_disk else None)
        changes.change(retriever, seed, 0)
        documents = changes.expected({}, seed, 0)
        number = 1
        while report.counts["interrupts"] < interrupts:
            name, call, after = _next(retriever, documents, changes, seed, number, rng, Path(folder))
            number += 1
            problem = _interrupted(timer, call, _delay(rng), report)
            found = next((c for c in (documents, after) if holds(retriever, c, kind)), None)
            if problem or found is None:
                where = f"{kind}, {'disk' if on_disk else 'memory'}, seed {seed}, call {number} ({name})"
                report.failures.append(f"{where}: {problem or 'neither the state before nor the one after'}")
                break
            documents = found
        retriever.close()
    return dict(report.counts), report.failures


def _next(
    retriever: Any, documents: dict[int, str], changes: Any, seed: int, number: int, rng: random.Random, folder: Path
) -> tuple[str, Callable[[], Any], dict[int, str]]:
    """The next call, by its name, and the documents after it."""
    if rng.random() < 0.4:
        texts = rng.sample(list(documents.values()), min(4, len(documents)))
        return "search", lambda: retriever(texts, k=3, documents=True), documents
    kind, _ = changes.plan(seed, number)
    if kind == "save":
        return "save", lambda: retriever.save(folder / f"copy-{number}"), documents
    return kind, lambda: changes.change(retriever, seed, number), changes.expected(documents, seed, number)


def _delay(rng: random.Random) -> float:
    shortest, longest = DELAY
    return float(shortest * (longest / shortest) ** rng.random())


def _interrupted(timer: Timer, call: Callable[[], Any], delay: float, report: Report) -> str:
    """Call, with an interrupt on its way; what went wrong, in words."""
    try:
        timer.start(delay)
        call()
        timer.stop()
        report.counts["ended before"] += 1
    except KeyboardInterrupt:
        report.counts["interrupts"] += 1
    except BaseException:
        return f"the interrupt became: {traceback.format_exc(limit=-2)}"
    finally:
        timer.stop()
    return ""
