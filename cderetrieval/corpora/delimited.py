"""CSV and TSV, in which a stray quote must not swallow the lines after it.

A quoted field may run over several lines, and so does a quote that nobody closed, up to the next one. They are told
apart by the lines within: swallowed lines are rows by themselves. In CSV that is an error that names the line. TSV has
no quotes by definition, so there stray quotes stand for themselves, except in a field quoted from end to end.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .jsonl import Place, decoded, open_lines, refuse_controls, refuse_repeated

Line = tuple[int, str]
# A quoted field of a TSV that runs over more lines is taken for a stray quote.
LONGEST = 1_000
# Share of the lines within a quoted field that are rows by themselves, from which on it is taken for a stray quote.
STRAY = 0.9
QUOTED = re.compile(r'"((?:[^"]|"")*)"')


def read_delimited(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers of the last lines of rows, and rows by the names in the first line."""
    # Python's limit of 131,072 characters is for a field; documents are longer
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    names: list[str] | None = None
    with open_lines(path) as (file, place):
        for number, fields in _records(path, _lines(path, file, place), delimiter):
            if names is None:
                names = fields
                refuse_repeated(names, f"{path}, line 1")
            elif len(fields) != len(names):
                raise InputError(f"{path}, line {number}: {len(fields)} columns, the header has {len(names)}.")
            else:
                yield number, dict(zip(names, fields, strict=True))


def _lines(path: Path, file: Any, place: Place) -> Iterator[Line]:
    """Lines with their ends and numbers; a carriage return alone ends one too."""
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    for number, line in enumerate(text, start=1):
        place.number = number
        if "\0" in line:
            refuse_controls(path, number, line)
        yield number, line if line.isascii() else decoded(path, number, line.encode("utf-8", "surrogateescape"))


def _records(path: Path, lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the last line, and fields, of each record."""
    columns = 0
    lines = again = _Again(lines)
    for line in lines:
        if not line[1].strip("\r\n"):
            continue
        taken, fields, reason = _record(line, lines, delimiter)
        if reason or (len(taken) > 1 and _swallowed(taken, columns, fields, delimiter)):
            if delimiter != "\t":
                raise InputError(_stray(path, taken, reason))
            again.put_back(taken[1:])
            fields, taken = _literal(line[1]), taken[:1]
        columns = columns or len(fields)
        yield taken[-1][0], fields


class _Again(Iterator[Line]):
    """Lines, preceded by those that were put back."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._back: list[Line] = []

    def __next__(self) -> Line:
        return self._back.pop() if self._back else next(self._lines)

    def put_back(self, lines: Sequence[Line]) -> None:
        self._back += reversed(lines)


def _record(first: Line, lines: Iterator[Line], delimiter: str) -> tuple[list[Line], list[str], str]:
    """The lines of a record, its fields, and what is wrong with it."""
    if '"' not in first[1]:  # as nearly all are, and much faster
        return [first], first[1].rstrip("\r\n").split(delimiter), ""
    taken = [first]

    def more() -> Iterator[str]:
        yield first[1]
        for line in lines:
            taken.append(line)
            yield line[1]
            if delimiter == "\t" and len(taken) > LONGEST:
                return

    try:
        return taken, next(csv.reader(more(), delimiter=delimiter, strict=True), []), ""
    except csv.Error as error:
        return taken, [], str(error)


def _swallowed(taken: list[Line], columns: int, fields: list[str], delimiter: str) -> bool:
    """Whether the lines of a record are rows by themselves, and not text that goes on; no columns: it is the header."""
    opening, *inner = (_columns(line, delimiter) for _, line in taken)
    is_header = columns == 0
    columns = columns or len(fields)
    if columns < 2:
        return False
    if delimiter == "\t":  # which prose does not hold
        alone = [len(fields) == columns for fields in inner]
    elif is_header:
        alone = [len(fields) == columns and _is_row(fields, fields) for fields in inner]
    else:
        alone = [_is_row(fields, opening) for fields in inner if _is_row(opening, opening)]
    return len(opening) == columns and alone != [] and sum(alone) >= STRAY * len(alone)


def _columns(line: str, delimiter: str) -> list[str]:
    """Fields of a line in which a quote that does not close stands for itself."""
    return QUOTED.sub("quoted", line.rstrip("\r\n")).split(delimiter)


def _is_row(fields: list[str], other: list[str]) -> bool:
    """Whether fields are a row as `other` is; prose has spaces after commas, and words where others have numbers."""
    first, own = fields[0].strip(), other[0].strip()
    alike = first.isdigit() == own.isdigit() and bool(re.search(r"\s", first)) <= bool(re.search(r"\s", own))
    return len(fields) == len(other) and first != "" and alike and not any(field[:1] == " " for field in fields[1:])


def _literal(line: str) -> list[str]:
    fields = line.rstrip("\r\n").split("\t")
    whole = (QUOTED.fullmatch(field) for field in fields)
    return [match[1].replace('""', '"') if match else field for match, field in zip(whole, fields, strict=True)]


def _stray(path: Path, taken: list[Line], reason: str) -> str:
    first, last = taken[0][0], taken[-1][0]
    if reason:
        what = f"{path}, after line {max(1, last - 1)}: {reason}, in the row that begins in line {first}"
    else:
        what = f"{path}, line {first}: a quote opens here and swallows {last - first} lines that are rows by themselves"
    return (
        f'{what}. Where a quote belongs to the text, write it twice and put the field into quotes: "5"" disk". Where '
        "the lines are one text, give the documents as JSON lines."
    )
