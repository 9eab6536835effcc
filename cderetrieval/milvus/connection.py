"""A connection to Milvus: every call bounded in time, every error one of ours.

pymilvus repeats a call that found no connection, or was refused because of a rate limit, for as long as its `timeout`
lasts; without one, 75 times. So each call here has one. What it raises is translated: the server is down, slow, denies
the login, or refused the request, in its words. Milvus Lite is a server in a thread of this process, one process to a
file; it is stopped, and the file free for others, when the last connection to it is closed.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import LockedError, ServerError, missing_dependency
from .expressions import EVERYTHING, Expression
from .location import TOKEN_VARIABLE, Location

# Seconds for one attempt to connect; a refused connection fails at once.
CONNECT_TIMEOUT = 10.0
# Seconds to write rows into files; hours to build an index of very many.
FLUSH_TIMEOUT = 1_800.0
BUILD_TIMEOUT = 48 * 3_600.0
# The one index of a collection has the name of its field.
VECTOR_INDEX = "vector"
# Codes of Milvus's errors: those that mean something to us.
COLLECTION_NOT_FOUND, COLLECTION_NOT_LOADED = 100, 101
NOT_LOADED_CODES = {COLLECTION_NOT_LOADED, 503}
DENIED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "auth check failure", "permission deny")
LATE = ("DEADLINE_EXCEEDED", "Deadline Exceeded", "Retry timeout", "Retry run out")
UNREACHABLE = ("UNAVAILABLE", "Fail connecting")

# To a server in this process no connection dies unseen; it takes pings without calls for an attack, and gRPC says so on
# stderr.
UNWATCHED = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": False}

# Loggers of pymilvus and Milvus Lite that write what is raised as well, tracebacks included, to stderr.
QUIETED = (
    "pymilvus.decorators",
    "pymilvus.client.iterator.query_iterator",
    "milvus_lite.server_manager",
    "milvus_lite.adapter.grpc.servicer",
)

_lite_users: Counter[str] = Counter()
_lite_lock = threading.Lock()


class CollectionGoneError(ServerError):
    """The collection is not there: it was replaced by another, or dropped."""


class NotLoadedError(ServerError):
    """The collection is there, but not loaded for search."""


class Connection:
    """A client of one server, or of one file."""

    def __init__(self, location: Location) -> None:
        for package in ("pymilvus", *(["milvus_lite"] if location.lite else [])):
            if importlib.util.find_spec(package) is None:
                raise missing_dependency(package.replace("_", "-"), "scale")
        from pymilvus import MilvusClient

        _quiet()
        self.location = location
        self._file = os.path.abspath(location.address) if location.lite else ""
        if location.lite:
            Path(self._file).parent.mkdir(parents=True, exist_ok=True)
        address = self._file or location.address
        options = {"grpc_options": UNWATCHED} if self._file else {}
        try:
            with _lite_lock:
                self._client = MilvusClient(
                    address,
                    token=location.token,
                    db_name=location.database,
                    timeout=min(CONNECT_TIMEOUT, location.timeout),
                    **options,
                )
                _lite_users[self._file] += 1
        except Exception as error:
            raise self._unopened(error) from error

    def _unopened(self, error: Exception) -> ServerError | LockedError:
        if not self._file:
            return self._translated(error)
        if _is_locked(Path(self._file) / "LOCK"):
            return LockedError(
                f"another process has {self.location.address} open; Milvus Lite allows one. Close it there, or use a "
                "Milvus server."
            )
        return ServerError(f"Milvus Lite cannot open {self.location.address} ({_first_line(error)}).")

    def call(self, name: str, *values: Any, timeout: float | None = None, **options: Any) -> Any:
        """Call a method of `MilvusClient`."""
        if self._client is None:
            raise ServerError(f"the connection to {self.location} is closed.")
        if {"ids", "pks"} & set(options) or not isinstance(options.get("filter", EVERYTHING), Expression):
            raise TypeError(f"{name}: what selects rows is filter=, made in expressions.py.")
        method = getattr(self._client, name)
        return self.guarded(name, method, *values, timeout=timeout or self.location.timeout, **options)

    def guarded(self, name: str, function: Callable[..., Any], *values: Any, **options: Any) -> Any:
        """Call something of pymilvus that is bounded in time already, an iterator for example; errors as in `call`."""
        try:
            return function(*values, **options)
        except Exception as error:
            raise self._translated(error, name) from error

    def _translated(self, error: Exception, name: str = "connect") -> ServerError:
        """The error of pymilvus, gRPC or the server in our words."""
        code, text = getattr(error, "code", None), str(error)
        where = f"Milvus at {self.location.address}"
        if code == COLLECTION_NOT_FOUND:
            return CollectionGoneError(f"{where} has no such collection any more ({name}).")
        if code in NOT_LOADED_CODES:
            return NotLoadedError(f"{where}: the collection is not loaded ({name}).")
        if any(word in text for word in DENIED):
            return ServerError(
                f"{where} denies the login: put user:password@ before the host, or set {TOKEN_VARIABLE}."
            )
        if any(word in text for word in UNREACHABLE):
            return ServerError(f"{where} cannot be reached ({name}). Check the address, and that the server runs.")
        if any(word in text for word in LATE):
            return ServerError(
                f"{where} did not answer {name} in time ({self.location.timeout:g} seconds for most calls). Try again, "
                "or allow more with ?timeout=SECONDS."
            )
        return ServerError(f"{where} refused {name}: {_first_line(error)}")

    def behind(self, alias: str) -> str | None:
        """The collection that an alias points at; None where there is no such alias."""
        try:
            return str(self.call("describe_collection", alias)["collection_name"])
        except CollectionGoneError:
            return None

    def flush(self, name: str) -> None:
        """Write the rows of a collection that are in memory into files."""
        self.call("flush", name, timeout=max(FLUSH_TIMEOUT, self.location.timeout))

    def build_index(self, name: str, parameters: Any) -> None:
        """Build an index, and wait for it as long as the server works on it."""
        # Milvus Lite builds inside the request. A server is asked now and then, so that its end is noticed.
        timeout = BUILD_TIMEOUT if self._file else None
        self.call("create_index", name, parameters, sync=False, timeout=timeout)
        for found in self._asked_again("describe_index", name, index_name=VECTOR_INDEX):
            if found["state"] == "Finished":
                return
            if found["state"] == "Failed":
                raise ServerError(f"Milvus could not build the index of {name}: {found['index_state_fail_reason']}")

    def load(self, name: str) -> None:
        """Load a collection for search, and wait until it is; quick where it is loaded."""
        self.call("load_collection", name, _async=True)
        for found in self._asked_again("get_load_state", name):
            if found["state"].name == "Loaded":
                return

    def _asked_again(self, name: str, *values: Any, **options: Any) -> Iterator[Any]:
        """Answers to one question, every half second."""
        started = time.monotonic()
        while time.monotonic() - started < BUILD_TIMEOUT:
            yield self.call(name, *values, **options)
            time.sleep(0.05 if self._file else 0.5)
        raise ServerError(
            f"Milvus at {self.location.address} did not end in {BUILD_TIMEOUT / 3_600:.0f} hours ({name})."
        )

    def close(self) -> None:
        """Close; harmless when closed."""
        client, self._client = self._client, None
        if client is None:
            return
        client.close()
        with _lite_lock:
            _lite_users[self._file] -= 1
            if self._file and not _lite_users[self._file]:
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self._file)


def _quiet() -> None:
    """Silence the reports of failed calls, where the program has not chosen a level for them."""
    for name in QUIETED:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL + 1)


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock file of Milvus Lite."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _first_line(error: Exception) -> str:
    message = str(getattr(error, "message", "") or error).strip()
    return message.splitlines()[0][:300] if message else type(error).__name__
