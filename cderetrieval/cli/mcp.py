"""``cderetrieval mcp``: an index for programs that speak the Model Context Protocol."""

from __future__ import annotations

import argparse
from typing import Any

from .parsing import add_opening, command


def add(commands: Any) -> None:
    """Add the command and its options."""
    what = "Serve an index to programs that speak MCP, over standard input and output; nothing is changed."
    parser = command(commands, "mcp", run_mcp, what)
    parser.add_argument("index", metavar="DIR", help="directory, or milvus://HOST:PORT/COLLECTION")
    parser.add_argument("--name", default="cderetrieval", help="name of the server (default: cderetrieval)")
    add_opening(parser)


def run_mcp(arguments: argparse.Namespace) -> None:
    """Serve until standard input is closed."""
    from ..integrations.mcp import server_of
    from ..retrieval.retriever import Retriever

    with Retriever.load(arguments.index, model=arguments.model, device=arguments.device) as retriever:
        server_of(retriever, arguments.name).run()
