"""The passages of hits: which passage of a document answers a query best, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        cut = collection.spans_of(seqs)
        describe(collection, records, seqs, _best(collection, seqs, query, part, cut), cut)


def _best(collection: Local, seqs: np.ndarray, query: Any, part: int, cut: Mapping[int, Sequence[Span]]) -> np.ndarray:
    """Number of the best passage of each document; a document in one piece is its own."""
    numbers = collection.known.passages_of(np.sort(seqs)) if len(seqs) else seqs
    if len(numbers) == len(seqs):
        return seqs
    heads = _heads(cut)
    numbers = numbers[~np.isin(numbers, heads)]
    if collection.is_whole(part):
        index: Any = new_index(None, words=collection.word_model(part))
        index.sync(numbers, lambda _: iter([(numbers, _texts(collection, numbers, cut))]))
        found = index.search(query, len(numbers))[1][0]
    else:
        found = search_among(collection, part, query, numbers, len(numbers))[1][0]
    best: dict[int, int] = {}
    found = found[found >= 0]
    for number, owner in zip(found.tolist(), collection.known.owners(found).tolist(), strict=True):
        best.setdefault(owner, number)
    # The first passage stands for a document that another model found, or whose passages share no term with the query.
    first = np.where(np.isin(seqs, heads), seqs + 1, seqs)
    pairs = zip(seqs.tolist(), first.tolist(), strict=True)
    return np.array([best.get(seq, number) for seq, number in pairs], dtype=np.int64)


def search_among(
    collection: Local, part: int, query: Any, numbers: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and numbers of the k best among some passages, of those that have a vector or a word in common."""
    options: dict[str, Any] = {}
    if (layout := collection.layout_of(part)) is None:
        index: Any = collection.index(part)
        options["mask"] = np.isin(index.seqs, numbers)
    else:
        held = collection.vectors_of(numbers.tolist(), part)
        index = new_index(layout, "auto")
        index.sync(held[0], lambda _: iter([held]))
    found: tuple[np.ndarray, np.ndarray] = index.search(query, k, **options)
    return found


def _heads(cut: Mapping[int, Sequence[Span]]) -> list[int]:
    """Those of the documents whose first number is that of their head."""
    return [seq for seq, found in cut.items() if found[0].head]


def _texts(collection: Local, numbers: np.ndarray, cut: Mapping[int, Sequence[Span]]) -> list[str]:
    """Texts of passages."""
    owners = collection.known.owners(numbers).tolist()
    texts = collection.texts_of(owners)
    own = [cut[seq][number - seq] if seq in cut else None for seq, number in zip(owners, numbers, strict=True)]
    return [
        texts[seq] if one is None else texts[seq][one.start : one.stop] for seq, one in zip(owners, own, strict=True)
    ]


def without_heads(collection: Local, numbers: np.ndarray) -> np.ndarray:
    """Numbers of passages; -1 for heads, which are whole documents."""
    firsts = np.unique(numbers[collection.known.owners(numbers) == numbers])
    return np.where(np.isin(numbers, _heads(collection.spans_of(firsts))), -1, numbers)


def describe(
    collection: Local,
    records: Sequence[dict[str, Any]],
    seqs: np.ndarray,
    numbers: np.ndarray,
    cut: Mapping[int, Sequence[Span]],
) -> None:
    """Give each record its passage, by number: text, heading, and start and end in the last field of the text."""
    texts = collection.texts_of(seqs)
    rows = zip(records, seqs.tolist(), numbers.tolist(), collection.documents(seqs), strict=True)
    for record, seq, number, payload in rows:
        text, body = texts[seq], body_of(payload, collection.settings.on, collection.passages)
        span = cut[seq][number - seq] if seq in cut else Span(0, len(text))
        record["passage"] = shown_passage(text, span, body)


def unit_texts(store: Store, after_seq: int, part: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Numbers and texts of passages, for an index that is made from texts."""
    for seqs, texts in store.pending(after_seq=after_seq, part=part):
        cut = store.spans_of(seqs)
        documents = [(text, cut.get(seq, ()), "") for seq, text in zip(seqs.tolist(), texts, strict=True)]
        counts = np.array([max(1, len(found)) for _, found, _ in documents])
        yield spans(seqs, counts), Units.of(documents).texts
