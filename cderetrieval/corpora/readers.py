"""Documents from files: JSON lines, CSV, TSV, Parquet, plain text, BEIR folders; one dictionary at a time.

The ending decides the format. Rows keep all their fields, as read: text from CSV, typed values from JSON and Parquet.
``_id``, as BEIR and Elasticsearch name it, is offered as ``id``; a line of plain text gets its line number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, missing_dependency
from ..files import as_path
from .jsonl import open_bytes, read_jsonl, read_lines

Rows = Iterator[tuple[int, dict[str, Any]]]


def read_documents(path: str | Path, key: str = "id") -> Iterator[dict[str, Any]]:
    r"""Stream the documents of a file.

    Parameters
    ----------
    path
        ``.jsonl``, ``.ndjson``, ``.csv``, ``.tsv``, ``.txt`` (one document a line), each also with ``.gz``;
        ``.parquet``; or a BEIR folder.
    key
        The field that identifies a document.

    Raises
    ------
    InputError
        At once if the file is missing or its ending is unknown; with file and line if a row cannot be read or has
        no value for `key`.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "notes.csv"
    >>> _ = path.write_text("id,text\n7,tides\n")
    >>> list(read_documents(path))
    [{'id': '7', 'text': 'tides'}]
    """
    path = as_path(path)
    if path.is_dir():
        path = next((p for p in (path / "corpus.jsonl", path / "corpus.jsonl.gz") if p.exists()), path / "corpus.jsonl")
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    reader = _READERS.get(ending.lower())
    if reader is None or (ending == ".parquet" and path.suffix == ".gz"):
        raise InputError(f"{path}: ending {path.suffix!r} is not supported; use one of {', '.join(_READERS)}.")
    if reader is _read_text:
        return numbered(read_lines(path), key)
    return identified(path, reader(path), key)


def numbered(lines: Iterator[tuple[int, str]], key: str) -> Iterator[dict[str, Any]]:
    """Lines of plain text as documents that have the number of their line as id."""
    return ({key: str(number), "text": line} for number, line in lines)


def identified(path: Path, rows: Rows, key: str) -> Iterator[dict[str, Any]]:
    """Rows of a file with ``_id`` as ``id``; one without a value for `key` is an error that names file and row."""
    for number, row in rows:
        if "_id" in row and "id" not in row:
            row = {"id": row.pop("_id"), **row}
        if row.get(key) is None or row[key] == "":
            raise InputError(f"{path}, row {number}: no value for key {key!r}; the fields are {', '.join(row)}.")
        yield row


def _read_text(path: Path) -> Rows:
    return ((number, {"id": str(number), "text": line}) for number, line in read_lines(path))


def _read_csv(path: Path) -> Rows:
    return _read_delimited(path, ",")


def _read_tsv(path: Path) -> Rows:
    return _read_delimited(path, "\t")


def _read_delimited(path: Path, delimiter: str) -> Rows:
    # Python's limit of 131,072 characters is for a field; documents are longer
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    with open_bytes(path) as file:
        reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    expected, found = len(reader.fieldnames or ()), sum(value is not None for value in row.values())
                    raise InputError(f"{path}, line {reader.line_num}: {found} columns, the header has {expected}.")
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}, after line {reader.line_num}: {error}.") from error


def read_parquet(path: Path, start: int = 0, count: int | None = None) -> Rows:
    """Numbers (from 1) and rows of a Parquet file: `count` of them after the first `start`; by default all."""
    number, end = start, None if count is None else start + count
    try:
        with open_parquet(path) as file:
            groups, before = _row_groups(file.metadata, start, end)
            skip = start - before
            for batch in file.iter_batches(batch_size=1_024, row_groups=groups):
                for row in batch.slice(min(skip, len(batch))).to_pylist():
                    if number == end:
                        return
                    number += 1
                    yield number, row
                skip = max(0, skip - len(batch))
    except _arrow_errors() as error:
        raise InputError(f"{path}, after row {number}: not readable as Parquet ({error}).") from error


def parquet_rows(path: Path) -> int:
    """Number of rows of a Parquet file."""
    try:
        with open_parquet(path) as file:
            return int(file.metadata.num_rows)
    except _arrow_errors() as error:
        raise InputError(f"{path}: not readable as Parquet ({error}).") from error


def open_parquet(path: Path) -> Any:
    """A pyarrow ParquetFile."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_dependency("pyarrow", "eval") from error
    return pq.ParquetFile(path)


def _arrow_errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return pa.ArrowException, OSError


def _row_groups(metadata: Any, start: int, end: int | None) -> tuple[list[int], int]:
    """Row groups that hold rows from `start` to `end`, and the number of rows before the first of them."""
    groups: list[int] = []
    seen = before = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        if seen + rows > start and (end is None or seen < end):
            before = before if groups else seen
            groups.append(number)
        seen += rows
    return groups, before


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": read_parquet,
    ".txt": _read_text,
}
