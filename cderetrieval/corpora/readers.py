"""Documents from files: JSON lines, CSV, TSV, Parquet, plain text, BEIR folders; one dictionary at a time.

The ending decides the format. Rows keep all their fields, as read: text from CSV, typed values from JSON and Parquet.
``_id`` becomes ``id``; a line of plain text gets its line number.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ..errors import InputError, needs
from ..files import as_path, reading
from .delimited import read_delimited
from .jsonl import MEND, Place, read_jsonl, read_lines, refuse_repeated

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
        path = plain_or_gz(path / "corpus.jsonl")
    if not os.path.exists(path):  # unlike pathlib's, also where a name is too long to be one
        raise InputError(f"{path} does not exist.")
    return read_span(path, key)


def plain_or_gz(path: Path) -> Path:
    """The file, or the same with ``.gz`` where only that is there."""
    compressed = Path(f"{path}.gz")
    return compressed if compressed.exists() and not path.exists() else path


def ending_of(path: Path) -> str:
    """The ending that decides the format, without ``.gz``; "" for formats that are not compressed as a whole."""
    ending = (path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix).lower()
    return "" if ending == ".parquet" and path.suffix == ".gz" else ending


def read_span(path: Path, key: str, *span: int) -> Iterator[dict[str, Any]]:
    """Documents of a file, or of a span of it: where it begins (byte or row), its first number, lines or rows."""
    reader = reader_of(path)
    if reader is read_lines:
        return ({key: str(number), "text": line} for number, line in read_lines(path, *span))
    return identified(path, reader(path, *span), key)


def reader_of(path: Path) -> Callable[..., Iterator[tuple[int, Any]]]:
    """What reads the rows of a file: from a path and a span, their numbers and themselves."""
    reader = _READERS.get(ending_of(path))
    if reader is None:
        raise InputError(f"{path}: ending {path.suffix!r} is not supported; use one of {', '.join(_READERS)}.")
    return reader


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
    first: int = 1,
    count: int | None = None,
    *,
    columns: Sequence[str] | None = None,
    extra: str = "eval",
) -> Rows:
    """Numbers and rows of a Parquet file, `count` of them from row `first`, which comes after `start` others.

    `columns` are those to read, where the file has them; `extra` is what pyarrow is installed with.
    """
    with open_parquet(path, first - 1, extra) as (file, place):
        wanted = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
        ends = [0, *accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))]
        stop = ends[-1] if count is None else min(start + count, ends[-1])
        groups = [group for group, (low, high) in enumerate(pairwise(ends)) if high > start and low < stop]
        skip = start - ends[groups[0]] if groups else 0
        for batch in file.iter_batches(batch_size=1_024, row_groups=groups, columns=wanted):
            for row in batch.slice(min(skip, len(batch)), stop - place.number).to_pylist():
                place.number += 1
                yield place.number, row
            if place.number == stop:
                return
            skip = max(0, skip - len(batch))
        if place.number < stop:
            raise ValueError(f"{stop - place.number} rows are missing")


def parquet_rows(path: Path) -> int:
    """Number of rows of a Parquet file."""
    with open_parquet(path) as (file, _):
        return int(file.metadata.num_rows)


@contextlib.contextmanager
def open_parquet(path: Path, number: int = 0, extra: str = "eval") -> Iterator[tuple[Any, Place]]:
    """Open a Parquet file with pyarrow; the place, which the reader moves on, is after row `number`."""
    with needs("pyarrow", extra):
        import pyarrow.parquet as pq
    place = Place(f"{path}, after row", number, "not readable as Parquet: it")
    with reading(place, error=InputError, remedy=MEND), pq.ParquetFile(path, page_checksum_verification=True) as file:
        parts = sum(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        if parts != file.metadata.num_rows:
            raise ValueError(f"its groups have {parts} rows, the file {file.metadata.num_rows}")
        refuse_repeated(file.schema_arrow.names, str(path))
        yield file, place


_READERS: dict[str, Callable[..., Iterator[tuple[int, Any]]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": partial(read_delimited, delimiter=","),
    ".tsv": partial(read_delimited, delimiter="\t"),
    ".parquet": read_parquet,
    ".txt": read_lines,
}
