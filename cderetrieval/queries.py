"""What a retriever is asked, in the forms that users have, and `Hits`, what it answers with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .documents import checked_id, each
from .errors import InputError
from .files import atomic_write
from .notebook import html_table
from .values import id_name, shown
from .vectors import is_vectors

if TYPE_CHECKING:
    import pandas as pd

# Names of the fields of queries in rows and frames.
QUERY_IDS = ("_id", "id", "query_id", "query-id", "qid")
QUERY_TEXTS = ("text", "query")


def check_k(k: Any) -> int:
    """The number of hits that was asked for."""
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise InputError(f"k={k!r} must be a whole number of at least 1.")
    return int(k)


def query_texts(queries: Any) -> tuple[list[Hashable] | None, list[str] | None]:
    """Query ids, where there are any, and texts; (None, None) for ready vectors.

    Queries are a string, a list of strings, a dictionary of id to text, or rows or a frame with ``_id`` and ``text``.
    """
    query_ids: list[Hashable] | None = None
    if isinstance(queries, str):
        texts: list[Any] = [queries]
    elif is_vectors(queries):
        return None, None
    elif not isinstance(queries, Iterable) or isinstance(queries, bytes):
        raise InputError(f"queries is {type(queries).__name__}; pass a string, a list of them, or vectors.")
    elif isinstance(queries, Mapping):
        query_ids, texts = list(queries), list(queries.values())
    else:
        texts = list(each(queries))
        if texts and isinstance(texts[0], Mapping):
            query_ids, texts = _query_rows(texts)
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            what = "is empty" if isinstance(text, str) else f"is {type(text).__name__}, not a string"
            named = f" (id {shown(query_ids[row])})" if query_ids else ""
            raise InputError(f"query {row} {what}{named}.")
    return query_ids, texts


def named_queries(queries: Any) -> dict[str, str]:
    """Query id, as text, to query: what is judged."""
    ids, texts = query_texts(queries)
    if ids is None or texts is None:
        raise InputError("queries have no ids; pass a dictionary of query id to text.")
    named: dict[str, str] = {}
    for number, (query, text) in enumerate(zip(ids, texts, strict=True)):
        name = id_name(checked_id(query, f"query {number}: its id"))
        if name in named:
            raise InputError(f"query {number}: id {name!r} occurs twice; ids must differ, also as text.")
        named[name] = text
    return named


def _query_rows(rows: Sequence[Any]) -> tuple[list[Hashable], list[Any]]:
    """Ids and texts of queries that come as rows of a table."""
    found: dict[str, tuple[Hashable, Any]] = {}
    for number, row in enumerate(rows):
        names = row if isinstance(row, Mapping) else {}
        key, text = (next((name for name in known if name in names), None) for known in (QUERY_IDS, QUERY_TEXTS))
        if key is None or text is None:
            raise InputError(
                f"query {number} has the fields {', '.join(map(str, names)) or 'none'}; rows of queries have "
                f"{' or '.join(map(repr, QUERY_IDS[:3]))}, and 'text'. Or pass the texts alone, as a list."
            )
        query = checked_id(row[key], f"query {number}: {key!r}")
        if repr(query) in found:
            raise InputError(f"query {number}: id {query!r} occurs twice; ids must be unique.")
        found[repr(query)] = query, row[text]
    return [query for query, _ in found.values()], [text for _, text in found.values()]


class Hits(list[list[dict[str, Any]]]):
    """Answers to a list of queries: one list of ``{"id", "similarity"}`` for each, best first.

    Examples
    --------
    >>> hits = Hits([[{"id": "d7", "similarity": 0.9}]], query_ids=["q1"])
    >>> hits.to_frame()
      query_id  rank  id  similarity
    0       q1     1  d7         0.9
    >>> hits.to_run()
    {'q1': {'d7': 0.9}}
    """

    def __init__(self, hits: Sequence[list[dict[str, Any]]], query_ids: Sequence[Hashable] | None = None) -> None:
        super().__init__(hits)
        self.query_ids = list(range(len(self))) if query_ids is None else list(query_ids)

    def to_frame(self) -> pd.DataFrame:
        """One row for each hit: query_id, rank (from 1), id, similarity, and the document where it was asked for."""
        import pandas as pd

        rows = [
            {"query_id": query_id, "rank": rank, **hit}
            for query_id, ranking in zip(self.query_ids, self, strict=True)
            for rank, hit in enumerate(ranking, start=1)
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["query_id", "rank", "id", "similarity"])

    def _repr_html_(self) -> str:
        """A table of all hits; of a document that was asked for its title, of a passage its heading and text."""
        rows = []
        for query_id, ranking in zip(self.query_ids, self, strict=True):
            for rank, hit in enumerate(ranking, start=1):
                row = {"query": query_id, "rank": rank, "id": hit["id"], "similarity": hit["similarity"]}
                document, passage = hit.get("document") or {}, hit.get("passage") or {}
                found = {"title": document.get("title"), "heading": passage.get("heading")}
                found["text"] = passage.get("text") or document.get("text")
                rows.append({**row, **{name: value for name, value in found.items() if value}})
        return html_table(rows or [{"query": query_id} for query_id in self.query_ids])

    def to_run(self) -> dict[str, dict[str, float]]:
        """The run as pytrec_eval, beir and ir_measures take it: query id to document id to score.

        Raises
        ------
        InputError
            If two ids are one as text, 1 and "1" for example.
        """
        run = {}
        for query_id, ranking in zip(text_ids(self.query_ids, "queries"), self, strict=True):
            names = text_ids([hit["id"] for hit in ranking], f"documents of query {query_id!r}")
            run[query_id] = {name: float(hit["similarity"]) for name, hit in zip(names, ranking, strict=True)}
        text_ids({hit["id"]: None for ranking in self for hit in ranking}, "documents")
        return run

    def to_trec(self, path: str | Path, tag: str = "cderetrieval") -> None:
        """Write a TREC run file: ``query_id Q0 document_id rank score tag``, one hit a line.

        Raises
        ------
        InputError
            If an id or the tag holds white space, which separates the fields of that format.
        """
        run = self.to_run()
        names = {tag, *run, *(name for ranking in run.values() for name in ranking)}
        broken = [name for name in sorted(names) if name.split() != [name] or not _is_text(name)]
        if broken:
            raise InputError(
                f"id {broken[0]!r} is empty or holds white space, which a TREC run cannot hold; use to_frame()."
            )
        lines = [
            f"{query_id} Q0 {name} {rank} {_score(similarity)} {tag}\n"
            for query_id, ranking in run.items()
            for rank, (name, similarity) in enumerate(ranking.items(), start=1)
        ]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def text_ids(ids: Iterable[Hashable], what: str) -> list[str]:
    """Ids as runs and judgements have them, as text."""
    names: dict[str, Hashable] = {}
    for identity in ids:
        name = id_name(identity)
        if name in names:
            raise InputError(f"{what}: ids {shown(names[name])} and {shown(identity)} are one as text, {name!r}.")
        names[name] = identity
    return list(names)


def _is_text(name: str) -> bool:
    """Whether a name can be written: half of a surrogate pair cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _score(similarity: float) -> str:
    """Six decimals, and all digits where they would lose some."""
    text = f"{similarity:.6f}"
    return text if float(text) == similarity else repr(float(similarity))
