"""Questions of many clients, answered together by one thread: what waits while a batch is computed is the next batch.

No batch is held back: while one is computed, answers to the last one are sent and new questions are read.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CDEError, StoreError

logger = logging.getLogger(__name__)

# Questions that are answered together.
MOST = 64


@dataclass(eq=False)
class Question:
    """A question, and where its answer is awaited; questions of one kind are answered together."""

    kind: Hashable
    question: Any
    answer: asyncio.Future[Any]


class Batcher:
    """One thread that calls `together(kind, questions)`, which gives an answer to each."""

    def __init__(
        self,
        together: Callable[[Any, Sequence[Any]], Sequence[Any]],
        seen: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._together, self._seen = together, seen
        self._jobs: deque[Question] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="cderetrieval-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._jobs)

    def ask(self, kind: Hashable, question: Any) -> asyncio.Future[Any]:
        """The answer to a question; if it is cancelled before its turn, nothing is computed for it."""
        job = Question(kind, question, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._closed:
                raise StoreError("the server is stopping.")
            self._jobs.append(job)
            self._changed.notify()
        return job.answer

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next():
            kinds: dict[Hashable, list[Question]] = {}
            for job in jobs:
                if not job.answer.cancelled():
                    kinds.setdefault(job.kind, []).append(job)
            for same in kinds.values():
                self._answer(same)

    def _next(self) -> list[Question]:
        """The next batch; nothing where the server stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return [self._jobs.popleft() for _ in range(min(len(self._jobs), MOST))]

    def _answer(self, jobs: list[Question]) -> None:
        self._seen(len(jobs))
        try:
            answers = list(self._together(jobs[0].kind, [job.question for job in jobs]))
        except Exception as error:
            if len(jobs) > 1:  # one question must not spoil the answers to others
                for job in jobs:
                    self._answer([job])
                return
            if not isinstance(error, CDEError):
                logger.exception("A question could not be answered.")
            answers = [error]
        loop = jobs[0].answer.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, jobs, answers)


def _settle(jobs: list[Question], answers: list[Any]) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        if job.answer.done():
            continue
        if isinstance(answer, Exception):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)
