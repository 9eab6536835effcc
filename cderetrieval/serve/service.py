"""What the routes share: the index, the computing thread, a slower one, and how answers are written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response

from .batching import Batcher
from .corpus import CorpusView
from .counters import Metrics
from .guard import RefusedError, encoded
from .served_index import ServedIndex

T = TypeVar("T")


class Reply(Response):
    """JSON, whatever a document holds."""

    media_type = "application/json"  # noqa: V107

    def render(self, content: Any) -> bytes:  # noqa: V105
        """The body."""
        return encoded(content)


class Service:
    """One server's index and threads: questions are answered together by one, and long work is done by another."""

    def __init__(self, source: ServedIndex, *, writable: bool, name: str) -> None:
        self.source, self.writable, self.name = source, writable, name
        self.metrics = Metrics()
        self.batcher = Batcher(lambda kind, asked: kind.answers(source.current(), asked), self.metrics.batch)
        self.corpus = CorpusView(source)
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="cderetrieval-slow")
        self.metrics.gauge("waiting", "Questions that wait.", lambda: self.batcher.waiting)
        self.metrics.gauge("documents", "Documents of the index.", lambda: len(source.current()))

    async def ask(self, request: Request, kind: Any, question: Any) -> Any:
        """The answer of the computing thread; nothing is computed for a client that has left meanwhile."""
        answer = self.batcher.ask(kind, question)
        left = asyncio.create_task(_left(request, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            if not left.done():  # the server stops
                raise
            raise RefusedError(499, "Disconnected", "the client has left.") from None
        finally:
            left.cancel()

    async def slowly(self, call: Callable[..., T], *values: Any) -> T:
        """What a call returns, in a thread that does one such call at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, call, *values)

    def close(self) -> None:
        """Answer what waits, and close the index."""
        self._slow.shutdown(cancel_futures=True)
        self.batcher.close()
        self.source.close()


async def _left(request: Request, answer: asyncio.Future[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    answer.cancel()


def service_of(request: Request) -> Service:
    """The service of the application that a request came to."""
    found: Service = request.app.state.service
    return found
