"""From what Milvus finds to the hits that a retriever gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise, repeat
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..index.scores import probes_of, settled, shown
from ..passages import Passages, body_of, shown_passage
from ..retrieval.collection import Want
from ..retrieval.grouping import FIRST, MORE
from ..splitting import Span
from ..vectors import SPARSE, take
from .change import stored
from .expressions import Expression, all_of, compare, one_of
from .fields import Identity
from .remote import MAX_LIMIT, RemoteCollection
from .rows import decode_row, ids_of, owner_of, passage_key

# Rows of passages and of documents in one piece, not of heads.
PASSAGES = compare("passages", "<=", 0)


@dataclass(frozen=True)
class Current:
    """The collection that stands behind the alias."""

    collection: RemoteCollection
    identity: Identity
    measured: Mapping[str, Any]


class Hit(NamedTuple):
    """A row that was found."""

    key: str
    similarity: float
    payload: str | None


def most_answers(k: int, collection: RemoteCollection) -> int:
    """How many answers a server can give; more are fine where there are not as many documents."""
    if k <= MAX_LIMIT:
        return k
    count = collection.count()
    if count > MAX_LIMIT:
        raise InputError(f"k={k}: Milvus gives at most {MAX_LIMIT:,} answers to a query. Ask for fewer.")
    return max(1, count)


def answers_of(current: Current, queries: Any, k: int, wanted: Expression, want: Want) -> list[list[dict[str, Any]]]:
    """The k best of each query, as a retriever gives them."""
    fields = ["payload"] if want.documents or want.passages or want.by == "passage" else []
    if not current.collection.cut:
        hits = _nearest(current, queries, k, wanted, fields)
    elif want.by == "passage":
        hits = _nearest(current, queries, k, all_of([wanted, PASSAGES] if wanted else [PASSAGES]), [])
    else:
        hits = _best_of_each(current, queries, k, wanted)
    payloads: dict[str, str] = {}
    if fields and current.collection.cut:  # the row of a passage has no payload, that of its document has
        keys = list(dict.fromkeys(owner_of(hit.key)[0] for some in hits for hit in some))
        payloads = {key: row["payload"] for key, row in current.collection.fetch(keys, fields).items()}
        # Without documents that were removed since they were found.
        hits = [[hit for hit in some if owner_of(hit.key)[0] in payloads] for some in hits]
    owners = [owner_of(hit.key) for some in hits for hit in some]
    if want.passages and want.by == "document" and current.collection.cut:
        owners = list(chain.from_iterable(_shown(current, queries, hits, payloads)))
    ids, found = ids_of([owner for owner, _ in owners]), list(chain.from_iterable(hits))
    records: list[dict[str, Any]] = [{"id": i, "similarity": hit.similarity} for i, hit in zip(ids, found, strict=True)]
    for record, (key, number), hit in zip(records, owners, found, strict=True) if fields else ():
        _describe(record, payloads.get(key, hit.payload or ""), number, current.identity, want)
    ends = accumulate(map(len, hits), initial=0)
    return [records[start:end] for start, end in pairwise(ends)]


def _describe(record: dict[str, Any], payload: str, number: int, identity: Identity, want: Want) -> None:
    """Give a record its document, and a passage of it."""
    on, passages = identity.settings["on"], Passages.stored(identity.passages)
    text, document = stored(payload, on)
    if want.documents:
        record["document"] = document
    if want.passages or want.by == "passage":
        spans = decode_row(payload)[2]
        span = spans[number] if number < len(spans) else Span(0, len(text))
        record["passage"] = shown_passage(text, span, body_of(document, on, passages))


def _shown(
    current: Current, queries: Any, hits: list[list[Hit]], payloads: dict[str, str]
) -> Iterator[list[tuple[str, int]]]:
    """Documents of hits, each with the number of its best passage, also where it was found by its head."""
    for row, some in enumerate(hits):
        owners = dict(owner_of(hit.key) for hit in some)
        spans = {key: decode_row(payloads[key])[2] for key, number in owners.items() if number == 0}
        heads = {key: len(own) for key, own in spans.items() if own and own[0].head}
        if heads:
            owners |= dict.fromkeys(heads, 1)  # of sparse vectors, no passage may share a term with the query
            keys = [passage_key(key, number) for key, count in heads.items() for number in range(1, count)]
            most = min(len(keys), MAX_LIMIT)
            found = _nearest(current, take(queries, [row]), most, one_of("id", keys), [])[0]
            owners |= dict(owner_of(hit.key) for hit in reversed(found))
        yield list(owners.items())


def _best_of_each(current: Current, queries: Any, k: int, wanted: Expression) -> list[list[Hit]]:
    """The best passage of each of the k best documents of each query; more are asked for until there are as many."""
    answers: list[list[Hit]] = [[] for _ in range(queries.shape[0])]
    collection = current.collection
    rows, most = list(range(len(answers))), min(FIRST * k + 2 if collection.repeats else k, MAX_LIMIT)
    while rows:
        short = []
        for row, hits in zip(rows, _nearest(current, take(queries, rows), most, wanted, []), strict=True):
            best: dict[str, Hit] = {}
            for hit in hits:
                best.setdefault(owner_of(hit.key)[0], hit)
            answers[row] = list(best.values())[:k]
            collection.repeats |= len(best) < len(hits)
            if len(best) < k and len(hits) == most < MAX_LIMIT:
                short.append(row)
        rows, most = short, min(MORE * most, MAX_LIMIT)
    return answers


def _nearest(current: Current, queries: Any, k: int, wanted: Expression, fields: list[str]) -> list[list[Hit]]:
    """The k best rows of each query; all at once, 10,000 in 4 ms."""
    sparse = current.identity.kind == SPARSE
    probes, powers = (queries, None) if sparse else probes_of(queries)
    width = current.measured["parameters"]
    hits = current.collection.search(probes, k, fields=fields, filter=wanted, width=width)
    counts = np.array([len(some.ids) for some in hits], dtype=np.int64)
    scores = np.fromiter(chain.from_iterable(some.distances for some in hits), dtype=np.float64)
    if powers is None:
        similarities = settled(scores)
    else:
        scores = np.ldexp(scores, np.repeat(powers, counts))
        best = scores[(np.cumsum(counts) - counts)[counts > 0]]
        similarities = settled(scores, np.repeat(_above(best), counts[counts > 0]))
    keys = (key for some in hits for key in some.ids)
    payloads = (hit["entity"]["payload"] for some in hits for hit in some) if fields else repeat(None, len(scores))
    found = list(map(Hit, keys, shown(similarities).tolist(), payloads))
    answers = [found[start:end] for start, end in pairwise(accumulate(counts.tolist(), initial=0))]
    if sparse:  # documents that share no term with a query are no answers to it
        answers = [[hit for hit in answer if hit.similarity > 0] for answer in answers]
    for answer in answers:
        answer.sort(key=itemgetter(1), reverse=True)
    return answers


def _above(scores: np.ndarray) -> np.ndarray:
    """The power of ten above the size of each score; 0 of zero."""
    powers = np.ceil(np.log10(np.abs(scores), out=np.zeros(len(scores)), where=scores != 0))
    return np.where(scores == 0, 0.0, 10.0**powers)
