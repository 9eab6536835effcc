"""An MCP server over an index: programs with a language model search it, read its documents, and ask what it holds.

    cderetrieval mcp index/

It speaks over standard input and output, changes nothing, and opens no port. It follows an index that another process
changes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from .. import __version__
from ..errors import CDEError, InputError, needs
from ..retrieval.retriever import Retriever
from .adapter import Adapter, Found

with needs("mcp", "mcp"):
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

T = TypeVar("T")

# Most hits of a search, most characters of one reading, and documents whose fields are described.
MOST_HITS, PAGE, LOOKED_AT = 50, 20_000, 200
INSTRUCTIONS = "Search a collection of documents by meaning. Start with search; read gives more of a document."


def server_of(retriever: Retriever, name: str = "cderetrieval") -> MCPServer[Any]:
    """A server with the tools search, read and describe; run it with ``server.run()``.

    Parameters
    ----------
    retriever
        The index; it is only read.
    name
        Name of the server.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> server_of(Retriever(tiny_model()), name="notes").name
    'notes'
    """
    adapter = Adapter(retriever)
    server: MCPServer[Any] = MCPServer(name, instructions=INSTRUCTIONS, version=__version__)

    @server.tool()
    async def search(query: str, k: int = 5, filter: dict[str, Any] | None = None) -> dict[str, Any]:
        """Find the passages that answer a query best, one of each document.

        `filter` maps metadata fields to a value, a list of values, or comparisons: {"year": {">=": 2020}}.
        `describe` names the fields.
        """
        return await _called(lambda: {"hits": _hits(adapter.find(query, min(k, MOST_HITS), filter=filter))})

    @server.tool()
    async def read(id: str, start: int = 0, length: int = PAGE) -> dict[str, Any]:
        """Read a document by id, from a character on; `end` below `characters` means that there is more."""
        return await _called(lambda: _page(adapter, id, start, length))

    @server.tool()
    async def describe() -> dict[str, Any]:
        """Say what the collection holds: number of documents, metadata fields with an example, models, context."""
        return await _called(lambda: _description(adapter))

    return server


async def _called(call: Callable[[], T]) -> T:
    """What a call returns, on a thread; the errors that this package raises on purpose reach the client."""
    try:
        return _sendable(await asyncio.to_thread(call))
    except CDEError as error:
        raise ToolError(str(error)) from error


def _hits(found: list[Found]) -> list[dict[str, Any]]:
    return [{"id": f.id, "similarity": f.score, "text": f.text, "metadata": f.described} for f in found]


def _sendable(value: T) -> T:
    """A value with a question mark for half a character, and nothing for a number that JSON lacks."""
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace")
    found: T = json.loads(text, parse_constant=lambda _: None)
    return found


def _page(adapter: Adapter, name: str, start: int, length: int) -> dict[str, Any]:
    found = next(iter(adapter.get([name])), None)
    if found is None:
        raise InputError(f"there is no document {name!r}; search gives ids.")
    if start < 0 or length < 1:
        raise InputError(f"start={start} must be at least 0, and length={length} at least 1.")
    text = found.text[start : start + min(length, PAGE)]
    place = {"start": start, "end": start + len(text), "characters": len(found.text)}
    return {"id": name, "text": text, **place, "metadata": found.metadata}


def _description(adapter: Adapter) -> dict[str, Any]:
    retriever = adapter.retriever
    fields: dict[str, Any] = {}
    for found in islice(adapter.all(), LOOKED_AT):
        fields = {**found.metadata, **fields}
    settings = retriever.collection.settings
    names = [settings.model] if settings.models is None else list(settings.models)
    contexts = [f"{len(one)} documents, {one.source}" for one in retriever.contexts.values()]
    return {"documents": len(retriever), "fields": fields, "models": names, "contexts": contexts}
