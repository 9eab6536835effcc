"""One file as a document, or as the rows that it holds."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from ..documents import DEFAULT_FIELDS, document_text
from ..errors import InputError
from ..passages import Passages
from .convert import to_markdown
from .file_kinds import CODE, JSON, MARKDOWN, PLAIN, ROWS, RST, TEXT
from .headings import with_markdown_headings, without_front_matter, without_title
from .jsonl import open_lines, read_jsonl, read_lines
from .listing import STDIN, FoundFile
from .numbers import with_numbers
from .readers import Rows, ending_of, identified, reader_of

# Largest file, unpacked, that becomes one document; files of rows are streamed, and may be of any size.
MAX_BYTES = 100_000_000
# Bytes of the first line of a JSON file that are looked at.
FIRST_LINE = 1_000_000


class BinaryError(InputError):
    """A file that should be text and is not."""


@dataclass(frozen=True)
class Reading:
    """How files are read, and what the text and the id of their rows are."""

    key: str
    on: Sequence[str] | None
    passages: Passages
    lines: bool
    skip_empty: bool
    strict: bool
    max_bytes: int

    def text_of(self, row: dict[str, Any], number: int) -> str:
        """The text of a row; InputError where it has none."""
        return document_text(row, self.on, number, self.passages)


def file_document(source: FoundFile, how: Reading) -> dict[str, Any]:
    """A file as one document, its headings as Markdown has them."""
    data, given = _contents(source, how.max_bytes), ""
    if source.kind in (*PLAIN, JSON):
        text = _decoded(data)
        if source.kind == MARKDOWN:
            given, text = without_front_matter(text)
        elif source.kind == RST:
            text = with_markdown_headings(text)
    else:
        text, given = to_markdown(data, source.kind)
        if not text.strip():
            raise InputError("no text was found in it; one that was scanned needs OCR first")
    heading, text = without_title(text) if source.kind not in (CODE, JSON) else ("", text)
    title = heading or given or PurePosixPath(source.id.removesuffix(".gz")).stem
    document = {"title": title, "text": text, "path": source.shown, "kind": source.kind}
    if source.shown != STDIN:
        changed = datetime.fromtimestamp(os.stat(source.path).st_mtime, UTC)
        document["modified"] = changed.isoformat(timespec="seconds")
    return {how.key: source.id, **document}


def file_rows(source: FoundFile, how: Reading) -> Callable[[], Iterator[dict[str, Any]]] | None:
    """What reads the rows of a file, each with an id; None for a file that is one document."""
    prefix = "" if source.alone else f"{source.id}#"
    if how.lines and source.kind == TEXT:
        return lambda: ({how.key: f"{prefix}{n}", "text": line} for n, line in read_lines(source.path))
    rows: Callable[[], Rows] | None = None
    if source.kind == JSON:
        rows = _json_rows(source, how)
    elif source.kind == ROWS:
        rows = partial(reader_of(source.path), source.path)
        if ending_of(source.path) in (".csv", ".tsv"):
            rows = partial(with_numbers, rows, {how.key, "_id", *(how.on or DEFAULT_FIELDS)})
    if rows is None:
        return None
    return lambda: identified(source.path, _numbered(rows(), how.key, prefix), how.key)


def _numbered(rows: Rows, key: str, prefix: str) -> Rows:
    """Rows of which those without a field for the id get their number."""
    for number, row in rows:
        has_id = key != "id" or "id" in row or "_id" in row
        yield number, row if has_id else {"id": f"{prefix}{number}", **row}


def _json_rows(source: FoundFile, how: Reading) -> Callable[[], Rows] | None:
    """Rows of a JSON file: an object, a list of objects, or one on each line; None where the first has no text."""
    with open_lines(source.path) as (file, _):
        line = file.readline(FIRST_LINE)
    first = _parsed(line)
    if isinstance(first, dict):
        rows: Callable[[], Rows] = partial(read_jsonl, source.path)
    else:
        value = json.loads(_decoded(_contents(source, how.max_bytes)))
        objects = value if isinstance(value, list) else [value]
        if not objects or not all(isinstance(row, dict) for row in objects):
            return None
        first = objects[0]
        rows = lambda: iter(enumerate(map(dict, objects), start=1))  # noqa: E731
    try:
        how.text_of(first, 1)
    except InputError:
        return None
    return rows


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _contents(source: FoundFile, most: int) -> bytes:
    """All bytes of a file, unpacked."""
    with open_lines(source.path) as (file, _):
        is_long = source.path.suffix != ".gz" and os.stat(source.path).st_size > most
        data = b"" if is_long else file.read(most + 1)
    if is_long or len(data) > most:
        raise InputError(f"it has more than {most:,} bytes; divide it, or allow more with max_bytes=")
    return data


def _decoded(data: bytes) -> str:
    """Text of a file, with newlines alone at the ends of lines."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in data and not wide:
        raise BinaryError("it is binary, and no text")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BinaryError("it is not text in UTF-8; convert it, with iconv for example") from error
