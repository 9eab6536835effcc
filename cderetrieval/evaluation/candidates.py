"""Rerank each query's candidates: the truncated BEIR of section 10.9 of the CDE paper, and mteb's reranking tasks.

The truncated setting keeps, for each query, the top 1,024 documents of a first-stage model; the evaluated model ranks
only those. It is kinder to every model than full retrieval, so its scores must not be compared with that. The context
still comes from the whole corpus: the candidates were chosen by queries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..embedding import LEXICAL, Model, is_contextual
from ..errors import InputError
from ..fusion.model import AnyModel, HybridModel, takes_context
from ..index.scores import lengths, settled
from ..types import Encoder
from ..vectors import DENSE, SPARSE_EMBED
from .forms import Run

if TYPE_CHECKING:
    from ..context.context import Context
    from ..corpora.dataset import Dataset
    from .setting import ContextSetting

# Query id to the ids of its candidates.
Candidates = Mapping[str, Sequence[str]]
# Texts and whether they are queries, to vectors.
Encode = Callable[[Encoder, Sequence[str], bool], Any]

PAPER_DEPTH = 1_024
# Kinds that give no single vector for a text, whose inner products rank: their candidates are found by a search.
NO_VECTORS = (LEXICAL, HybridModel.kind, SPARSE_EMBED)
# Documents that are encoded together, as by a retriever.
_CHUNK = 10_000


def model_kind(model: AnyModel) -> str:
    """Kind of a model; a contextual one is dense."""
    return str(getattr(model, "kind", DENSE))


def encode_side(encoder: Encoder, texts: Sequence[str], is_query: bool) -> Any:
    """Vectors of queries or of documents, under the model's own prompts."""
    return encoder.encode_query(texts) if is_query else encoder.encode_document(texts)


def encoder_in(
    model: Model, setting: ContextSetting, pool: Iterable[tuple[str, str]], dtype: str = "auto"
) -> tuple[Encoder, Context | None]:
    """The model in a context made from (id, text) pairs, and that context; a plain model is its own encoder."""
    if not is_contextual(model):
        return cast(Encoder, model), None
    context = setting.make(model, pool)
    return context.encoder(model, dtype=dtype), context


def rerank(
    model: AnyModel,
    setting: ContextSetting,
    documents: Callable[[], Iterable[tuple[str, str]]],
    queries: Mapping[str, str],
    candidates: Candidates,
    dtype: str = "auto",
    encode: Encode = encode_side,
) -> tuple[Iterator[Run], Context | None]:
    """Score the candidates of each query.

    Parameters
    ----------
    model, setting, dtype
        The model, its context, and the number format of the computation.
    documents
        Starts a pass over ids and texts of the whole corpus; there are two, for the context and for the candidates.
    queries
        Query id to text.
    candidates
        Documents to score; a query without candidates has no hits.
    encode
        How texts become vectors.

    Returns
    -------
    tuple
        Query id to document id to score, one query at a time; and the context.

    Raises
    ------
    InputError
        If a candidate is not in the corpus.
    """
    wanted = {document for query in queries for document in candidates.get(query, ())}
    if model_kind(model) in NO_VECTORS:
        return _searched(model, setting, documents, queries, candidates, wanted, dtype)
    encoder, context = encoder_in(cast(Model, model), setting, documents(), dtype)
    place, vectors = _encode_wanted(documents(), wanted, lambda texts: encode(encoder, texts, False))
    _check_there(wanted, place)
    asked = encode(encoder, list(queries.values()), True)
    return _scored(asked, vectors, queries, candidates, place), context


def _check_there(wanted: set[str], there: Container[str]) -> None:
    missing = sorted(document for document in wanted if document not in there)
    if missing:
        raise InputError(f"{len(missing)} candidates are not in the corpus, the first is {missing[0]!r}.")


def _searched(
    model: AnyModel,
    setting: ContextSetting,
    documents: Callable[[], Iterable[tuple[str, str]]],
    queries: Mapping[str, str],
    candidates: Candidates,
    wanted: set[str],
    dtype: str,
) -> tuple[Iterator[Run], Context | None]:
    """Scores of candidates from a search through the whole corpus: what a word is worth depends on all of it.

    A candidate that the search does not find at all comes last, below all that it finds.
    """
    from .retrieval import index_corpus, search_blocks

    corpus = ({"id": identity, "title": "", "text": text} for identity, text in documents())
    retriever = index_corpus(model, setting, corpus, dtype)
    _check_there(wanted, retriever)

    def blocks() -> Iterator[Run]:
        with retriever:
            for query, text in queries.items():  # one by one: each ranks the whole corpus
                chosen = list(dict.fromkeys(candidates.get(query, ())))
                hits = next(search_blocks(retriever, {query: text}, len(retriever)))[query] if chosen else {}
                lowest = min(hits.values(), default=0.0)
                least = lowest - max(1.0, abs(lowest))
                yield {query: {document: hits.get(document, least) for document in chosen}}

    return blocks(), retriever.context


def _encode_wanted(
    documents: Iterable[tuple[str, str]], wanted: set[str], encode: Callable[[Sequence[str]], Any]
) -> tuple[dict[str, int], Any]:
    """Row of each wanted document, and their vectors; the texts are held a chunk at a time."""
    place: dict[str, int] = {}
    chunks: list[Any] = []
    stream = (pair for pair in documents if pair[0] in wanted)
    while chunk := list(islice(stream, _CHUNK)):
        place.update({document: len(place) + i for i, (document, _) in enumerate(chunk)})
        chunks.append(encode([text for _, text in chunk]))
    if not chunks:
        return place, None
    if hasattr(chunks[0], "toarray"):
        from scipy.sparse import vstack

        return place, vstack(chunks, format="csr")
    return place, np.concatenate(chunks)


def _scored(
    asked: Any, vectors: Any, queries: Iterable[str], candidates: Candidates, place: Mapping[str, int]
) -> Iterator[Run]:
    for i, query in enumerate(queries):
        chosen = list(dict.fromkeys(candidates.get(query, ())))
        if not chosen:
            yield {query: {}}
            continue
        rows, one = (some.astype(np.float64) for some in (vectors[[place[name] for name in chosen]], asked[i : i + 1]))
        product = rows @ one.T
        if hasattr(product, "toarray"):
            scores = settled(product.toarray().ravel())
        else:
            scores = settled(product.ravel(), lengths(rows) * lengths(one))
        yield {query: dict(zip(chosen, scores.tolist(), strict=True))}


def first_stage(model: AnyModel, dataset: Dataset, depth: int = PAPER_DEPTH, *, dtype: str = "auto") -> Candidates:
    """Candidates of a plain first-stage model: the ids of each query's best documents."""
    from .retrieval import index_corpus, search_blocks
    from .setting import ContextSetting

    if takes_context(model):
        raise InputError("the first stage of a truncated evaluation must be a model without context.")
    with (
        tempfile.TemporaryDirectory(prefix="first-stage-") as directory,
        index_corpus(model, ContextSetting("none", "own"), dataset.corpus, dtype, directory) as retriever,
    ):
        blocks = search_blocks(retriever, dataset.queries, depth)
        return {query: list(hits) for block in blocks for query, hits in block.items()}
