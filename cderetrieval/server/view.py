"""Answers from a server, as an index on this machine gives them.

Similarities are rounded to six decimals, and equal ones stand in order of insertion. A server ranks by float32 scores
and breaks ties as it likes, so a few more rows than wanted are asked for; where some tie, their numbers are fetched and
decide, and where a tie may go on behind the last row, that query asks again for more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby, pairwise
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from ..filters import parse_filter
from ..index.milvus.collection import MAX_LIMIT, Collection
from ..index.milvus.rows import decode_payload, expression, ids_of
from ..index.milvus.schema import check_sparse, choose_index
from ..types import Encoder
from ..vectors import SPARSE, checked, take
from .store import Current, ServerStore

T = TypeVar("T")

EXTRA = 4
WIDER = 8
DECIMALS = 6
EMPTY = "the index is empty: add documents first."

Hit = tuple[str, float, Any]


class ServerView:
    """Searches the collection of a :class:`~.store.ServerStore`.

    Parameters
    ----------
    store
        The store.
    """

    def __init__(self, store: ServerStore) -> None:
        self._store = store

    def check(self, encoder: Encoder) -> None:
        """Refuse an encoder whose vectors Milvus cannot hold, before documents are embedded for it."""
        location = self._store.location
        choose_index(location.index, encoder.kind, lite=location.lite)
        if encoder.kind == SPARSE and not location.lite:
            check_sparse(self._store.version())

    def check_filled(self) -> None:
        """Refuse to search where there is no collection yet; one without documents shows in its answers."""
        if self._store.current is None:
            raise InputError(EMPTY)

    def reading(self, call: Callable[[], T]) -> T:
        """What `call` returns; called again where the collection was replaced meanwhile."""
        return self._store.reading(call)

    def answer(
        self, vectors: Any, k: int, *, documents: bool = False, filter: Mapping[str, Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        """Nearest documents of each query vector; as :meth:`cderetrieval.view.IndexView.answer`."""
        current = self._store.current
        if current is None:
            raise InputError(EMPTY)
        layout = current.identity.layout
        queries: Any = checked(vectors, layout, "query")
        wanted = "" if filter is None else expression(parse_filter(filter))
        asked = np.arange(queries.shape[0])
        if layout.kind == SPARSE:
            asked = np.flatnonzero(np.diff(queries.indptr))
        search = Search(current, min(k, self._most(k, current.collection)), wanted, documents)
        found = search.run(take(queries, asked)) if len(asked) else []
        if not any(found) and current.collection.count() == 0:
            raise InputError(EMPTY)
        answers: list[list[dict[str, Any]]] = [[] for _ in range(queries.shape[0])]
        for row, ranking in zip(asked.tolist(), _records(found, documents), strict=True):
            answers[row] = ranking
        return answers

    def _most(self, k: int, collection: Collection) -> int:
        """How many answers a server can give; more are fine where there are not as many documents."""
        if k <= MAX_LIMIT:
            return k
        count = collection.count()
        if count > MAX_LIMIT:
            raise InputError(f"k={k}: Milvus gives at most {MAX_LIMIT:,} answers to a query. Ask for fewer.")
        return max(1, count)


class Search:
    """One search of one collection.

    Parameters
    ----------
    current
        The collection.
    k
        Answers for each query.
    wanted
        A filter as Milvus reads it.
    documents
        Whether payloads are wanted.
    """

    def __init__(self, current: Current, k: int, wanted: str, documents: bool) -> None:
        self._collection = current.collection
        self._width = current.measured["parameters"]
        self._positive = current.identity.kind == SPARSE
        self._k = k
        self._filter = wanted
        self._fields = ["payload"] if documents else []

    def run(self, queries: Any) -> list[list[Hit]]:
        """The k best of each query: key, similarity, payload (None where it is not wanted)."""
        limit = min(self._k + EXTRA, MAX_LIMIT)
        found = self._ask(queries, limit)
        tied = [row for row, hits in enumerate(found) if _ties(hits, self._k)]
        for row in tied:
            found[row] = self._untied(take(queries, [row]), found[row], limit)
        return [hits[: self._k] for hits in found]

    def _ask(self, queries: Any, limit: int) -> list[list[Hit]]:
        rankings = self._collection.search(queries, limit, fields=self._fields, filter=self._filter, width=self._width)
        scores = np.fromiter(chain.from_iterable(hits.distances for hits in rankings), dtype=np.float64)
        # Rounded in float64, as an index on this machine does.
        similarities = np.round(scores, DECIMALS).tolist()
        ends = np.cumsum([0, *(len(hits.ids) for hits in rankings)]).tolist()
        return [
            self._hits(hits, similarities[start:end])
            for hits, (start, end) in zip(rankings, pairwise(ends), strict=True)
        ]

    def _hits(self, hits: Any, similarities: list[float]) -> list[Hit]:
        payloads = [hit["entity"]["payload"] for hit in hits] if self._fields else [None] * len(similarities)
        found = list(zip(hits.ids, similarities, payloads, strict=True))
        # Documents that share no term with a query are no answers to it.
        return [hit for hit in found if hit[1] > 0] if self._positive else found

    def _untied(self, query: Any, hits: list[Hit], limit: int) -> list[Hit]:
        """The hits of one query, equal ones in order of insertion."""
        while len(hits) == limit < MAX_LIMIT and hits[-1][1] == hits[self._k - 1][1]:
            limit = min(limit * WIDER, MAX_LIMIT)
            (hits,) = self._ask(query, limit)
        groups = [list(group) for _, group in groupby(hits, key=lambda hit: hit[1])]
        keys = [hit[0] for group in groups if len(group) > 1 for hit in group]
        numbers = self._collection.fetch(keys, ["seq"])
        last = np.iinfo(np.int64).max  # of a row that was removed a moment ago

        def number(hit: Hit) -> int:
            return int(numbers[hit[0]]["seq"]) if hit[0] in numbers else int(last)

        return [hit for group in groups for hit in (sorted(group, key=number) if len(group) > 1 else group)]


def _ties(hits: Sequence[Hit], k: int) -> bool:
    """Whether equal similarities stand among the first k, or across their end."""
    return any(one[1] == other[1] for one, other in pairwise(hits[: k + 1]))


def _records(found: Sequence[Sequence[Hit]], documents: bool) -> list[list[dict[str, Any]]]:
    """Hits as a retriever gives them."""
    ids = iter(ids_of([hit[0] for hits in found for hit in hits]))
    if documents:
        return [
            [{"id": next(ids), "similarity": hit[1], "document": decode_payload(hit[2])[0]} for hit in hits]
            for hits in found
        ]
    return [[{"id": next(ids), "similarity": hit[1]} for hit in hits] for hits in found]
