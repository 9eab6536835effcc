"""``cderetrieval serve``: an index over HTTP, with a search page."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ..terminal import keywords, printable, say
from .parsing import add_opening, command

TOKEN = "CDERETRIEVAL_TOKEN"


def add(commands: Any) -> None:
    """Add the command and its options."""
    parser = command(commands, "serve", run_serve, "Serve an index over HTTP, with a search page.")
    parser.add_argument("index", metavar="DIR", help="directory of the index")
    host = "address to listen on (default: 127.0.0.1); another than loopback needs a token"
    parser.add_argument("--host", default="127.0.0.1", help=host)
    parser.add_argument("--port", type=int, default=8321, help="port; 0: a free one (default: 8321)")
    token = f"what clients must send as 'Authorization: Bearer TOKEN' (default: ${TOKEN}, which ps does not show)"
    parser.add_argument("--token", default=os.environ.get(TOKEN), help=token)
    parser.add_argument("--writable", action="store_true", help="let clients add and remove documents")
    add_opening(parser)


def run_serve(arguments: argparse.Namespace) -> None:
    """Serve until a signal asks to stop."""
    from ..serve.run import serve

    def ready(address: str) -> None:
        key = "#token=..." if arguments.token else ""
        say(printable(f"{arguments.index} is served at {address}{key}; Ctrl-C stops it"))
        if sys.stdout is not None:
            sys.stdout.flush()

    serve(**keywords(serve, arguments, path=arguments.index, ready=ready))
