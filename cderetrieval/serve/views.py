"""Routes beside search: health, metrics, the index and its context, documents, and changes where they are allowed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from ..errors import InputError
from ..passages import body_of
from ..vectors import DENSE
from .answers import shown_fields, shown_title
from .guard import RefusedError, check_queries, parsed
from .service import Reply, Service, service_of

router = APIRouter()

# What the number beside an answer means.
DENSE_MEANING = (
    "The number is a similarity: 1 would be the same text, 0 has nothing to do with the query. It is no probability, "
    "and right answers are often far below 1; compare it within the answers to one query."
)
WORDS_MEANING = (
    "The number adds up what the words in common weigh: the rarer a word, the more. It has no upper end; compare it "
    "within the answers to one query."
)
FUSED_MEANING = (
    "The number adds up what each model gives a document for its rank or score. It means nothing by itself; it only "
    "orders the answers to one query."
)


@router.get("/health")
def health() -> Reply:
    """That the server is there."""
    return Reply({"status": "ok"})


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Counters, as Prometheus reads them."""
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/info")
def info(request: Request) -> Reply:
    """Name and size of the index, and what may be filtered by."""
    service = service_of(request)
    retriever = service.source.current()
    several, layout = retriever.fusion is not None, retriever.collection.layout_of(0)
    is_dense = layout is not None and layout.kind == DENSE
    values = {
        "name": service.name,
        "writable": service.writable,
        "several": several,
        "reranks": retriever.reranker is not None,
    }
    values["meaning"] = FUSED_MEANING if several else DENSE_MEANING if is_dense else WORDS_MEANING
    return Reply({**values, "documents": len(retriever), "facets": service.corpus.facets()})


@router.get("/context")
async def context(request: Request) -> Reply:
    """The corpus as its context sees it."""
    service = service_of(request)
    return Reply(await service.slowly(service.corpus.context))


@router.get("/context/drift")
async def drift(request: Request) -> Reply:
    """How far the corpus has moved away from its context."""
    service = service_of(request)
    return Reply(await service.slowly(service.corpus.drift))


@router.get("/context/compare")
async def compare(request: Request, query: str, k: Annotated[int, Query(ge=1, le=50)] = 5) -> Reply:
    """One query in no context, a neutral one, and the corpus's own."""
    check_queries([query])
    service = service_of(request)
    return Reply(await service.slowly(service.corpus.compare, query, k))


@router.get("/documents")
def document(request: Request, id: str) -> Reply:
    """A document, by its id as JSON."""
    return Reply(read_document(service_of(request), parsed(id, "id")))


def read_document(service: Service, identity: Any) -> dict[str, Any]:
    """A document as it was added, its body, and what to call it."""
    retriever = service.source.current()
    collection: Any = retriever.collection
    if not isinstance(identity, str | int | float) or identity not in retriever:
        raise RefusedError(404, "InputError", f"id {identity!r} is not in this index.")
    if not hasattr(collection, "seqs_of"):
        raise InputError("an index on a server gives its documents with documents=true of a search.")
    (found,) = collection.documents(collection.seqs_of([identity]))
    body = body_of(found, collection.settings.on, collection.passages)
    return {
        "id": identity,
        "title": shown_title(found, retriever),
        "body": body,
        "fields": shown_fields(found, retriever),
        "document": found,
    }


class Added(BaseModel):
    """The body of ``POST /documents``."""

    model_config = ConfigDict(extra="forbid")
    documents: Annotated[list[dict[str, Any] | str], Field(fail_fast=True)]


class Removed(BaseModel):
    """The body of ``DELETE /documents``."""

    model_config = ConfigDict(extra="forbid")
    ids: Annotated[list[str | int | float | bool], Field(fail_fast=True)]


@router.post("/documents")
async def add(body: Added, request: Request) -> Reply:
    """Add documents; one whose id is there is replaced. All of them or, after an error, none."""
    service = _writable(request)

    def added() -> int:
        return len(service.source.current().add(body.documents, show_progress=False))

    return Reply({"added": len(body.documents), "documents": await service.slowly(added)})


@router.delete("/documents")
async def remove(body: Removed, request: Request) -> Reply:
    """Remove documents by id. All of them or, after an error, none."""
    service = _writable(request)

    def removed() -> int:
        return len(service.source.current().remove(body.ids))

    return Reply({"removed": len(body.ids), "documents": await service.slowly(removed)})


def _writable(request: Request) -> Service:
    service = service_of(request)
    if not service.writable:
        raise RefusedError(
            403, "ReadOnlyError", "this server only reads; start it with --writable to change documents."
        )
    return service
