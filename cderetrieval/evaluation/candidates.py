"""Rerank each query's candidates: the truncated BEIR of section 10.9 of the CDE paper, and mteb's reranking tasks.

Truncated BEIR keeps the best 1,024 documents of a first-stage model for each query, and the evaluated model ranks only
those. Every model scores higher than in full retrieval, so the two must not be compared. The context still comes from
the whole corpus, because the candidates were chosen by queries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import numpy as np

from ..context.context import Context
from ..corpora.dataset import Dataset
from ..errors import InputError
from ..index.scores import lengths, settled
from ..retrieval.embedder import Model
from ..retrieval.names import AnyModel, takes_context
from ..types import Encoder
from ..vectors import join
from .metrics import Run
from .search import NO_VECTORS, encode_side, encoder_in, index_corpus, model_kind, search_blocks, texts_of
from .variants import NO_CONTEXT, ContextVariant

# Query id to the ids of its candidates.
Candidates = Mapping[str, Sequence[str]]
# Texts, and whether they are queries, to vectors.
Encode = Callable[[Encoder, Sequence[str], bool], Any]
Rows = Iterable[Mapping[str, str]]

PAPER_DEPTH = 1_024
# Rows that are encoded together, as by a retriever.
_CHUNK = 10_000


def rerank(
    model: AnyModel,
    variant: ContextVariant,
    corpus: Rows,
    queries: Mapping[str, str],
    candidates: Candidates,
    dtype: str = "auto",
    encode: Encode = encode_side,
) -> tuple[Iterator[Run], Context | None]:
    """Score the candidates of each query, one query at a time; also the context.

    `corpus` is read twice, for the context and for the candidates. A query without candidates has no hits.
    """
    wanted = {document for query in queries for document in candidates.get(query, ())}
    if model_kind(model) in NO_VECTORS or variant.passages is not None:
        retriever = index_corpus(model, variant, corpus, dtype)
        _check_present(wanted, retriever)
        return _by_search(retriever, queries, candidates), retriever.context
    encoder, context = encoder_in(cast(Model, model), variant, texts_of(corpus), dtype)
    rows, vectors = _encode_wanted(corpus, wanted, lambda texts: encode(encoder, texts, False))
    _check_present(wanted, rows)
    asked = encode(encoder, list(queries.values()), True)
    return _by_product(asked, vectors, queries, candidates, rows), context


def _check_present(wanted: set[str], present: Container[str]) -> None:
    missing = sorted(document for document in wanted if document not in present)
    if missing:
        raise InputError(f"{len(missing)} candidates are not in the corpus, the first is {missing[0]!r}.")


def _by_search(retriever: Any, queries: Mapping[str, str], candidates: Candidates) -> Iterator[Run]:
    """Scores from a search of the whole corpus; candidates that it does not find come last."""
    with retriever:
        for query, text in queries.items():  # one by one: each ranks the whole corpus
            chosen = list(dict.fromkeys(candidates.get(query, ())))
            hits = next(search_blocks(retriever, {query: text}, len(retriever)))[query] if chosen else {}
            lowest = min(hits.values(), default=0.0)
            not_found = lowest - max(1.0, abs(lowest))
            yield {query: {document: hits.get(document, not_found) for document in chosen}}


def _encode_wanted(
    corpus: Rows, wanted: set[str], encode: Callable[[Sequence[str]], Any]
) -> tuple[dict[str, int], Any]:
    """Row of each wanted document, and their vectors; texts are read in chunks."""
    rows: dict[str, int] = {}
    chunks: list[Any] = []
    stream = (pair for pair in texts_of(corpus) if pair[0] in wanted)
    while chunk := list(islice(stream, _CHUNK)):
        rows.update({document: len(rows) + i for i, (document, _) in enumerate(chunk)})
        chunks.append(encode([text for _, text in chunk]))
    return rows, join(chunks) if chunks else None


def _by_product(
    asked: Any, vectors: Any, queries: Iterable[str], candidates: Candidates, rows: Mapping[str, int]
) -> Iterator[Run]:
    for i, query in enumerate(queries):
        chosen = list(dict.fromkeys(candidates.get(query, ())))
        if not chosen:
            yield {query: {}}
            continue
        documents = vectors[[rows[name] for name in chosen]].astype(np.float64)
        one = asked[i : i + 1].astype(np.float64)
        product = documents @ one.T
        if hasattr(product, "toarray"):
            scores = settled(product.toarray().ravel())
        else:
            scores = settled(product.ravel(), lengths(documents) * lengths(one))
        yield {query: dict(zip(chosen, scores.tolist(), strict=True))}


@dataclass
class CandidateStage:
    """Chooses the candidates of a truncated evaluation, once for each dataset."""

    model_name: str
    model: AnyModel
    depth: int = PAPER_DEPTH
    _found: dict[tuple[str, str, str], Candidates] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Model and depth, as results show it."""
        return f"{self.model_name}@{self.depth}"

    def candidates(self, dataset: Dataset, dtype: str = "auto") -> Candidates:
        """Ids of the best documents of each query."""
        if takes_context(self.model):
            raise InputError("the first stage of a truncated evaluation must be a model without context.")
        key = (dataset.name, dataset.split, dataset.revision)
        if key not in self._found:
            with (
                tempfile.TemporaryDirectory(prefix="first-stage-") as directory,
                index_corpus(self.model, ContextVariant(NO_CONTEXT), dataset.corpus, dtype, directory) as retriever,
            ):
                blocks = search_blocks(retriever, dataset.queries, self.depth)
                self._found[key] = {query: list(hits) for block in blocks for query, hits in block.items()}
        return self._found[key]
