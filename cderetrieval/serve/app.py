"""The application: routes of searching, reading and changing an index, and the page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .. import __version__
from ..errors import CDEError, InputError, LockedError, StoreError
from ..retrieval.retriever import Retriever
from . import embeddings, views
from .answers import Explain, Search
from .guard import Guard, RefusedError, check_queries, error_body, filter_of, filter_text, parsed
from .served_index import ServedIndex
from .service import Reply, Service, service_of

# Most hits of a query; of a request; of one with whole documents; of one with marks, which take milliseconds each.
HITS, IN_ALL, WHOLE, MARKED = 1_000, 20_000, 1_000, 100
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/map.js": ("map.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}


class SearchBody(BaseModel):
    """The body of ``/search``."""

    model_config = ConfigDict(extra="forbid")
    query: str | Annotated[list[str], Field(fail_fast=True)]
    k: int = Field(10, ge=1, le=HITS)
    filter: dict[str, Any] | None = None
    by: Literal["document", "passage"] = "document"
    passages: bool = True
    documents: bool = False
    marks: bool = False


def create_app(
    retriever: Retriever,
    *,
    writable: bool = False,
    token: str | None = None,
    loopback: bool = True,
    name: str = "",
    reopen: Callable[[], Retriever] | None = None,
) -> FastAPI:
    """Build the ASGI application of an index, for uvicorn or another server.

    Parameters
    ----------
    retriever
        The index; the application closes it when it ends.
    writable
        Let clients add and remove documents.
    token
        What clients send as ``Authorization: Bearer TOKEN``; None: nothing.
    loopback
        Answer only to the names of this machine; False behind another name, and then give a token.
    name
        Title of the page.
    reopen
        Opens the index again where its directory was replaced.

    Returns
    -------
    fastapi.FastAPI
        The application.

    Examples
    --------
    >>> from cderetrieval import Retriever
    >>> from cderetrieval.serve import create_app
    >>> app = create_app(Retriever("bm25").add(["owls hunt at night"]))
    >>> app.title
    'cderetrieval'
    """
    service = Service(ServedIndex(retriever, reopen), writable=writable, name=name)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="cderetrieval", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(Guard, loopback=loopback, token=token, metrics=service.metrics)
    _add_errors(app)
    for path in PAGE:
        app.add_api_route(path, page, include_in_schema=False)
    app.add_api_route("/search", search, methods=["POST"], response_class=Reply)
    app.add_api_route("/search", search_by_address, methods=["GET"], response_class=Reply)
    app.add_api_route("/explain", explain, methods=["GET"], response_class=Reply)
    for router in (views.router, embeddings.router):
        app.include_router(router)
    return app


def page(request: Request) -> Response:
    """The page and its parts."""
    file, kind = PAGE[request.scope["route"].path]
    return Response((files("cderetrieval.serve") / "page" / file).read_bytes(), media_type=kind)


async def search(body: SearchBody, request: Request) -> Reply:
    """Search for a query or several."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    check_queries(queries)
    most, told = (WHOLE, " with documents") if body.documents else (IN_ALL, "")
    most, told = (MARKED, " with marks") if body.marks else (most, told)
    if body.k * len(queries) > most:
        raise InputError(f"at most {most:,} hits{told} are given at a time; ask fewer queries, or a smaller k.")
    kind = Search(body.k, filter_text(body.filter), body.by, body.passages, body.documents, body.marks)
    hits = await service_of(request).ask(request, kind, queries)
    return Reply({"query": body.query, "hits": hits[0] if isinstance(body.query, str) else hits})


async def search_by_address(
    request: Request,
    query: str,
    k: Annotated[int, Query(ge=1, le=HITS)] = 10,
    filter: str | None = None,
    by: Literal["document", "passage"] = "document",
    passages: bool = True,
    documents: bool = False,
) -> Reply:
    """Search for one query; the filter is JSON."""
    body = SearchBody(query=query, k=k, filter=filter_of(filter), by=by, passages=passages, documents=documents)
    return await search(body, request)


async def explain(request: Request, query: str, id: str, filter: str | None = None) -> Reply:
    """Why a document answers a query; id and filter are JSON."""
    check_queries([query])
    kind = Explain(filter_text(filter_of(filter)))
    answer = await service_of(request).ask(request, kind, (query, parsed(id, "id")))
    return Reply({"query": query, **answer})


def _add_errors(app: FastAPI) -> None:
    """Answer errors in one form; what is none of the client's is logged and not told."""

    def answer(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> Response:
        return Response(error_body(kind, message), status, headers, "application/json")

    @app.exception_handler(CDEError)
    async def named(_: Request, error: CDEError) -> Response:
        kind = type(error).__name__
        if isinstance(error, LockedError):
            return answer(503, kind, "another process is writing to this index; try again.", {"retry-after": "2"})
        if isinstance(error, StoreError):
            return answer(503, kind, "the index cannot be read now; the server's log says why.", {"retry-after": "2"})
        return answer(422, kind, str(error))

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return answer(error.status, error.kind, str(error), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:])) or "the body"
        return answer(422, "InputError", f"{where}: {first['msg']}.")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}."
        return answer(error.status_code, "RequestError", message, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return answer(500, "ServerError", "this is a bug of the server; its log has the traceback.")
