"""Why a document answers a query: its similarity in shares that add up to it.

    dense     similarity = meaning + a share for each term of the query + title + mean of the document
    sparse    similarity = sum over the terms in common of (weight in the query * weight in the document)
    words     the same, with BM25's weights
    several   similarity = sum over the models of (weight * what its rank or score adds)

A stored passage is  scale * (passage + lead * title + mean * mean of the document),  and a query's vector is  meaning +
its terms.  Passage and title are encoded again. The mean is not: its length is known, which leaves one scale at which
the stored vector holds a mean that points its way.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..index.scores import shown
from ..models.document_context import Units, as_long, beginning, prefixed, tokenizer_of
from ..vectors import DENSE, SPARSE_EMBED, as_vectors, weights_of
from .fusion import Fusion, candidates
from .local import LocalCollection
from .part import Part
from .shown_passages import search_among

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
COLUMNS = ["source", "term", "query", "document", "share"]
OF_SEVERAL = ["source", "rank", "similarity", "share"]


def explain(collection: LocalCollection, part: Part, query: str, vector: Any, document_id: Hashable) -> pd.DataFrame:
    """The shares of one model; `vector` is that of the query."""
    import pandas as pd

    seq = _number_of(collection, document_id)
    index = collection.index(part.number)
    numbers = np.array([seq])
    if not collection.is_whole(part.number):
        numbers = collection.known.passages_of(numbers)
    layout = collection.layout_of(part.number)
    vector = vector if layout is None else as_vectors(vector, "query")
    number, similarity = _best(search_among(collection, part.number, vector, numbers, 1))
    rows: list[Row] = []
    if layout is None:
        rows = _words(index, vector[0], number)
    elif number >= 0:
        stored: Any = collection.vectors_of([number], part.number)[1]
        if layout.kind == DENSE:
            rows = _Dense(collection, part, query, vector[0]).rows(stored[0], seq, number, similarity)
        else:
            rows = _terms(part.encoder, vector, stored)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    spans = None if collection.is_whole(part.number) else collection.spans_of([seq]).get(seq)
    found_by = "document" if spans is None or number < 0 else "beginning" if spans[number - seq].head else "passage"
    frame.attrs = {"id": document_id, "similarity": similarity, "found_by": found_by}
    return frame


def _best(answer: tuple[np.ndarray, np.ndarray]) -> tuple[int, float]:
    """Number and similarity of the best passage; -1 and 0 where none shares a term with the query."""
    scores, numbers = answer
    found = numbers.size > 0 and numbers[0, 0] >= 0
    return (int(numbers[0, 0]), float(shown(scores[0, :1])[0])) if found else (-1, 0.0)


def explain_fused(
    collection: LocalCollection, names: list[str], vectors: list[Any], document_id: Hashable, filter: Any
) -> pd.DataFrame:
    """What each of several models adds: its rank of the document, its similarity, and the share."""
    import pandas as pd

    seq, fusion = _number_of(collection, document_id), collection.fusion or Fusion()
    rankings = collection.rankings(vectors, fusion, fusion.depth, filter)
    ((every, added, _),) = candidates(rankings, fusion)
    place = np.flatnonzero(every == seq)
    shares = added[place[0]] * fusion.vector(len(names)) if len(place) else np.zeros(len(names))
    rows: list[Row] = []
    for name, ranking, share in zip(names, rankings, shares.tolist(), strict=True):
        at = np.flatnonzero(ranking.rows[0] == seq)
        known = {"rank": int(at[0]) + 1, "similarity": float(shown(ranking.scores[0, at])[0])} if len(at) else {}
        rows.append({"source": name, "rank": None, "similarity": None, **known, "share": share})
    frame = pd.DataFrame(rows, columns=OF_SEVERAL)
    frame["rank"] = frame["rank"].astype("Int64")
    frame.attrs = {"id": document_id, "similarity": float(shown(np.array([shares.sum()]))[0])}
    return frame


def _number_of(collection: LocalCollection, document_id: Hashable) -> int:
    seq = int(collection.seqs_of([document_id])[0])
    if seq < 0:
        raise InputError(f"id {document_id!r} is not in this index.")
    return seq


def _row(source: str, share: float, term: str | None = None, query: Any = None, document: Any = None) -> Row:
    return {"source": source, "term": term, "query": query, "document": document, "share": float(share)}


def _words(index: Any, words: list[str], number: int) -> list[Row]:
    """BM25: how often the query has each word, and what it weighs in the document."""
    rows: list[Row] = []
    if number < 0:
        return rows
    weights, place = index.weights(), int(np.searchsorted(index.seqs, number))
    for word in dict.fromkeys(words):
        if word in weights.vocab_dict and (weight := float(weights.get_scores([word])[place])):
            rows.append(_row("term", words.count(word) * weight, word, float(words.count(word)), weight))
    return _sorted(rows)


def _terms(encoder: Any, query: Any, stored: Any) -> list[Row]:
    """Sparse vectors: the terms in common, their weights, and the products of these or of their embeddings."""
    wanted, given = weights_of(query), weights_of(stored)
    common, left, right = np.intersect1d(wanted.indices, given.indices, return_indices=True)
    products = wanted.data[left].astype(np.float64) * given.data[right]
    if encoder.kind == SPARSE_EMBED:
        products = (query.embeddings[left].astype(np.float64) * stored.embeddings[right]).sum(axis=1)
    names = _names(encoder, common)
    columns = zip(products, names, wanted.data[left].tolist(), given.data[right].tolist(), strict=True)
    return _sorted([_row("term", *values) for values in columns])


def _names(encoder: Any, terms: np.ndarray) -> list[str]:
    tokenizer = tokenizer_of(encoder)
    return [str(term) for term in terms] if tokenizer is None else tokenizer.convert_ids_to_tokens(terms.tolist())


def _sorted(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row["share"])


class _Dense:
    """One query and one dense model, whose query terms have dimensions of their own where it knows rare terms."""

    def __init__(self, collection: LocalCollection, part: Part, query: str, vector: np.ndarray) -> None:
        self._collection, self._part, self._vector = collection, part, vector.astype(np.float64)
        found = getattr(part.encoder, "query_terms", None)
        self._names, self._terms = found(query, vector) if found else ([], np.zeros((0, len(vector))))
        self._meaning = self._vector - self._terms.sum(axis=0)

    def rows(self, stored: np.ndarray, seq: int, number: int, similarity: float) -> list[Row]:
        """Shares of a stored passage; the last takes what rounding leaves."""
        collection, stored = self._collection, stored.astype(np.float64)
        found = collection.spans_of([seq]).get(seq)
        context = self._part.document
        inside = found is not None and not found[number - seq].head and context.trained is None
        if found is None or not inside or not (context.lead or context.mean):  # what is trained cannot be taken apart
            return self._closed(self._own(stored), similarity)
        text = collection.texts_of([seq])[seq]
        title = collection.titles_of({seq: text})[seq]
        units = Units.of([(text, [found[number - seq]], title)])
        encoder = self._part.encoder
        texts = [*prefixed(units, context.prefix, encoder), beginning(units.leads[0], context.lead_size, encoder)]
        passage, lead = encoder.encode_document(texts).astype(np.float64)
        lead = context.lead * as_long(passage[None], lead[None])[0]
        scale = _scale(stored, passage + lead, context.mean * float(np.linalg.norm(passage)))
        rows = self._own(passage * scale)
        if context.lead:
            rows.append(_row("title" if title else "beginning", self._vector @ lead * scale))
        if context.mean:
            rows.append(_row("mean", 0.0))
        return self._closed(rows, similarity)

    def _own(self, vector: np.ndarray) -> list[Row]:
        """What meaning and each term of the query find in a vector."""
        terms = [_row("term", share, name) for share, name in zip(self._terms @ vector, self._names, strict=True)]
        return [_row("meaning", self._meaning @ vector), *_sorted(terms)]

    @staticmethod
    def _closed(rows: list[Row], similarity: float) -> list[Row]:
        last = rows[-1] if rows[-1]["source"] != "term" else rows[0]
        last["share"] += similarity - sum(row["share"] for row in rows)
        return rows


def _scale(stored: np.ndarray, known: np.ndarray, mean: float) -> float:
    """The scale at which a stored vector is what is known of it and a mean of this length.

    |stored / scale - known| = mean  has two answers; in the greater one the mean points the way of the stored vector,
    as means do whose passage is one of theirs.
    """
    square, product = float(stored @ stored), float(stored @ known)
    inside = max(0.0, product**2 - square * (float(known @ known) - mean**2))
    below = product + float(np.sqrt(inside))
    return square / below if below > 0 else 0.0


def explained(
    collection: Any, parts: Mapping[str, Part], query: str, vectors: list[Any], document_id: Hashable, filter: Any
) -> pd.DataFrame:
    """The shares of one model, or of several that are fused."""
    if len(parts) == 1:
        return explain(collection, next(iter(parts.values())), query, vectors[0], document_id)
    return explain_fused(collection, list(parts), vectors, document_id, filter)
