"""A call in a forked child: what it returned, raised, or died of; a hang is ended.

A fork costs a few milliseconds where a new interpreter costs a second, so thousands of processes can be killed. The
parent computes nothing on several threads, which a fork would not survive.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cderetrieval.errors import CDEError

# How a call ended.
ANSWER, NAMED, RAW, DIED, HUNG = "answer", "named error", "raw exception", "died", "hung"
TIMEOUT = 60.0
LONG = 3 * 3600.0


@dataclass
class Report:
    """What an attack has found: how often each outcome was seen, and every one that must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take in what another process has found."""
        self.counts.update(other.counts)
        self.failures += other.failures

    def plain(self) -> list[Any]:
        """As JSON takes it."""
        return [self.counts, self.failures]


def in_child(call: Callable[[], Any], timeout: float = TIMEOUT) -> tuple[str, Any]:
    """How a call ended in a child of its own, and with what: its answer, which must be JSON, or a text."""
    return together([call], timeout)[0]


def together(calls: Sequence[Callable[[], Any]], timeout: float) -> list[tuple[str, Any]]:
    """How calls ended that ran at the same time, each in a child of its own."""
    deadline = time.monotonic() + timeout
    return [_end(*child, deadline) for child in [_begin(call) for call in calls]]


def spread(run: Callable[[int, int], Report], count: int, workers: int) -> Report:
    """Run an attack in several processes at once, `run(share, number)` each, and join their reports."""
    shares = [count // workers + (number < count % workers) for number in range(workers)]
    calls = [lambda share=share, number=number: run(share, number).plain() for number, share in enumerate(shares)]
    return joined(together(calls, LONG))


def joined(outcomes: Sequence[tuple[str, Any]]) -> Report:
    """One report of what several children found."""
    report = Report()
    for outcome, found in outcomes:
        report.add(
            Report(Counter(found[0]), found[1]) if outcome == ANSWER else Report(failures=[f"{outcome}: {found}"])
        )
    return report


def _begin(call: Callable[[], Any]) -> tuple[int, int]:
    """Process and pipe of a call that has been started."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _answer(call, write)
    os.close(write)
    return child, read


def _end(child: int, read: int, deadline: float) -> tuple[str, Any]:
    """Wait for a call's end, or make one."""
    text, in_time = _read(read, deadline)
    os.close(read)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not in_time:
        return HUNG, "no answer in time"
    if not text:
        return DIED, f"ended with status {os.waitstatus_to_exitcode(status)}"
    outcome, value = json.loads(text)
    return outcome, value


def _answer(call: Callable[[], Any], write: int) -> None:
    """Send what the call comes to, and end this process without anything of the parent's cleaning up."""
    try:
        try:
            message: Sequence[Any] = (ANSWER, call())
        except CDEError as error:
            message = (NAMED, f"{type(error).__name__}: {error}")
        except BaseException as error:
            message = (RAW, "".join(traceback.format_exception(error)[-3:]))
        data = json.dumps(message).encode()
        while data:
            data = data[os.write(write, data) :]
    finally:
        sys.stdout.flush()
        os._exit(0)


def _read(descriptor: int, deadline: float) -> tuple[bytes, bool]:
    parts = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return b"".join(parts), False
        part = os.read(descriptor, 1 << 16)
        if not part:
            return b"".join(parts), True
        parts.append(part)
