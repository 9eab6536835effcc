"""Lines and JSON lines, read as a stream; each error names file and line."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, TypeVar

from ..errors import InputError
from ..files import reading
from ..values import shown

T = TypeVar("T", str, bytes)
MEND = "Mend or remove the file."
# Lines that are read at once.
RUN = 256


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file or a gzip file (by its ending); anything else, such as a pipe, might never end."""
    with reading(path, error=InputError, remedy=MEND):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file; give the file itself, or a copy on disk.")
        file: Any = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115 - closed below
    with file:
        yield file


def reading_lines(path: Path, number: int = 0) -> contextlib.AbstractContextManager[None]:
    """Name the file, and the line before, in whatever is thrown while lines are read."""
    where = f"{path} is not a whole gzip file" if path.suffix == ".gz" else f"{path}"
    return reading(f"{where}, after line {number}: it", error=InputError, remedy=MEND)


def runs(path: Path, file: Iterable[T], lines: int, count: int | None = None, number: int = 0) -> Iterator[list[T]]:
    """Runs of lines of an open file, `count` in all, after line `number`; what reading throws names the file."""
    source = islice(file, count)
    while True:
        with reading_lines(path, number):
            run = list(islice(source, lines))
        if not run:
            return
        number += len(run)
        yield run


def line_spans(path: Path, lines: int) -> Iterator[tuple[int, int, int]]:
    r"""Where each run of `lines` lines begins: its byte (uncompressed), its number, its length.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "three.jsonl"
    >>> _ = path.write_text('{"n": 1}\n{"n": 2}\n{"n": 3}')
    >>> list(line_spans(path, 2))
    [(0, 1, 2), (18, 3, 1)]
    >>> list(read_jsonl(path, offset=18, first=3))
    [(3, {'n': 3})]
    """
    with open_bytes(path) as file:
        offset, number = 0, 1
        for run in runs(path, file, lines):
            yield offset, number, len(run)
            offset += sum(map(len, run))
            number += len(run)


def read_lines(path: Path, offset: int = 0, first: int = 1, count: int | None = None) -> Iterator[tuple[int, str]]:
    """Line numbers (from 1) and lines without their ends; blank lines are left out.

    Reads `count` lines from byte `offset`, where line `first` begins. Lines end at a newline only: `str.splitlines`
    would also cut at U+2028 and others that occur inside real text.
    """
    with open_bytes(path) as file:
        with reading_lines(path, first - 1):
            file.seek(offset)
        raw_lines = chain.from_iterable(runs(path, file, RUN, count, first - 1))
        for number, raw in enumerate(raw_lines, start=first):
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


def read_jsonl(
    path: Path, offset: int = 0, first: int = 1, count: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and the object on each line; `offset`, `first` and `count` as in :func:`read_lines`."""
    for number, row in read_json_lines(path, offset, first, count):
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected an object like {{...}}, found {shown(row)}.")
        yield number, row


def read_json_lines(path: Path, offset: int = 0, first: int = 1, count: int | None = None) -> Iterator[tuple[int, Any]]:
    """Line numbers and the value on each line, whatever it is; otherwise as :func:`read_jsonl`."""
    for number, line in read_lines(path, offset, first, count):
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
