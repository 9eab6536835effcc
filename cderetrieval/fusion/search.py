"""Ask every part of a hybrid, in one numbering of the documents: the order of the first part's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..documents import named_queries, query_texts
from ..errors import InputError, StoreError
from ..judgements import Qrels, as_qrels
from ..retriever import Retriever
from ..values import id_name
from .scores import Fusion, Ranking, fuse


class Search:
    """The parts of a hybrid as searchers.

    Parameters
    ----------
    parts
        Retrievers of the same documents.
    """

    def __init__(self, parts: Sequence[Retriever]) -> None:
        self._parts = parts
        # For each part the ids, its own and the first's, for which its rows were last compared.
        self._compared: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = {}

    @property
    def ids(self) -> np.ndarray:
        """Ids of all documents, an object array of shape (n,), in order of insertion."""
        return self._parts[0]._view.ids

    def fused(
        self,
        texts: Sequence[str],
        fusion: Fusion,
        k: int,
        *,
        filter: Mapping[str, Any] | None = None,
        documents: bool = False,
        show_progress: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """The k best documents of each query by all parts together.

        Parameters
        ----------
        texts
            Queries.
        fusion
            How rankings are fused.
        k
            Most hits for each.
        filter
            Which documents may be hits.
        documents
            Give each hit its document.
        show_progress
            Show progress bars on a terminal.
        """
        if len(self._parts[0]) == 0:
            raise InputError("the index is empty: add documents first.")
        found = fuse(self.rankings(texts, fusion, k, filter=filter, show_progress=show_progress), fusion, k)
        hits = [
            [{"id": i, "similarity": score} for i, score in zip(self.ids[rows].tolist(), scores.tolist(), strict=True)]
            for scores, rows in found
        ]
        if documents:
            numbers = self._parts[0]._view.seqs[np.concatenate([rows for _, rows in found])]
            payloads = iter(self._parts[0]._store.documents(numbers))
            for hit in chain.from_iterable(hits):
                hit["document"] = next(payloads)
        return hits

    def rankings(
        self,
        texts: Sequence[str],
        fusion: Fusion,
        k: int,
        *,
        filter: Mapping[str, Any] | None = None,
        show_progress: bool = False,
    ) -> list[Ranking]:
        """The best documents of each query by each part, as many as the fusion wants and at least k."""
        found = []
        for number, part in enumerate(self._parts):
            queries = part.encoder.encode_query(texts, show_progress=show_progress)
            scores, rows = part._view.nearest(queries, max(k, fusion.depth), filter)
            own = self._rows(number, part._view.ids)
            if own is not None:
                rows = np.where(rows < 0, -1, own[rows])
            found.append(Ranking(scores, rows, None if part.encoder.kind == "dense" else 0.0))
        return found

    def graded(
        self,
        texts: Sequence[str],
        fusion: Fusion,
        k: int,
        qrels: Qrels,
        judged: Sequence[str],
        *,
        show_progress: bool = False,
    ) -> tuple[list[Ranking], list[dict[int, int]]]:
        """As :meth:`rankings`, and the judgements of these queries by row (:func:`grades_by_row`)."""
        found = self.rankings(texts, fusion, k, show_progress=show_progress)
        return found, grades_by_row(qrels, judged, self.ids)

    def _rows(self, number: int, ids: np.ndarray) -> np.ndarray | None:
        """Row in the first part of each row of another, shape (n,); None where they are the same."""
        if number == 0:
            return None
        known = self._compared.get(number)
        if known is None or known[0] is not self.ids or known[1] is not ids:
            known = self._compared[number] = (self.ids, ids, _matched(self.ids, ids))
        return known[2]


def _matched(first: np.ndarray, ids: np.ndarray) -> np.ndarray | None:
    if len(first) == len(ids) and bool((first == ids).all()):
        return None
    # By repr: 1, 1.0 and True are three ids, and equal in Python.
    rows = {repr(document_id): row for row, document_id in enumerate(first.tolist())}
    names = [repr(document_id) for document_id in ids.tolist()]
    different = rows.keys() ^ set(names)
    if different:
        raise StoreError(
            f"document {min(different)} is in one part of this hybrid only: was a part changed by itself? Add and "
            "remove documents through the hybrid."
        )
    return np.array([rows[name] for name in names], dtype=np.int64)


def grades_by_row(qrels: Qrels, queries: Sequence[str], ids: np.ndarray) -> list[dict[int, int]]:
    """Judgements of queries by row of the document; those of documents that are not there have rows below 0.

    Raises
    ------
    InputError
        If no judged document is there, or one has the name of two.
    """
    rows: dict[str, int] = {}
    several: set[str] = set()
    for row, document_id in enumerate(ids.tolist()):
        name = id_name(document_id)
        if rows.setdefault(name, row) != row:
            several.add(name)
    # A relevant document that is not there still counts in the ideal ranking.
    grades = []
    for query in queries:
        if twice := sorted(several.intersection(qrels[query])):
            raise InputError(f"query {query!r} judges {twice[0]!r}, and two ids of this index are that as text.")
        grades.append({rows.get(name, -1 - i): grade for i, (name, grade) in enumerate(qrels[query].items())})
    if not any(row >= 0 for one in grades for row in one):
        raise InputError("qrels judge no document of this index; are their ids those of the documents?")
    return grades


def judged_queries(queries: Any, qrels: Any) -> tuple[dict[str, str], Qrels]:
    """Queries that have judgements, by id, and all judgements.

    Raises
    ------
    InputError
        If queries have no ids, one or a judgement cannot be used, or no query has a judgement.
    """
    if qrels is None or isinstance(qrels, str | Path) or not isinstance(queries, Iterable):
        raise InputError(_NEEDED)
    grades = as_qrels(qrels)
    queries = list(queries) if isinstance(queries, Iterator) else queries
    if isinstance(queries, Mapping):  # those that nobody judged are not asked, and may be anything
        queries = {query: text for query, text in queries.items() if grades.get(id_name(query))}
    elif query_texts(queries)[0] is None:
        raise InputError(_NEEDED)
    asked = {query: text for query, text in named_queries(queries).items() if grades.get(query)}
    if not asked:
        raise InputError("no query has judgements: are the keys of qrels those of queries?")
    return asked, grades


_NEEDED = (
    "tune needs queries, query id to text, and qrels, query id to document id to grade: read_beir gives both, "
    "and cderetrieval.evaluation.metrics.as_qrels reads other forms."
)
