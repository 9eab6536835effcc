"""Lines and JSON lines, read as a stream; each error names file and line."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..files import reading
from ..values import shown

MEND = "Mend or remove the file."


@dataclass
class Place:
    """How far a file was read: what an error says."""

    where: str
    number: int
    what: str = "it"

    def __str__(self) -> str:
        return f"{self.where} {self.number}: {self.what}"


@contextlib.contextmanager
def open_lines(path: Path, number: int = 0) -> Iterator[tuple[IO[bytes], Place]]:
    """Open a file or a gzip file (by its ending); the place, which the reader moves on, is after line `number`.

    Anything else, such as a pipe, is refused: it might never end.
    """
    with reading(path, error=InputError, remedy=MEND):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file; give the file itself, or a copy on disk.")
        file: Any = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115 - closed below
    place = Place(f"{path}{' is not a whole gzip file' if path.suffix == '.gz' else ''}, after line", number)
    with file, reading(place, error=InputError, remedy=MEND):
        yield file, place


def line_spans(path: Path, lines: int) -> Iterator[tuple[int, int, int]]:
    r"""Where each run of `lines` lines begins: its byte (uncompressed), its number, its length.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "three.jsonl"
    >>> _ = path.write_text('{"n": 1}\n{"n": 2}\n{"n": 3}')
    >>> list(line_spans(path, 2))
    [(0, 1, 2), (18, 3, 1)]
    >>> list(read_jsonl(path, 18, 3))
    [(3, {'n': 3})]
    """
    with open_lines(path) as (file, place):
        offset = 0
        while run := list(islice(file, lines)):
            yield offset, place.number + 1, len(run)
            offset += sum(map(len, run))
            place.number += len(run)


def read_lines(path: Path, offset: int = 0, first: int = 1, count: int | None = None) -> Iterator[tuple[int, str]]:
    """Line numbers (from 1) and lines without their ends; blank lines are left out.

    Reads `count` lines from byte `offset`, where line `first` begins. Lines end at a newline only: `str.splitlines`
    would also cut at U+2028 and others that occur inside real text.
    """
    with open_lines(path, first - 1) as (file, place):
        file.seek(offset)
        for number, raw in enumerate(islice(file, count), start=first):
            place.number = number
            line = decoded(path, number, raw).rstrip("\r\n")
            if line.strip():
                yield number, line


def decoded(path: Path, number: int, raw: bytes) -> str:
    """A line of a file as text, without the byte order mark of the first; InputError if it is not UTF-8."""
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {number}: not UTF-8 ({error.reason}); convert the file.") from error


def refuse_controls(path: Path, number: int, line: str) -> None:
    """Refuse a row of a table with a NUL, as UTF-16 has, or a carriage return, at which other programs cut it."""
    if "\0" in line or "\r" in line:
        name = "a NUL byte (is it UTF-16?)" if "\0" in line else "a carriage return within"
        raise InputError(f"{path}, line {number}: {name}. Convert the file to UTF-8 with newlines.")


def refuse_repeated(names: Sequence[str], where: str) -> None:
    """Refuse columns of one name, of which a row would keep the last."""
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise InputError(f"{where}: {names.count(double)} columns are named {double!r}; rename all but one.")


def read_jsonl(path: Path, *span: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and the object on each line; `span` as in :func:`read_lines`."""
    for number, row in read_json_lines(path, *span):
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected an object like {{...}}, found {shown(row)}.")
        yield number, row


def read_json_lines(path: Path, *span: int) -> Iterator[tuple[int, Any]]:
    """Line numbers and the value on each line, whatever it is."""
    for number, line in read_lines(path, *span):
        try:
            yield number, json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:  # also numbers of too many digits
            raise InputError(f"{path}, line {number}: not JSON ({error}): {line[:60]!r}.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ; of two that are equal, `json` would keep the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"two fields of one object are named {name!r}")
    return found
