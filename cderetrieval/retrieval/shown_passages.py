"""The passages of hits: which passage of a document answers a query best, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..index.engine import new_index
from ..models.document_context import Units
from ..passages import body_of, shown_passage
from ..splitting import Span
from ..store import Store
from ..vectors import as_vectors, spans, take

# The local collection, which imports this module.
Local = Any


def add_passages(
    collection: Local,
    hits: Sequence[list[dict[str, Any]]],
    documents: Sequence[np.ndarray] | np.ndarray,
    queries: Any,
    part: int,
) -> None:
    """Give each hit its best passage by one model; `documents` are the numbers of the hits, query by query."""
    given = queries if isinstance(queries, list) else as_vectors(queries, "query")
    for row, (records, found) in enumerate(zip(hits, documents, strict=True)):
        seqs = found[: len(records)]
        query = given[row : row + 1] if isinstance(given, list) else take(given, [row])
        describe(collection, records, seqs, _best(collection, seqs, query, part))


def _best(collection: Local, seqs: np.ndarray, query: Any, part: int) -> np.ndarray:
    """Number of the best passage of each document; a document in one piece is its own."""
    cut, counts = collection.cut()
    mine = np.flatnonzero(np.isin(cut, seqs))
    if not len(mine):
        return seqs
    cut, counts = cut[mine], counts[mine]
    found_spans = collection.spans_of(cut)
    heads = np.array([int(found_spans[seq][0].head) for seq in cut.tolist()])
    numbers = spans(cut + heads, counts - heads)
    layout = collection.layout_of(part)
    if layout is None:
        index: Any = collection.index(part)
        found = index.search(query, len(numbers), mask=np.isin(index.seqs, numbers))[1][0]
    else:
        held = collection.vectors_of(numbers.tolist(), part)
        index = new_index(layout, "auto")
        index.sync(held[0], lambda _: iter([held]))
        found = index.search(query, len(numbers))[1][0]
    best: dict[int, int] = {}
    found = found[found >= 0]
    for number, owner in zip(found.tolist(), collection.known.owners(found).tolist(), strict=True):
        best.setdefault(owner, number)
    # The first passage stands for a document that another model found, or whose passages share no term with the query.
    first = dict(zip(cut.tolist(), (cut + heads).tolist(), strict=True))
    return np.array([best.get(seq, first.get(seq, seq)) for seq in seqs.tolist()], dtype=np.int64)


def without_heads(collection: Local, numbers: np.ndarray) -> np.ndarray:
    """Numbers of passages; -1 for heads, which are whole documents."""
    firsts = np.unique(numbers[np.isin(numbers, collection.cut()[0])])
    heads = [seq for seq, found in collection.spans_of(firsts).items() if found[0].head]
    return np.where(np.isin(numbers, heads), -1, numbers)


def describe(collection: Local, records: Sequence[dict[str, Any]], seqs: np.ndarray, numbers: np.ndarray) -> None:
    """Give each record its passage, by number: text, heading, and start and end in the last field of the text."""
    texts, spans_of = collection.texts_of(seqs), collection.spans_of(seqs)
    rows = zip(records, seqs.tolist(), numbers.tolist(), collection.documents(seqs), strict=True)
    for record, seq, number, payload in rows:
        text, body = texts[seq], body_of(payload, collection.settings.on, collection.passages)
        span = spans_of[seq][number - seq] if seq in spans_of else Span(0, len(text))
        record["passage"] = shown_passage(text, span, body)


def unit_texts(store: Store, after_seq: int, part: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Numbers and texts of passages, for an index that is made from texts."""
    for seqs, texts in store.pending(after_seq=after_seq, part=part):
        cut = store.spans_of(seqs)
        documents = [(text, cut.get(seq, ()), "") for seq, text in zip(seqs.tolist(), texts, strict=True)]
        counts = np.array([max(1, len(found)) for _, found, _ in documents])
        yield spans(seqs, counts), Units.of(documents).texts
