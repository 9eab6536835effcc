"""A corpus cut into blocks that can be read alone: by another process, on another machine, again after a crash.

A block is a run of lines of a file, found by its first byte, or a run of rows of a Parquet file. Cutting reads lines
but does not parse them. Within a gzip file a block is found by decompressing what stands before it (about 300 MB/s), so
many files of moderate size are better than one that is huge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import as_path
from .jsonl import line_spans
from .readers import ending_of, parquet_rows, plain_or_gz, read_span

LINES = (".jsonl", ".ndjson", ".txt")
PARQUET = ".parquet"


@dataclass(frozen=True)
class Block:
    """Some documents of a corpus."""

    path: str
    start: int
    first: int
    rows: int

    def __str__(self) -> str:
        what = "rows" if self.path.endswith(PARQUET) else "lines"
        return f"{self.path}, {what} {self.first} to {self.first + self.rows - 1}"


def corpus_files(paths: Sequence[str | Path]) -> list[Path]:
    """Files of a corpus: those named, and of a folder its ``corpus.jsonl`` (BEIR) or all JSONL and Parquet files."""
    files: list[Path] = []
    for path in map(as_path, paths):
        found = [path]
        if path.is_dir():
            beir = plain_or_gz(path / "corpus.jsonl")
            inside = (file for file in path.iterdir() if ending_of(file) in (*LINES[:2], PARQUET))
            found = [beir] if beir.exists() else sorted(inside)
        elif not path.exists():
            raise InputError(f"{path} does not exist.")
        if not found:
            raise InputError(f"{path} holds no .jsonl or .parquet file, compressed or not.")
        files += map(_fit, found)
    if len(set(files)) < len(files):
        double = next(file for file in files if files.count(file) > 1)
        raise InputError(f"{double} was given twice; give each file once.")
    return files


def cut(path: Path, rows: int) -> Iterator[Block]:
    """Blocks of a file, each of `rows` lines or rows but for the last."""
    if ending_of(path) == PARQUET:
        total = parquet_rows(path)
        for start in range(0, total, rows):
            yield Block(str(path), start, start + 1, min(rows, total - start))
    else:
        for offset, number, lines in line_spans(path, rows):
            yield Block(str(path), offset, number, lines)


def read_block(block: Block, key: str = "id") -> Iterator[dict[str, Any]]:
    """Documents of a block, as :func:`~cderetrieval.corpora.readers.read_documents` gives those of a file."""
    path = _fit(Path(block.path))
    if not path.exists():
        raise InputError(f"{path} does not exist, or not on this machine: every worker must see the corpus.")
    return read_span(path, key, block.start, block.first, block.rows)


def _fit(file: Path) -> Path:
    """The file, if it can be read in blocks."""
    if ending_of(file) not in (*LINES, PARQUET):
        raise InputError(
            f"{file}: a corpus that is read in blocks is JSONL, Parquet or plain text, not {file.suffix!r}. "
            "Convert it first."
        )
    return file
