"""Which files are meant: files, folders, globs and standard input, as a list in a fixed order.

A folder is walked without following a link. Left out are hidden files and folders, what programs keep for themselves
(``node_modules``, ``__pycache__``, virtual environments, indexes of this package), and kinds that are not read.
"""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ..errors import InputError
from ..files import as_path
from .file_kinds import ROWS, ending_of_bytes, kind_of
from .readers import plain_or_gz

STDIN = "-"
_LEFT_OUT = frozenset({"node_modules", "__pycache__"})
# A folder that holds one of these is a virtual environment, or an index.
_MARKS = frozenset({"pyvenv.cfg", "conda-meta", "store.sqlite"})


@dataclass(frozen=True)
class FoundFile:
    """A file: where it is, the id of its document, and how the user would name it."""

    path: Path
    id: str
    shown: str
    kind: str
    # Whether no other file was named: then its rows need no name of a file in their ids.
    alone: bool = False


@dataclass
class Listing:
    """The files that were found, those of other kinds, by ending, and the folders that cannot be read."""

    sources: list[FoundFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, str] = field(default_factory=dict)
    # Holds a copy of standard input for as long as it may be read.
    spool: tempfile.TemporaryDirectory[str] | None = None


def list_files(paths: Iterable[str | os.PathLike[str]], stdin_as: str | None) -> Listing:
    """The files that `paths` name; an error where a path leads nowhere, or two files would have one id."""
    listing = Listing()
    named = [found for path in paths for found in _expanded(path)]
    for path in dict.fromkeys(named):
        if str(path) == STDIN:
            listing.sources.append(_standard_input(listing, stdin_as))
        elif os.path.isdir(path):
            listing.sources += _beir(path) or sorted(_walk(path, listing), key=lambda source: source.id)
        elif kind := kind_of(path):
            listing.sources.append(FoundFile(path, _name(path), _name(path), kind))
        else:
            listing.left_out[_ending(path)] += 1
    if len(named) == 1 and not os.path.isdir(named[0]):
        listing.sources = [FoundFile(**{**vars(source), "alone": True}) for source in listing.sources]
    different: dict[str, FoundFile] = {}
    for source in listing.sources:
        different.setdefault(os.path.abspath(source.path), source)
    listing.sources = list(different.values())
    first: dict[str, FoundFile] = {}
    for source in listing.sources:
        if first.setdefault(source.id, source) is not source:
            raise InputError(
                f"{first[source.id].shown} and {source.shown} would both have the id {source.id!r}, their path below "
                "the folder that was named. Name a folder above both."
            )
    return listing


def _expanded(path: str | os.PathLike[str]) -> list[Path]:
    """What a user's path names: itself, or what matches it as a glob."""
    given = as_path(path)
    if str(given) == STDIN or os.path.exists(given):
        return [given]
    if not glob.has_magic(str(given)):
        raise InputError(f"{given} does not exist.")
    found = sorted(set(map(Path, _matching(str(given)))))
    if not found:
        raise InputError(f"{given} matches no file.")
    return found


def _matching(pattern: str) -> Iterator[str]:
    """What matches a glob. As in a shell, ``**`` goes into no link: a circle of them would have no end."""
    before, deep, after = pattern.partition("**")
    if not deep or (before and not before.endswith(os.sep)) or (after and not after.startswith(os.sep)):
        yield from glob.glob(pattern)
        return
    for root in glob.glob(before) if before else [os.curdir]:
        if not after.strip(os.sep):
            yield root
            continue
        for folder, folders, _ in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _matching(glob.escape(folder.rstrip(os.sep)) + after)


def _beir(folder: Path) -> list[FoundFile]:
    """The corpus of a BEIR folder, of which nothing else holds documents."""
    corpus = plain_or_gz(folder / "corpus.jsonl")
    if not corpus.is_file() or not ((folder / "qrels").is_dir() or plain_or_gz(folder / "queries.jsonl").is_file()):
        return []
    return [FoundFile(corpus, corpus.name, _name(corpus), ROWS)]


def _walk(root: Path, listing: Listing) -> Iterator[FoundFile]:
    """The files below a folder, in no order."""

    def unreadable(error: OSError) -> None:
        listing.unreadable[_name(Path(error.filename))] = f"cannot be read ({error.strerror})"

    for folder, folders, names in os.walk(root, onerror=unreadable):
        if folder != str(root) and not _MARKS.isdisjoint([*folders, *names]):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _LEFT_OUT]
        listing.left_out["links"] += sum(os.path.islink(os.path.join(folder, name)) for name in folders)
        for path in (Path(folder, name) for name in names if not name.startswith(".")):
            kind = kind_of(path)
            if path.is_symlink():
                listing.left_out["links"] += 1
            elif kind is None or not path.is_file():
                listing.left_out[_ending(path)] += 1
            else:
                yield FoundFile(path, _name(path.relative_to(root)), _name(path), kind)


def _standard_input(listing: Listing, ending: str | None) -> FoundFile:
    """A copy of standard input on disk, which is what all readers take."""
    if sys.stdin is None:
        raise InputError("standard input is closed; name a file.")
    listing.spool = tempfile.TemporaryDirectory(prefix="cderetrieval-")
    head = sys.stdin.buffer.read(4096)
    ending = ending_of_bytes(head) if ending is None else "." + ending.lstrip(".")
    path = Path(listing.spool.name, f"stdin{ending}")
    if (kind := kind_of(path)) is None:
        raise InputError(f"standard input cannot be read as {ending!r}; use .md, .html, .pdf, .jsonl or .csv, say.")
    with open(path, "wb") as file:
        file.write(head)
        shutil.copyfileobj(sys.stdin.buffer, file)
    return FoundFile(path, "stdin", STDIN, kind)


def _name(path: PurePath) -> str:
    """A path as text that can be stored, whatever bytes it has."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _ending(path: Path) -> str:
    return path.suffix.lower() or "without an ending"
