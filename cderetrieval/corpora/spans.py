"""Folders of whole documents with gold spans: the passages that answer each query, as character ranges.

``documents.jsonl`` holds whole documents and ``spans.jsonl`` the gold spans; ``queries.jsonl`` and ``qrels/`` are those
of a BEIR folder. The spans belong to no splitter, so that any can be scored. Offsets count characters from 0, as Python
does, and `end` is the first character after the span.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import as_path
from ..values import shown
from .beir_folder import document_of, find_file, qrels_file, read_queries, refuse_second, row_id
from .jsonl import read_jsonl
from .qrels import read_qrels

# Query id to (document id, start, end) of each of its gold spans.
Spans = dict[str, list[tuple[str, int, int]]]
HOLDS = "a folder of spans holds documents.jsonl, queries.jsonl and spans.jsonl"
# Fields of a document that say where its parts are.
_PARTS = ("sections", "paragraphs")


@dataclass(frozen=True)
class SpanDataset:
    """Whole documents, queries, and the spans of the documents that answer them.

    Attributes
    ----------
    documents
        Each ``{"id": str, "title": str, "text": str}``, with ``"sections"`` (``{"heading", "start", "end"}`` each) or
        ``"paragraphs"`` (``[start, end]`` each) where the file has them.
    queries
        Query id to text; exactly the queries that have spans.
    spans
        Query id to its gold spans, each (document id, start, end).
    """

    documents: tuple[dict[str, Any], ...]
    queries: dict[str, str]
    spans: Spans

    @property
    def texts(self) -> dict[str, str]:
        """Document id to text."""
        return {document["id"]: document["text"] for document in self.documents}

    def __repr__(self) -> str:
        n_spans = sum(map(len, self.spans.values()))
        return f"SpanDataset({len(self.documents)} documents, {len(self.queries)} queries, {n_spans} spans)"


def read_spans(folder: str | Path, split: str | None = None, *, spans: str = "spans.jsonl") -> SpanDataset:
    r"""Read a folder of whole documents with gold spans and check all of it.

    Parameters
    ----------
    folder
        Holds ``documents.jsonl`` (``_id``, ``title``, ``text``, and ``sections`` or ``paragraphs`` where known),
        ``queries.jsonl`` (``_id``, ``text``) and ``spans.jsonl`` (``query``, ``document``, ``start``, ``end``), each
        also as ``.gz``.
    split
        Only the queries that ``qrels/<split>.tsv`` judges; None: all that have spans.
    spans
        Name of the file of spans, where a folder has several.

    Raises
    ------
    InputError
        With file and line: rows that are not JSON, ids that are missing, unknown or occur twice, offsets that are not
        whole numbers, spans that are empty or reach beyond their text, spans that occur twice.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "documents.jsonl").write_text('{"_id": "d", "text": "Owls hunt at night. They eat mice."}\n')
    >>> _ = (folder / "queries.jsonl").write_text('{"_id": "q", "text": "food of owls"}\n')
    >>> _ = (folder / "spans.jsonl").write_text('{"query": "q", "document": "d", "start": 20, "end": 34}\n')
    >>> read_spans(folder).spans
    {'q': [('d', 20, 34)]}
    """
    folder = as_path(folder)
    documents = _read_documents(find_file(folder, "documents.jsonl", HOLDS))
    path = find_file(folder, spans, HOLDS)
    found, first = _read_spans(path, {document["id"]: document["text"] for document in documents})
    queries = read_queries(find_file(folder, "queries.jsonl", HOLDS), found)
    unknown = next((query for query in found if query not in queries), None)
    if unknown is not None:
        raise InputError(f"{path}, line {first[unknown]}: query {unknown!r} is not in queries.jsonl.")
    if split is not None:
        found = _chosen(found, qrels_file(folder, split), path)
    return SpanDataset(documents, {query: queries[query] for query in found}, found)


def _read_documents(path: Path) -> tuple[dict[str, Any], ...]:
    documents: list[dict[str, Any]] = []
    first: dict[str, int] = {}
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        document: dict[str, Any] = {**document_of(row, where)}
        refuse_second(first, document["id"], number, path)
        for field in (field for field in _PARTS if field in row):
            document[field] = _parts(row[field], field, document, where)
        documents.append(document)
    if not documents:
        raise InputError(f"{path} holds no documents.")
    return tuple(documents)


def _parts(value: Any, field: str, document: Mapping[str, Any], where: str) -> list[Any]:
    """Sections or paragraphs of a document as they are, each checked."""
    if not isinstance(value, list):
        raise InputError(f"{where}: {field!r} must be a list, found {shown(value)}.")
    for number, part in enumerate(value):
        place = f"{where}, {field}[{number}]"
        if field == "sections" and isinstance(part, dict) and isinstance(part.get("heading"), str):
            check_range(part.get("start"), part.get("end"), document["id"], document["text"], place)
        elif field == "paragraphs" and isinstance(part, list) and len(part) == 2:
            check_range(part[0], part[1], document["id"], document["text"], place)
        else:
            form = '{"heading", "start", "end"}' if field == "sections" else "[start, end]"
            raise InputError(f"{place}: expected {form}, found {shown(part)}.")
    return value


def _read_spans(path: Path, texts: Mapping[str, str]) -> tuple[Spans, dict[str, int]]:
    """All gold spans of a file, and the line where each query is first named."""
    found: Spans = {}
    first: dict[str, int] = {}
    lines: dict[tuple[str, str, int, int], int] = {}
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        query, document = row_id(row, where, "query"), row_id(row, where, "document")
        if document not in texts:
            raise InputError(f"{where}: document {document!r} is not in documents.jsonl.")
        start, end = check_range(row.get("start"), row.get("end"), document, texts[document], where)
        line = lines.setdefault((query, document, start, end), number)
        if line != number:
            raise InputError(f"{where}: the same span is also in line {line}; remove one.")
        first.setdefault(query, number)
        found.setdefault(query, []).append((document, start, end))
    if not found:
        raise InputError(f"{path} holds no spans.")
    return found, first


def check_range(start: Any, end: Any, document: str, text: str, where: str) -> tuple[int, int]:
    """The range as Python's numbers, if it is one of the text."""
    for offset in (start, end):
        if isinstance(offset, bool) or not isinstance(offset, Integral):
            raise InputError(f"{where}: start and end must be whole numbers, found {shown(start)} and {shown(end)}.")
    if not 0 <= start < end <= len(text):
        raise InputError(
            f"{where}: start {shown(start)} and end {shown(end)} are no span of document {document!r}, whose text has "
            f"{len(text)} characters; count characters, not bytes, from 0."
        )
    return int(start), int(end)


def _chosen(spans: Spans, path: Path, source: Path) -> Spans:
    """Spans of the queries that a file judges."""
    judged: Collection[str] = read_qrels(path).keys()
    without = next((query for query in judged if query not in spans), None)
    if without is not None:
        raise InputError(f"{path} judges query {without!r}, which has no span in {source.name}.")
    if not judged:
        raise InputError(f"{path} judges nothing.")
    return {query: rows for query, rows in spans.items() if query in judged}
