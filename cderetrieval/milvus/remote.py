"""One collection of documents: made, filled, indexed, searched, walked through.

The order is create, fill, flush, build the index, load: an index that is asked for before there are rows is built by
Milvus Lite in a way that search then does not use (2 queries a second at 100,000 vectors). Rows that come later are
indexed by the server as it seals its segments, and searched exactly until then; nothing is flushed for them, because
Milvus acknowledges a row once it stands in its log.

Consistency: "Bounded" by default, which sees everything that is older than a few seconds; "Session" for a while after a
write of this process, which sees that write; "Strong" where everything counts (it costs 0.2 to 0.3 s a call): settings,
walks through a collection, and the first read after a removal, of which Milvus 2.3.5 does not say when it was (a
"Session" read right after one saw the removed rows in 12 of 12 tries).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np

from ..errors import StoreError
from ..vectors import SPARSE, Layout
from .connection import Connection, NotLoadedError
from .expressions import EVERYTHING, Expression, compare, is_plain, one_of
from .fields import METRIC, VECTOR, collection_schema, index_parameters
from .rows import passage_key

STRONG, BOUNDED = "Strong", "Bounded"
# How long this process asks for its own writes; "Bounded" may lag by 5 seconds.
LATELY = 30.0
MAX_LIMIT = 16_384
KEYS = 1_000
# Hits in one answer: each can be a payload of 64 KiB, or a short key.
HITS, HITS_WITH_PAYLOAD = 160_000, 4_096
# Rows of a walk in one answer: with payloads of 64 KiB they are within the 100 MB that a server sends.
SCAN = 1_000

Row = dict[str, Any]


class RemoteCollection:
    """A collection behind an alias."""

    def __init__(self, connection: Connection, name: str, layout: Layout, cut: bool) -> None:
        self.connection = connection
        self.name = name
        self.layout = layout
        # Whether documents may have several rows, one for each passage, and which row stands for a document.
        self.cut, self.documents = cut, compare("passages", "!=", 0) if cut else EVERYTHING
        # Whether a document is known to have several rows: searches then ask for more at once.
        self.repeats = False
        self._written = -np.inf
        self._removed = False

    def create(self) -> None:
        """Make it, empty."""
        # pymilvus's iterators take the level of the collection; every other call says its own.
        schema = collection_schema(self.layout, self.cut)
        self.connection.call("create_collection", self.name, schema=schema, consistency_level="Strong")

    def upsert(self, rows: Sequence[Row]) -> None:
        """Write rows; those whose ids are there replace them. Repeating a call changes nothing."""
        self.connection.call("upsert", self.name, list(rows))
        self._written = time.monotonic()

    def shorten(self, counts: Mapping[str, int], *, consistency: str = STRONG) -> int:
        """Remove the passages of documents from a number on; returns how many of the documents are there."""
        keys, there = list(counts), 0
        for start in range(0, len(keys), KEYS):
            fields = ["passages"] if self.cut else []
            found = self.fetch(keys[start : start + KEYS], fields, consistency=consistency)
            held = {key: abs(int(row["passages"])) for key, row in found.items() if self.cut}
            if any(count > 1 for count in chain(counts.values(), held.values())):
                self.repeats = True
            self._delete(
                [passage_key(key, n) for key, count in held.items() for n in range(max(1, counts[key]), count)]
            )
            there += len(found)
        return there

    def delete(self, keys: Sequence[str]) -> None:
        """Remove documents; harmless where one is not there."""
        if self.cut:
            self.shorten(dict.fromkeys(keys, 1))
        self._delete(keys)

    def _delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), KEYS):
            self.connection.call("delete", self.name, filter=one_of("id", keys[start : start + KEYS]))
            self._removed = True
            self._written = time.monotonic()

    def build(self, index: str, rows: int) -> None:
        """Flush, build the index, load."""
        self.connection.flush(self.name)
        self.connection.build_index(self.name, index_parameters(index, rows))
        self.connection.load(self.name)

    def drop(self) -> None:
        """Remove it with all its rows."""
        self.connection.call("drop_collection", self.name)

    def count(self, *, consistency: str = "") -> int:
        """Number of documents."""
        found = self._query(self.documents, ["count(*)"], consistency=consistency)
        return int(found[0]["count(*)"])

    def fetch(self, keys: Sequence[str], fields: Sequence[str], *, consistency: str = "") -> dict[str, Row]:
        """Rows by key, those that are there."""
        found: dict[str, Row] = {}
        size = KEYS if "payload" not in fields else HITS_WITH_PAYLOAD // 4
        for start in range(0, len(keys), size):
            rows = self._query(one_of("id", keys[start : start + size]), ["id", *fields], consistency=consistency)
            found.update((row["id"], row) for row in rows)
        return found

    def scan(self, fields: Sequence[str]) -> Iterator[list[Row]]:
        """The rows of all documents, in order of key, some at a time, as they are when the walk begins."""
        wanted = {"filter": self.documents} if self.cut else {}
        iterator = self._reading("query_iterator", self.name, batch_size=SCAN, output_fields=["id", *fields], **wanted)
        try:
            while rows := self.connection.guarded("query", iterator.next):
                if foreign := [row["id"] for row in rows if not is_plain(row["id"])]:
                    raise StoreError(f"the collection holds ids that this package did not write ({foreign[0]!r}).")
                yield list(rows)
        finally:
            iterator.close()

    def search(
        self,
        queries: Any,
        limit: int,
        *,
        fields: Sequence[str] = (),
        filter: Expression = EVERYTHING,
        width: Mapping[str, int],
    ) -> list[Any]:
        """Nearest rows of each query."""
        size = max(1, (HITS_WITH_PAYLOAD if "payload" in fields else HITS) // limit)
        found: list[Any] = []
        for start in range(0, queries.shape[0], size):
            found += self._reading(
                "search",
                self.name,
                _as_sent(queries[start : start + size], self.layout),
                limit=limit,
                filter=filter,
                # Milvus Lite answers with every field where none is named; the key costs nothing.
                output_fields=["id", *fields],
                anns_field=VECTOR,
                search_params=self.search_parameters(limit, width),
                consistency_level=self._consistency(),
            )
        return found

    def search_parameters(self, limit: int, width: Mapping[str, int]) -> dict[str, Any]:
        """What a search sends beside the queries; HNSW refuses to keep fewer candidates than are asked for."""
        enough = {name: max(value, limit) if name == "ef" else value for name, value in width.items()}
        return {"metric_type": METRIC, "params": enough}

    def nearest(self, queries: Any, limit: int, width: Mapping[str, int]) -> list[list[str]]:
        """Keys of the nearest rows of each query."""
        return [list(hits.ids) for hits in self.search(queries, limit, width=width)]

    def _query(self, expression: Expression, fields: Sequence[str], *, consistency: str) -> list[Row]:
        options = {"filter": expression, "output_fields": list(fields)}
        options["consistency_level"] = consistency or self._consistency()
        return list(self._reading("query", self.name, **options))

    def _consistency(self) -> str:
        if self._removed:
            self._removed = False
            return STRONG
        return "Session" if time.monotonic() - self._written < LATELY else BOUNDED

    def _reading(self, name: str, *values: Any, **options: Any) -> Any:
        """A call that needs the collection loaded; it is loaded once where it was not."""
        try:
            return self.connection.call(name, *values, **options)
        except NotLoadedError:
            self.connection.load(self.name)
            return self.connection.call(name, *values, **options)


def _as_sent(queries: Any, layout: Layout) -> Any:
    """Query vectors as pymilvus takes them."""
    if layout.kind != SPARSE:
        return np.ascontiguousarray(queries, dtype=np.float32)
    return sparse_rows(queries)


def sparse_rows(vectors: Any) -> list[dict[int, float]]:
    """Rows of a csr_array as dictionaries of term to weight.

    >>> from scipy.sparse import csr_array
    >>> sparse_rows(csr_array(np.array([[0, 2.0, 0], [0, 0, 0]])))
    [{1: 2.0}, {}]
    """
    terms, weights = vectors.indices.tolist(), vectors.data.tolist()
    bounds = vectors.indptr.tolist()
    return [dict(zip(terms[a:b], weights[a:b], strict=True)) for a, b in pairwise(bounds)]
