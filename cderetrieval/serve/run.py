"""Listen: open the index, take the address, and serve until a signal asks to stop."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, missing_dependency
from ..retrieval.retriever import Retriever
from .guard import is_loopback

logger = logging.getLogger(__name__)

# Seconds that requests have to end in when the server stops.
GRACE = 10
SHORTEST = 16


def serve(
    path: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8321,
    token: str | None = None,
    writable: bool = False,
    model: Any = None,
    device: str | None = None,
    ready: Callable[[str], None] = logger.info,
) -> None:
    """Serve an index over HTTP, with a search page, until a signal asks to stop.

    Parameters
    ----------
    path
        Directory of the index.
    host
        Address to listen on; another than loopback needs a token.
    port
        Port to listen on; 0: a free one.
    token
        What clients send as ``Authorization: Bearer TOKEN``, of at least 16 characters.
    writable
        Let clients add and remove documents.
    model, device
        As for ``Retriever.load``.
    ready
        Called with the address when the server listens.

    Raises
    ------
    ConfigError
        If the address cannot be had, or is open to others without a token.
    StoreError
        If there is no index, or it is damaged.
    """
    try:
        import uvicorn

        from .app import create_app
    except ImportError as error:
        raise missing_dependency(error.name or "fastapi", "serve") from error
    loopback = check_open(host, token)
    listening = listen(host, port)
    try:

        def reopen() -> Retriever:
            return Retriever.load(path, model=model, device=device)

        retriever = reopen()
        if len(retriever):  # model and index are loaded before the first client waits for them
            retriever("a", k=1)
        name = Path(path).absolute().name
        app = create_app(retriever, writable=writable, token=token, loopback=loopback, name=name, reopen=reopen)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE, lifespan="on"
        )
        ready(address(host, listening.getsockname()[1]))
        # uvicorn stops at a signal, and raises it again when it has: then it has done its work.
        signal.signal(signal.SIGTERM, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()


def check_open(host: str, token: str | None) -> bool:
    """Whether a host is loopback; another needs a token, and a token some length."""
    if token is not None and (len(token) < SHORTEST or not token.isascii() or token.split() != [token]):
        raise ConfigError(f"the token must have at least {SHORTEST} ASCII characters and no white space.")
    loopback = is_loopback(host)
    if not loopback and token is None:
        raise ConfigError(
            f"--host {host} is open to other machines: give a --token that they must know, or leave --host out."
        )
    return loopback


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, or an error that says why not."""
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port {port} is no port; choose one from 0 (any that is free) to 65535.")
    try:
        # With its protocol: asyncio does not know it for TCP without, and half of an answer then waits 40 ms.
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host} --port {port}: {error}.") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
        found.listen(1_024)
        found.set_inheritable(False)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} of {host} is in use. Choose another with --port, or 0 for any that is free."
            raise ConfigError(message) from error
        raise ConfigError(f"cannot listen on port {port} of {host}: {error.strerror}.") from error
    return found


def address(host: str, port: int) -> str:
    """The address to open."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"
