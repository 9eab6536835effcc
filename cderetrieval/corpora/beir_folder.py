"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``.

The corpus is checked in one pass and then streamed: each iteration opens the file anew. To find repeated ids, the pass
keeps 8 bytes for each document, 70 MB for the 8.8 million of MS MARCO.
"""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import as_path, atomic_write
from ..judgements import Qrels
from ..values import id_name, scalar, shown
from .dataset import Dataset, Revision
from .jsonl import read_jsonl
from .qrels import read_qrels
from .readers import plain_or_gz

logger = logging.getLogger(__name__)

_ENDINGS = (".tsv", ".csv", ".txt", ".qrels")
HOLDS = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv"


class BeirCorpus:
    """Documents of a ``corpus.jsonl``, streamed; an iteration holds one document at a time."""

    def __init__(self, path: Path, n_documents: int) -> None:
        self.path = path
        self._n_documents = n_documents

    def __len__(self) -> int:
        return self._n_documents

    def __iter__(self) -> Iterator[dict[str, str]]:
        return (document for _, document in _documents(self.path))


def splits(folder: str | Path) -> list[str]:
    """Names of the splits that a folder has judgements for."""
    return sorted(_qrels_files(as_path(folder)))


def read_beir(folder: str | Path, split: str = "test", missing: str = "error") -> Dataset:
    """Read a BEIR folder and check all of it.

    Parameters
    ----------
    folder
        Holds ``corpus.jsonl``, ``queries.jsonl`` (each also as ``.gz``) and ``qrels/``.
    split
        Which judgements; the dataset has only the queries that they judge.
    missing
        What to do with judgements of unknown queries or documents: ``"error"``, or ``"skip"`` to leave them out and
        log how many there were.

    Raises
    ------
    InputError
        With file and line: rows that are not JSON, ids that are missing or occur twice, fields that are not text,
        grades that are not whole numbers.
    """
    if missing not in ("error", "skip"):
        raise InputError(f"missing={missing!r} is unknown; use 'error' or 'skip'.")
    folder = as_path(folder)
    judgements = qrels_file(folder, split)
    qrels = read_qrels(judgements)
    revision = Revision()
    corpus, unknown = _check_corpus(find_file(folder, "corpus.jsonl", HOLDS), qrels, revision)
    queries = read_queries(find_file(folder, "queries.jsonl", HOLDS), qrels)
    qrels = _known(qrels, queries.keys(), unknown, judgements, missing)
    queries = {query: queries[query] for query in qrels}
    return Dataset(folder.resolve().name, corpus, queries, qrels, split, revision.finish(queries, qrels))


def write_beir(dataset: Dataset, folder: str | Path) -> Path:
    """Write a BEIR folder; each file is whole or absent, and the qrels, which make it a task, come last."""
    folder = as_path(folder)
    for name in [*dataset.queries, *(name for grades in dataset.qrels.values() for name in grades)]:
        if name != name.strip() or name.startswith('"') or not {*"\t\n\r\0"}.isdisjoint(name):
            raise InputError(
                f"id {name!r} does not fit into the columns of a BEIR folder's judgements; use another id."
            )
    with atomic_write(folder / "corpus.jsonl") as temporary, open(temporary, "w", encoding="utf-8") as file:
        for document in dataset.corpus:
            row = {"_id": document["id"], "title": document["title"], "text": document["text"]}
            file.write(_line(row))
    with atomic_write(folder / "queries.jsonl") as temporary, open(temporary, "w", encoding="utf-8") as file:
        for query, text in dataset.queries.items():
            file.write(_line({"_id": query, "text": text}))
    with atomic_write(folder / "qrels" / f"{dataset.split}.tsv") as temporary:
        lines = [f"{q}\t{d}\t{grade}\n" for q, grades in dataset.qrels.items() for d, grade in grades.items()]
        temporary.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")
    return folder


def _line(row: dict[str, str]) -> str:
    text = json.dumps(row, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(row) + "\n"
    return text


def find_file(folder: Path, name: str, holds: str) -> Path:
    """A file of a folder, or the same compressed; `holds` says in the error what such a folder holds."""
    path = plain_or_gz(folder / name)
    if not path.exists():
        raise InputError(f"{folder} has no {name}; {holds}.")
    return path


def qrels_file(folder: Path, split: str) -> Path:
    """The judgements of a split."""
    files = _qrels_files(folder)
    if split not in files:
        raise InputError(f"{folder} has no split {split!r}; it has {', '.join(sorted(files))}.")
    return files[split]


def _qrels_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted((folder / "qrels").glob("*")):
        if path.suffix in _ENDINGS and files.setdefault(path.stem, path) != path:
            other = files[path.stem].name
            raise InputError(f"{folder / 'qrels'} has {other} and {path.name} for one split; remove or rename one.")
    if not files:
        raise InputError(f"{folder} has no judgements; put them into qrels/<split>.tsv.")
    return files


def _documents(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        yield number, document_of(row, where)


def document_of(row: dict[str, Any], where: str) -> dict[str, str]:
    """Id, title and text of a row."""
    title = _text(row, "title", where) if "title" in row else ""
    return {"id": row_id(row, where, "_id", "id"), "title": title, "text": _text(row, "text", where)}


def row_id(row: dict[str, Any], where: str, *fields: str) -> str:
    """The id in the first of these fields that a row has."""
    value = scalar(next((row[field] for field in fields if field in row), None))
    if value is None or isinstance(value, dict | list | bool) or id_name(value).strip() == "":
        raise InputError(f"{where}: the row has no usable {fields[0]}: {shown(value)}.")
    return id_name(value)


def _text(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise InputError(f"{where}: the row has no field {field!r}; it has {', '.join(row)}.")
    value = row[field]
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {field!r} must be text, found {type(value).__name__}.")
    return value or ""


def _check_corpus(path: Path, qrels: Qrels, revision: Revision) -> tuple[BeirCorpus, set[str]]:
    """One pass over the corpus; also returns the judged documents that it lacks."""
    hashes = array("q")
    unknown = {document for grades in qrels.values() for document in grades}
    empty: list[int] = []
    for number, document in _documents(path):
        hashes.append(hash(document["id"]))
        unknown.discard(document["id"])
        revision.add(document)
        if not (document["title"].strip() or document["text"].strip()):
            empty.append(number)
    if not hashes:
        raise InputError(f"{path} holds no documents.")
    if len(np.unique(np.frombuffer(hashes, np.int64))) < len(hashes):
        first: dict[str, int] = {}
        for number, document in _documents(path):
            refuse_second(first, document["id"], number, path)
    if empty:
        # official sets have them (FiQA: 38), and leaving them out would change published scores
        logger.warning("%s: %d documents have no text and are kept, the first in line %d.", path, len(empty), empty[0])
    return BeirCorpus(path, len(hashes)), unknown


def refuse_second(first: dict[str, int], identity: str, number: int, path: Path) -> None:
    """Refuse an id that an earlier line has; `first` holds the line of each."""
    if first.setdefault(identity, number) != number:
        line = first[identity]
        raise InputError(f"{path}, line {number}: id {identity!r} is also in line {line}; ids must be unique.")


def read_queries(path: Path, wanted: Container[str]) -> dict[str, str]:
    """Texts of the wanted queries of a file, all of which is checked."""
    queries: dict[str, str] = {}
    first: dict[str, int] = {}
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        query = row_id(row, where, "_id", "id")
        refuse_second(first, query, number, path)
        text = _text(row, "text", where)
        if query in wanted:
            if not text.strip():
                raise InputError(f"{where}: query {query!r} is judged and has no text.")
            queries[query] = text
    return queries


def _known(qrels: Qrels, queries: Any, unknown_documents: set[str], path: Path, missing: str) -> Qrels:
    unknown_queries = sorted(qrels.keys() - queries)
    known: Qrels = {}
    for query in qrels.keys() & queries:
        known[query] = {doc: grade for doc, grade in qrels[query].items() if doc not in unknown_documents}
    kept = {query: known[query] for query in qrels if known.get(query)}
    problems = [
        f"{len(ids)} unknown {what} ({', '.join(map(repr, ids[:3]))}{', ...' if len(ids) > 3 else ''})"
        for what, ids in (("queries", unknown_queries), ("documents", sorted(unknown_documents)))
        if ids
    ]
    if problems and missing == "error":
        raise InputError(f"{path} judges {' and '.join(problems)}. Mend the files, or read with missing='skip'.")
    if problems:
        logger.warning("%s judges %s; %d of %d queries remain.", path, " and ".join(problems), len(kept), len(qrels))
    if not kept:
        raise InputError(f"{path} judges no query and document that are there.")
    return kept
