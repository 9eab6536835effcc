"""Documents from files: JSON lines, CSV, TSV, Parquet, plain text, BEIR folders; one dictionary at a time.

The ending decides the format. Rows keep all their fields, as read: text from CSV, typed values from JSON and Parquet.
``_id`` becomes ``id``; a line of plain text gets its line number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError, missing_dependency
from ..files import as_path, reading
from .delimited import read_delimited
from .jsonl import MEND, read_jsonl, read_lines, refuse_repeated

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
    if os.path.isdir(path):
        path = next((p for p in (path / "corpus.jsonl", path / "corpus.jsonl.gz") if p.exists()), path / "corpus.jsonl")
    if not os.path.exists(path):  # unlike pathlib's, also where a name is too long to be one
        raise InputError(f"{path} does not exist.")
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    reader = _READERS.get(ending.lower())
    if reader is None or (ending == ".parquet" and path.suffix == ".gz"):
        raise InputError(f"{path}: ending {path.suffix!r} is not supported; use one of {', '.join(_READERS)}.")
    if reader is read_lines:
        return numbered(read_lines(path), key)
    return identified(path, reader(path), key)


def numbered(lines: Iterator[tuple[int, str]], key: str) -> Iterator[dict[str, Any]]:
    """Lines of plain text as documents that have the number of their line as id."""
    return ({key: str(number), "text": line} for number, line in lines)


def identified(path: Path, rows: Rows, key: str) -> Iterator[dict[str, Any]]:
    """Rows of a file with ``_id`` as ``id``; a row without a value for `key` is refused."""
    for number, row in rows:
        if "_id" in row and "id" not in row:
            row = {"id": row.pop("_id"), **row}
        if row.get(key) is None or row[key] == "":
            raise InputError(f"{path}, row {number}: no value for key {key!r}; the fields are {', '.join(row)}.")
        yield row


def read_parquet(
    path: Path,
    start: int = 0,
    count: int | None = None,
    *,
    columns: Sequence[str] | None = None,
    extra: str = "eval",
) -> Rows:
    """Numbers (from 1) and rows of a Parquet file: `count` rows after the first `start`, and those `columns` it has."""
    number = start
    batches = _parquet_batches(path, start, None if count is None else start + count, columns, extra)
    while True:
        with reading_parquet(path, number):
            rows = next(batches, None)
        if rows is None:
            return
        for row in rows:
            number += 1
            yield number, row


def _parquet_batches(
    path: Path, start: int, end: int | None, columns: Sequence[str] | None, extra: str
) -> Iterator[list[dict[str, Any]]]:
    with open_parquet(path, extra) as file:
        wanted = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
        groups, before = _row_groups(file.metadata, start, end)
        total = file.metadata.num_rows
        skip, left = start - before, (total if end is None else min(end, total)) - start
        for batch in file.iter_batches(batch_size=1_024, row_groups=groups, columns=wanted):
            rows = batch.slice(min(skip, len(batch)), left).to_pylist()
            skip, left = max(0, skip - len(batch)), left - len(rows)
            yield rows
            if left <= 0:
                return
        if left > 0:
            raise ValueError(f"{left} rows are missing")


def parquet_rows(path: Path) -> int:
    """Number of rows of a Parquet file."""
    with reading_parquet(path), open_parquet(path) as file:
        return int(file.metadata.num_rows)


def reading_parquet(path: Path, number: int = 0) -> AbstractContextManager[None]:
    """Name the file, and the row before, in whatever pyarrow throws."""
    where = f"{path}, after row {number}: not readable as Parquet: it"
    return reading(where, error=InputError, remedy=MEND)


def open_parquet(path: Path, extra: str = "eval") -> Any:
    """A pyarrow ParquetFile, within :func:`reading_parquet`; `extra` is what pyarrow is installed with."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_dependency("pyarrow", extra) from error
    file = pq.ParquetFile(path, page_checksum_verification=True)
    parts, total = sum(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)), file.metadata.num_rows
    if parts != total:
        raise ValueError(f"its groups have {parts} rows, the file {total}")
    refuse_repeated(file.schema_arrow.names, str(path))
    return file


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


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": partial(read_delimited, delimiter=","),
    ".tsv": partial(read_delimited, delimiter="\t"),
    ".parquet": read_parquet,
    ".txt": read_lines,
}
