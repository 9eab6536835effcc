"""Embeddings over HTTP, in the form of OpenAI's API, and the nested form for passages of documents.

Queries are told from documents by ``input_type``, as Voyage, Cohere and NVIDIA call it, or by a suffix of the model's
name, ``-query`` or ``-document``, for clients that can say nothing else. Without either, texts are documents.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError
from ..models.document_context import DocumentContext, Units, encode_passages
from ..passages import FIELD, Passages, Splitter, joined
from ..retrieval.searcher import Searcher
from .answers import Count, Embed, encoders
from .guard import RefusedError
from .service import Reply, Service, service_of

router = APIRouter()

# Texts of a request, characters of one, and texts that are embedded together: between two lots others have their turn.
TEXTS, CHARACTERS, LOT = 2_048, 2**20, 32
INPUT_TYPES = {
    **dict.fromkeys(("query", "search_query"), True),
    **dict.fromkeys(("document", "passage", "search_document"), False),
}
SUFFIXES = {"-query": True, "-document": False, "-passage": False}
InputType = Literal["query", "search_query", "document", "passage", "search_document"]


class Embeddings(BaseModel):
    """The body of ``/v1/embeddings``."""

    model_config = ConfigDict(extra="ignore")
    input: str | list[Any]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    input_type: InputType | None = None


class Contextualized(BaseModel):
    """The body of ``/v1/contextualizedembeddings``."""

    model_config = ConfigDict(extra="ignore")
    inputs: Annotated[list[Annotated[list[str], Field(fail_fast=True)]], Field(min_length=1, fail_fast=True)]
    model: str
    encoding_format: Literal["float", "base64"] | None = None
    input_type: InputType | None = None
    output_dimension: int | None = None
    output_dtype: Literal["float"] = "float"  # noqa: V107


@router.get("/v1/models")
def list_models(request: Request) -> Reply:
    """The models that make vectors."""
    names = encoders(service_of(request).source.current())
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "cderetrieval"} for name in names]
    return Reply({"object": "list", "data": data})


@router.post("/v1/embeddings")
async def embeddings(body: Embeddings, request: Request) -> Reply:
    """One vector for each text, in the context of the index."""
    texts = _texts([body.input] if isinstance(body.input, str) else body.input)
    service = service_of(request)
    name, _, query = _asked(service, body.model, body.input_type, body.dimensions)
    kind, found = Embed(name, query), []
    for start in range(0, len(texts), LOT):
        found.append(await service.ask(request, kind, texts[start : start + LOT]))
    data = _data(np.concatenate(found), body.encoding_format)
    tokens = await service.ask(request, Count(name), texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply({"object": "list", "data": data, "model": body.model, "usage": usage})


@router.post("/v1/contextualizedembeddings")
async def contextualized(body: Contextualized, request: Request) -> Reply:
    """One vector for each passage of each document, with what passages take in of their documents in this index."""
    service = service_of(request)
    name, part, query = _asked(service, body.model, body.input_type, body.output_dimension)
    texts = _texts([text for passages in body.inputs for text in passages])
    if query and any(len(passages) != 1 for passages in body.inputs):
        raise InputError("queries stand alone: with input_type 'query' each list of inputs holds one text.")
    data = []
    for number, passages in enumerate(body.inputs):
        if not passages:
            raise InputError(f"inputs[{number}] is empty; a document has at least one passage.")
        if query:
            vectors = await service.ask(request, Embed(name, True), passages)
        else:
            vectors = await service.slowly(_passages, service, part, passages)
        rows = _data(vectors, body.encoding_format or "float")
        data.append({"object": "list", "data": rows, "index": number})
    usage = {"total_tokens": await service.ask(request, Count(name), texts)}
    return Reply({"object": "list", "data": data, "model": body.model, "usage": usage})


def _passages(service: Service, part: Searcher, passages: Sequence[str]) -> np.ndarray:
    """Vectors of the passages of a document, as an index has them."""
    given = {FIELD: [text.strip() for text in passages]}
    text = joined(given[FIELD], FIELD)
    cut = Splitter(Passages(), None, ())
    units = Units.of([(text, cut(text, given), "")])
    context = DocumentContext.of(service.source.current().collection.document, part.model)
    return np.asarray(encode_passages(part.encoder, units, context))


def _asked(service: Service, model: str, input_type: str | None, dimension: int | None) -> tuple[str, Searcher, bool]:
    """The name of a model that is served, the model, and whether texts are queries."""
    known = encoders(service.source.current())
    suffix = next((end for end in SUFFIXES if model.endswith(end) and model not in known), "")
    name = model.removesuffix(suffix)
    if name not in known:
        names = ", ".join(known) or "none with dense vectors"
        raise RefusedError(404, "ModelError", f"model {model!r} is not served here; there is {names}.")
    query = SUFFIXES.get(suffix, False) if input_type is None else INPUT_TYPES[input_type]
    if suffix and input_type is not None and SUFFIXES[suffix] != query:
        raise InputError(f"model {model!r} and input_type {input_type!r} contradict each other.")
    part = known[name]
    if dimension not in (None, part.encoder.dimension):
        raise InputError(f"this model has {part.encoder.dimension} dimensions, not {dimension}.")
    return name, part, query


def _texts(given: Sequence[Any]) -> list[str]:
    if not given or len(given) > TEXTS:
        raise InputError(f"there are {len(given)} texts; pass 1 to {TEXTS:,} at a time.")
    for number, text in enumerate(given):
        if not isinstance(text, str):
            raise InputError(f"input {number} is {type(text).__name__}; pass texts, not tokens.")
        if not text.strip() or len(text) > CHARACTERS:
            what = "is empty" if not text.strip() else f"has {len(text):,} characters; at most {CHARACTERS:,} are read"
            raise InputError(f"input {number} {what}.")
    return list(given)


def _data(vectors: np.ndarray, form: str) -> list[dict[str, Any]]:
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    found = [base64.b64encode(row.tobytes()).decode() for row in rows] if form == "base64" else rows.tolist()
    return [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(found)]
