"""JSON lines, read as a stream; each error names file and line."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ..errors import InputError


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file or a gzip file (by its ending) for reading."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            yield file  # type: ignore[misc]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}).") from error


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
        while run := list(islice(file, lines)):
            yield offset, number, len(run)
            offset += sum(map(len, run))
            number += len(run)


def read_lines(path: Path, offset: int = 0, first: int = 1, count: int | None = None) -> Iterator[tuple[int, str]]:
    """Line numbers (from 1) and lines, without their ends; blank lines are left out.

    Lines end at a newline only. `str.splitlines` would also cut at U+2028 and others that occur inside real text.

    Parameters
    ----------
    path
        The file.
    offset, first, count
        Start at this byte, which is where line `first` begins, and read `count` lines; all of the file by default.
    """
    with open_bytes(path) as file:
        file.seek(offset)
        for number, raw in enumerate(islice(file, count), start=first):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not UTF-8 ({error.reason}); convert the file.") from error
            if line.strip():
                yield number, line


def read_jsonl(
    path: Path, offset: int = 0, first: int = 1, count: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and the object on each line; `offset`, `first` and `count` as in :func:`read_lines`.

    Raises
    ------
    InputError
        If a line is no JSON object.
    """
    for number, line in read_lines(path, offset, first, count):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}): {line[:60]!r}.") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected an object like {{...}}, found {line[:60]!r}.")
        yield number, row
