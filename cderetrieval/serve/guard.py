"""What stands before every request: who may ask, how much, and what a browser is told to allow.

- On loopback the ``Host`` header must name this machine, or a page elsewhere could reach the server through a name that
  it points here (DNS rebinding). Requests that a browser sends for another site are refused.
- Where there is a token, all but the empty page and ``/health`` asks for it.
- Bodies are read up to a limit, and so many requests are taken at a time.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ..errors import InputError
from .counters import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# What holds nothing of the index.
OPEN = frozenset({"/", "/app.js", "/map.js", "/style.css", "/health"})
# Bytes of a body, by path; seconds until it must be there; requests at a time.
BODY, BODIES = 2**20, {"/documents": 2**26, "/v1/embeddings": 2**23, "/v1/contextualizedembeddings": 2**23}
DRAINED, BODY_SECONDS, CONCURRENT = 2**27, 60, 256
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_ENCODED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
# Characters of a query, and queries of a request.
CHARACTERS, QUERIES = 2**15, 256


class RefusedError(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, dict(headers or {})


def error_body(kind: str, message: str) -> bytes:
    """An error as JSON, in the form that OpenAI's clients read."""
    error = {"type": kind, "message": message, "param": None, "code": None}
    return json.dumps({"error": error}).encode()


def clean(value: Any) -> Any:
    """A value without numbers that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: clean(item) for key, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list | tuple) else value


def encoded(value: Any) -> bytes:
    """A value as JSON; half of a surrogate pair, which UTF-8 lacks, is an escape."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(clean(value), allow_nan=False, separators=(",", ":")).encode()


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: Any, *, loopback: bool, token: str | None, metrics: Metrics) -> None:
        self._app, self._loopback, self._metrics = app, loopback, metrics
        self._token = None if token is None else token.encode()
        self._running = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_ENCODED]
            await send(message)

        self._running += 1
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            self._check(scope["path"], headers, scope["method"])
            await self._app(scope, await self._read(scope["path"], headers, receive), answered)
        except RefusedError as error:
            extra = {"content-type": "application/json", **error.headers}
            raw = [(name.encode(), value.encode()) for name, value in extra.items()]
            await answered({"type": "http.response.start", "status": error.status, "headers": raw})
            await send({"type": "http.response.body", "body": error_body(error.kind, str(error))})
        finally:
            self._running -= 1
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(route, status, time.perf_counter() - start)

    def _check(self, path: str, headers: Mapping[str, str], method: str) -> None:
        host = headers.get("host", "")
        if self._loopback and not is_loopback(_name(host)):
            raise RefusedError(403, "HostError", f"this server answers to localhost and 127.0.0.1, not to {host!r}.")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        foreign = origin is not None and origin.partition("://")[2] != host
        if (foreign and method != "GET") or (site in ("cross-site", "same-site") and path != "/"):
            raise RefusedError(403, "OriginError", "pages of another site may not use this server.")
        if self._token is not None and path not in OPEN:
            given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given[2].strip().encode("latin-1"), self._token)
            if given[0].lower() != "bearer" or not right:
                message = "the token is missing or wrong: send it as 'Authorization: Bearer TOKEN'."
                raise RefusedError(401, "TokenError", message, {"www-authenticate": "Bearer"})
        if self._running > CONCURRENT:
            self._metrics.refused()
            raise RefusedError(503, "BusyError", f"{CONCURRENT} requests are waiting; try again.", {"retry-after": "1"})

    async def _read(self, path: str, headers: Mapping[str, str], receive: Receive) -> Receive:
        """Read the body, and give what receives it again."""
        limit, body = BODIES.get(path, BODY), bytearray()
        # A body that is waited for takes a place; one that nobody asked for is left unread, as it may never end.
        size, more = 0, path not in OPEN and ("content-length" in headers or "transfer-encoding" in headers)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    more = message.get("more_body", False)
                    size += len(message.get("body", b""))
                    # What is too much is dropped, but read to its end: a client that still sends would miss the answer.
                    body += message.get("body", b"") if size <= limit else b""
                    more = more and size <= DRAINED
        except TimeoutError:
            raise RefusedError(408, "InputError", f"the body did not arrive within {BODY_SECONDS} seconds.") from None
        if size > limit:
            reason = f"the body of {path} is larger than {limit:,} bytes; send less at a time."
            raise RefusedError(413, "InputError", reason, {"connection": "close"})
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return again


def _name(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_queries(queries: list[str]) -> None:
    """Refuse queries that nobody would type."""
    if len(queries) > QUERIES:
        raise InputError(f"there are {len(queries):,} queries; ask at most {QUERIES} at a time.")
    for number, query in enumerate(queries):
        if len(query) > CHARACTERS:
            raise InputError(f"query {number} has {len(query):,} characters; at most {CHARACTERS:,} are searched for.")
        if not query.strip():
            raise InputError(f"query {number} is empty.")


def filter_text(wanted: dict[str, Any] | None) -> str | None:
    """A filter as JSON, equal for equal filters."""
    return None if wanted is None else json.dumps(wanted, sort_keys=True)


def filter_of(text: str | None) -> dict[str, Any] | None:
    """A filter in an address."""
    if text is None:
        return None
    found = parsed(text, "filter")
    if not isinstance(found, dict | None):
        raise InputError(f'filter={text[:80]!r} is no object; write fields and values, filter={{"year": 2020}}.')
    return found


def parsed(text: str, what: str) -> Any:
    """What a JSON text in an address says."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{what}={text[:80]!r} is no JSON ({error}); a text is quoted, {what}="a".') from None
