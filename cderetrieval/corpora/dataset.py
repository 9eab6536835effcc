"""A retrieval task: documents to search, queries to ask, and judgements that say which document answers which query.

A corpus is anything that can be iterated more than once and knows its length. In memory it is a tuple; from disk it is
a reader that opens its file anew for each pass, so that half a million documents cost no more memory than one. The
revision is a digest of the content and not of the files: the same task in memory and in a folder has the same one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..errors import InputError

Qrels = dict[str, dict[str, int]]


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
    documents: Iterable[Mapping[str, Any]],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    split: str = "test",
) -> Dataset:
    """Build a task in memory.

    Parameters
    ----------
    documents
        Mappings with ``id`` and ``text``, and ``title`` where there is one; other fields are left out.

    Raises
    ------
    InputError
        If two documents have the same id, or a judgement names a query or document that is not there.
    """
    corpus = tuple(
        {"id": str(row["id"]), "title": str(row.get("title") or ""), "text": str(row.get("text") or "")}
        for row in documents
    )
    ids = {row["id"] for row in corpus}
    if len(ids) < len(corpus):
        [(double, _)] = Counter(row["id"] for row in corpus).most_common(1)
        raise InputError(f"{name}: document id {double!r} occurs twice; ids must be unique.")
    for query, grades in qrels.items():
        unknown = [document for document in grades if document not in ids]
        if unknown:
            raise InputError(f"{name}: query {query!r} judges documents that are not in the corpus: {unknown[:3]}.")
    revision = Revision()
    for row in corpus:
        revision.add(row)
    plain = {query: {document: int(grade) for document, grade in grades.items()} for query, grades in qrels.items()}
    return Dataset(name, corpus, dict(queries), plain, split, revision.finish(queries, plain))
