"""Routes that change an index; they answer only where the server was started to let them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from .guard import RefusedError
from .service import Reply, Service, service_of

router = APIRouter()


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
