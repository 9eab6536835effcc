"""A retrieval task: documents to search, queries to ask, and judgements of which document answers which query.

A corpus can be iterated more than once and knows its length: a tuple in memory, or a reader that opens its file anew
for each pass. The revision is a digest of the content, so it is the same in memory and in a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..documents import each_row
from ..errors import InputError
from ..judgements import Qrels, as_qrels
from ..queries import named_queries
from ..values import id_name, shown


@runtime_checkable
class Corpus(Protocol):
    """Documents ``{"id", "title", "text"}`` that can be read again and again."""

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Start a new pass from the first document."""

    def __len__(self) -> int:
        """Number of documents."""


@dataclass(frozen=True)
class Dataset:
    """A retrieval task.

    Attributes
    ----------
    name
        What result tables call it.
    corpus
        Documents, each ``{"id": str, "title": str, "text": str}``; iterable more than once.
    queries
        Query id to text; exactly the queries that `qrels` judges.
    qrels
        Query id to document id to grade. Grades below 1 are judged and not relevant.
    split
        Which part of the data this is: ``"test"``, ``"dev"``, ...
    revision
        Digest of documents, queries and qrels; 16 hexadecimal digits.

    Examples
    --------
    >>> documents = [{"id": "d1", "title": "", "text": "Tides follow the moon."}]
    >>> dataset = make_dataset("tides", documents, {"q1": "what moves the sea"}, {"q1": {"d1": 1}})
    >>> len(dataset.corpus), dataset.split, len(dataset.revision)
    (1, 'test', 16)
    """

    name: str
    corpus: Corpus
    queries: dict[str, str]
    qrels: Qrels
    split: str
    revision: str

    def __post_init__(self) -> None:
        if not isinstance(self.corpus, Corpus):
            raise InputError("corpus must be iterable more than once and have a length; make a generator a list first.")
        object.__setattr__(self, "queries", _texts(self.queries, self.name))
        object.__setattr__(self, "qrels", as_qrels(self.qrels))
        if self.queries.keys() != self.qrels.keys():
            different = sorted(self.queries.keys() ^ self.qrels.keys())[:3]
            raise InputError(f"{self.name}: queries and qrels differ in {different}; each query needs its judgements.")

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {len(self.corpus)} documents, {len(self.queries)} queries, "
            f"split={self.split!r}, revision={self.revision!r})"
        )


class Revision:
    """Digest of a task that is taken while its documents stream by."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, document: Mapping[str, str]) -> None:
        """Take in the next document; the order counts, since it decides ties and samples."""
        self._update([document["id"], document["title"], document["text"]])

    def finish(self, queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, int]]) -> str:
        """Take in queries and qrels, whose order does not count, and return the digest."""
        self._update(sorted(queries.items()))
        self._update(sorted((query, sorted(grades.items())) for query, grades in qrels.items()))
        return self._hash.hexdigest()[:16]

    def _update(self, value: Any) -> None:
        self._hash.update(json.dumps(value).encode() + b"\n")


def make_dataset(
    name: str,
    documents: Any,
    queries: Any,
    qrels: Any,
    split: str = "test",
    *,
    keep_empty: bool = False,
) -> Dataset:
    """Build a task in memory.

    Parameters
    ----------
    documents
        As :meth:`cderetrieval.Retriever.add` takes them: with ``id`` (or ``_id``) and ``text``, and
        ``title`` where there is one; other fields are left out. Ids become text.
    queries
        Query id to text; or rows or a frame with ``_id`` and ``text``.
    qrels
        Judgements in any form that :func:`~cderetrieval.judgements.as_qrels` reads.
    keep_empty
        Keep documents without any text, as official collections have them, in place of an error.

    Raises
    ------
    InputError
        If a document or query cannot be used, two have the same id, nothing is judged, a grade is not a whole number,
        or a judgement names a query or document that is not there.
    """
    corpus = tuple(
        {"id": id_name(identity), "title": payload.get("title") or "", "text": payload["text"] or ""}
        for identity, _, payload in each_row(documents, "id", None)
    )
    _check_documents(name, corpus, keep_empty)
    ids = {row["id"] for row in corpus}
    judged, asked = as_qrels(qrels), named_queries(queries)
    if not any(judged.values()):
        raise InputError(f"{name}: qrels judge nothing; give each query its relevant documents.")
    for query, grades in judged.items():
        unknown = [document for document in grades if document not in ids]
        if unknown:
            raise InputError(f"{name}: query {query!r} judges documents that are not in the corpus: {unknown[:3]}.")
    revision = Revision()
    for row in corpus:
        revision.add(row)
    return Dataset(name, corpus, asked, judged, split, revision.finish(asked, judged))


def _check_documents(name: str, corpus: Sequence[Mapping[str, str]], keep_empty: bool) -> None:
    if not corpus:
        raise InputError(f"{name}: no documents: the call got an empty collection.")
    double, times = Counter(row["id"] for row in corpus).most_common(1)[0]
    if times > 1:
        raise InputError(f"{name}: document id {double!r} occurs twice; ids must be unique, also as text.")
    for number, row in enumerate(corpus):
        if not keep_empty and not (row["title"].strip() or row["text"].strip()):
            raise InputError(
                f"{name}: document {number} (id {row['id']!r}) has an empty text. Give it one, leave it out, or pass "
                "keep_empty=True."
            )


def _texts(queries: Mapping[Any, Any], name: str) -> dict[str, str]:
    """Query ids as text, to texts, which may be empty in official collections."""
    for query, text in queries.items():
        if not isinstance(text, str):
            raise InputError(f"{name}: query {shown(query)} is {type(text).__name__}, not a string.")
    return {id_name(query): text for query, text in queries.items()}
