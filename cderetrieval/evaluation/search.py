"""Index a corpus and search it through the Retriever that users run.

A context is made from the documents alone, never from queries or judgements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..context.context import Context
from ..errors import InputError
from ..queries import Hits, text_ids
from ..retrieval.embedder import LEXICAL, Model
from ..retrieval.local import LocalCollection
from ..retrieval.names import AnyModel, HybridModel
from ..retrieval.retriever import Retriever
from ..retrieval.searcher import Searcher
from ..types import Encoder, is_contextual
from ..vectors import DENSE, SPARSE_EMBED, take
from .metrics import Run
from .variants import ContextVariant

# As deep as mteb and beir rank, so that Recall@1000 and MAP mean the same.
DEPTH = 1_000
FIELDS = ("title", "text")
# Queries that are searched and scored together: 512 rankings of 1,000 hits are 150 MB of Python objects.
BLOCK = 512
# Replaces the text of a document without any. A Retriever refuses an empty text, which is a mistake in a user's
# documents, but official corpora have some (FiQA: 38), and without them scores would differ from published ones.
# BERT's tokenizers drop this character.
BLANK = "\u200b"
# Kinds of models without one vector for a text, so that candidates cannot be scored by inner products.
NO_VECTORS = (LEXICAL, HybridModel.kind, SPARSE_EMBED)


def model_kind(model: AnyModel) -> str:
    """Kind of a model; a contextual one is dense."""
    return str(getattr(model, "kind", DENSE))


def index_corpus(
    model: AnyModel,
    variant: ContextVariant,
    documents: Iterable[Mapping[str, str]],
    dtype: str = "auto",
    directory: str | Path | None = None,
    show_progress: bool = False,
) -> Retriever:
    """Add documents ``{"id", "title", "text"}`` to a retriever with an exact index: only the model is evaluated."""
    options: dict[str, Any] = {
        "key": "id",
        "on": FIELDS,
        "context": variant.given,
        "context_size": variant.size,
        "passages": variant.passages,
        "document_context": variant.document,
        "rerank": variant.reranker,
        "path": directory,
        "dtype": dtype,
        "seed": variant.seed,
    }
    retriever: Retriever
    if isinstance(model, HybridModel):
        indexes = {name: _exact(part) for name, part in model.parts.items()}
        retriever = Retriever(dict(model.parts), fusion=model.fusion, index=indexes, **options)
    else:
        retriever = Retriever(model, index=_exact(model), **options)
    return retriever.add(fill_blank(documents), show_progress=show_progress)


def _exact(model: AnyModel) -> str:
    return "Flat" if model_kind(model) == DENSE else "auto"


def fill_blank(documents: Iterable[Mapping[str, str]]) -> Iterator[dict[str, str]]:
    """Documents with `BLANK` in place of an empty text."""
    for document in documents:
        title, text = document.get("title") or "", document.get("text") or ""
        yield {"id": document["id"], "title": title, "text": text if (title.strip() or text.strip()) else BLANK}


def texts_of(documents: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Ids and texts of documents, with title and text joined as a retriever joins them."""
    for document in fill_blank(documents):
        yield document["id"], " ".join(filter(None, (document[field].strip() for field in FIELDS)))


def search_blocks(retriever: Searcher, queries: Mapping[str, str], k: int = DEPTH) -> Iterator[Run]:
    """Hits of all queries, `BLOCK` queries at a time."""
    ids = text_ids(queries, "queries")
    texts = [text if text.strip() else BLANK for text in queries.values()]
    # All queries are encoded at once, sorted by length; BM25, hybrids and rerankers take texts.
    vectors = None
    if retriever.fusion is None and retriever.reranker is None and retriever.encoder.kind != LEXICAL:
        vectors = retriever.encoder.encode_query(texts)
    for start in range(0, len(ids), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(ids)))
        block: Any = [texts[row] for row in rows] if vectors is None else take(vectors, rows)
        yield Hits(retriever(block, k=k), [ids[row] for row in rows]).to_run()


def search_passages(retriever: Retriever, queries: Mapping[str, str], k: int) -> dict[str, list[tuple[str, int, int]]]:
    """The best passages of each query, each (document id, start, end) in the document's text; not those of titles.

    Several models rank documents: there, the best passage of each.
    """
    by = "passage" if retriever.fusion is None else "document"
    found: dict[str, list[tuple[str, int, int]]] = {}
    ids = list(queries)
    for start in range(0, len(ids), BLOCK):
        some = ids[start : start + BLOCK]
        texts = [queries[query] if queries[query].strip() else BLANK for query in some]
        for query, hits in zip(some, retriever(texts, k=k, passages=True, by=by), strict=True):
            places = [(hit["id"], hit["passage"]["start"], hit["passage"]["end"]) for hit in hits]
            found[query] = [place for place in places if place[1] < place[2]]
    return found


def encode_side(encoder: Encoder, texts: Sequence[str], is_query: bool) -> Any:
    """Vectors of queries or of documents, under the model's own prompts."""
    return encoder.encode_query(texts) if is_query else encoder.encode_document(texts)


def encoder_in(
    model: Model, variant: ContextVariant, pool: Iterable[tuple[str, str]], dtype: str = "auto"
) -> tuple[Encoder, Context | None]:
    """The model in a context made from (id, text) pairs, and that context; None for a model that takes none."""
    if variant.passages is not None:
        raise InputError("one vector for each text was asked for, and documents are to be cut: leave out passages=.")
    if not is_contextual(model):
        return cast(Encoder, model), None
    context = variant.spec.make(model, pool, seed=variant.seed, size=variant.size)
    return context.encoder(model, dtype=dtype), context


def cut_of(retriever: Retriever, variant: ContextVariant) -> dict[str, Any]:
    """How many documents were cut, and the number of vectors of these; empty where the variant cuts none."""
    if variant.passages is None:
        return {}
    counts = cast(LocalCollection, retriever.collection).cut()[1]
    return {"cut_documents": len(counts), "cut_vectors": int(counts.sum())}


def audit(
    context: Context | None, pool: int, texts: Iterable[tuple[str, str]] = (), queries: Iterable[str] | None = None
) -> dict[str, Any]:
    """What a context was made of, to be written beside the scores; empty without a context.

    `pool` is the number of texts that it could be sampled from. With `queries`, ``equal_to_query`` counts the context
    texts that equal one, but for case and space. It is above 0 where queries are documents of the corpus (ArguAna), and
    would show a leak anywhere else.
    """
    if context is None:
        return {}
    found: dict[str, Any] = {
        "source": context.source,
        "documents": len(context),
        "digest": context.digest,
        "ids": [str(identity) for identity in context.ids],
        "pool": pool,
    }
    if context.source == "own" and queries is not None:
        asked = {" ".join(query.casefold().split()) for query in queries}
        ids = set(context.ids)
        sampled = (text for identity, text in texts if identity in ids)
        found["equal_to_query"] = sum(" ".join(text.casefold().split()) in asked for text in sampled)
    return found
