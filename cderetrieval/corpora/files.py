"""Documents from whatever files a user has: a file is a document, a file of rows is many, a folder is all of its files.

A file is read when its turn comes, and held alone. One that cannot be read is named in a warning and skipped; of a
file of rows, all rows are checked before the first is handed on, so that it is taken as a whole or not at all.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypedDict

from ..documents import each_row
from ..errors import CDEError, InputError, MissingDependencyError
from ..files import reading
from ..passages import Passages, PassagesLike
from ..values import shown
from .file_kinds import endings
from .jsonl import MEND
from .listing import FoundFile, Listing, list_files
from .one_file import MAX_BYTES, BinaryError, Reading, file_document, file_rows
from .readers import ending_of

logger = logging.getLogger(__name__)

# What `paths` takes.
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class FileOptions(TypedDict, total=False):
    """What may be said of how files are read."""

    lines: bool
    stdin_as: str | None
    skip_empty: bool
    strict: bool
    max_bytes: int


class Files(Iterable[dict[str, Any]]):
    """Documents of files, each read when its turn comes; after an iteration, what was read and what was not.

    Attributes
    ----------
    documents
        Number of documents.
    read
        Number of files that were read, by kind.
    skipped
        Why a file could not be read, by its path.
    left_out
        Number of other files: by ending, ``"empty"``, ``"links"``; and of ``"rows without text"``.
    """

    def __init__(self, listing: Listing, how: Reading) -> None:
        self._listing, self._how = listing, how
        self._clear()

    def _clear(self) -> None:
        self.documents = 0
        self.read: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.left_out = Counter(self._listing.left_out)
        # Where each id was found.
        self._taken: dict[str, str] = {}
        self._lacking: set[str] = set()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._clear()
        for folder, reason in self._listing.unreadable.items():
            self._skip(folder, InputError(reason))
        for source in self._listing.sources:
            before = self.documents
            with reading(source.shown, error=InputError, remedy=MEND):  # rows are read again, and may have changed
                for document in self._found(source):
                    self.documents += 1
                    yield document
            self.read[source.kind] += self.documents > before
        logger.info("%s", self)
        if not self.documents:
            rest = self._rest() or ["there is no file"]
            known = "" if self.skipped else f" Files that are read: {endings()}."
            raise InputError(f"no document was found: {'; '.join(rest)}.{known}")

    def __repr__(self) -> str:
        files = self.read.total()
        read = f"{self.documents:,} document{'s' * (self.documents != 1)} from {files:,} file{'s' * (files != 1)}"
        return "; ".join([read + _counted(" ({})", self.read), *self._rest()])

    def _rest(self) -> list[str]:
        """What was skipped and left out, in words."""
        parts = [_counted("left out: {}", self.left_out)]
        if self.skipped:
            first = next(iter(self.skipped.values())).rstrip(".")
            parts.insert(0, f"{len(self.skipped):,} skipped ({first}{'; ...' if len(self.skipped) > 1 else ''})")
        return [part for part in parts if part]

    def _found(self, source: FoundFile) -> Iterable[dict[str, Any]]:
        """The documents of a file; none where it cannot be read."""
        try:
            with reading(source.shown, error=InputError, remedy=MEND):
                return self._documents(source)
        except BinaryError as error:
            if ending_of(source.path):
                self._skip(source.shown, error)
            else:  # a program
                self.left_out["without an ending"] += 1
        except CDEError as error:
            self._skip(source.shown, error)
        return ()

    def _skip(self, path: str, error: CDEError) -> None:
        reason = str(error)
        self.skipped[path] = reason if path in reason else f"{path}: {reason}"
        if self._how.strict:
            raise type(error)(self.skipped[path]) from error
        lacking = isinstance(error, MissingDependencyError)  # said once, not for each file that needs it
        if not lacking or reason not in self._lacking:
            logger.warning("skipped: %s", self.skipped[path])
        if lacking:
            self._lacking.add(reason)

    def _documents(self, source: FoundFile) -> Iterable[dict[str, Any]]:
        rows = file_rows(source, self._how)
        if rows is None:
            document = file_document(source, self._how)
            if document["text"].strip():
                self._take({repr(document[self._how.key]): 0}, source)
                return [document]
            self.left_out["empty"] += 1
            return ()
        how, own, empty = self._how, dict[str, int](), 0
        for number, (identity, text, _) in enumerate(each_row(rows(), how.key, how.on, passages=how.passages)):
            if not text.strip() and not how.skip_empty:
                raise InputError(f"row {number} (id {shown(identity)}) has no text; skip_empty=True leaves it out")
            if own.setdefault(repr(identity), number) != number:
                raise InputError(f"rows {own[repr(identity)]} and {number} have the id {shown(identity)}")
            empty += not text.strip()
        self._take(own, source)
        self.left_out["empty"] += not own
        self.left_out["rows without text"] += empty
        return (row for number, row in enumerate(rows()) if not empty or how.text_of(row, number).strip())

    def _take(self, ids: Iterable[str], source: FoundFile) -> None:
        """Note ids; an error if one was taken by another file."""
        for name in ids:
            if name in self._taken:
                raise InputError(f"its id {name} is also one of {self._taken[name]}; name another field with key=")
        if len(self._listing.sources) > 1:
            self._taken |= dict.fromkeys(ids, source.shown)


def _counted(form: str, counts: Counter[str]) -> str:
    counted = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()) if count)
    return form.format(counted) if counted else ""


def read_files(
    paths: Paths,
    *,
    key: str = "id",
    on: str | Sequence[str] | None = None,
    passages: PassagesLike | Passages = None,
    lines: bool = False,
    stdin_as: str | None = None,
    skip_empty: bool = False,
    strict: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Files:
    r"""Read documents from files, folders, globs and standard input, each when its turn comes.

    Markdown, reStructuredText, text, HTML, PDF, DOCX, notebooks, JSON and source code become one document each:
    ``id`` (the path below the folder that was named, or the path of a file that was named itself), ``title`` (the
    heading that all others stand under, else the title of the page, else the name of the file), ``text`` (Markdown,
    so that headings are found), ``path``, ``kind`` and ``modified``. JSONL, CSV, TSV, Parquet, a JSON object or list
    with texts, and a BEIR folder hold a document in each row, with fields and ids of their own; rows that have no
    ``id`` get their number. HTML, PDF, DOCX and notebooks need the extra ``files``.

    Parameters
    ----------
    paths
        One or several files, folders or globs; ``"-"`` is standard input.
    key
        Field of the id, of files as of rows.
    on
        Field or fields of the text of rows; None: ``title``, where there is one, and ``text``. Other columns of a CSV
        become numbers where they hold nothing else.
    passages
        As for a retriever, where rows hold lists of passages.
    lines
        Read a document from each line of plain text.
    stdin_as
        Ending that standard input would have as a file, ``".csv"`` for example; None: as it begins.
    skip_empty
        Leave out rows with an empty text; else a file with such a row is skipped.
    strict
        Raise an error for a file that cannot be read; else it is named in a warning and skipped.
    max_bytes
        Largest file that may become one document.

    Returns
    -------
    Files
        An iterable of the documents, in the order of the paths and, within a folder, of the ids.

    Raises
    ------
    InputError
        If a path leads nowhere or two files would have one id; while iterating, if no document is found.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "owls.md").write_text("# Owls\n\nThey hunt at night.\n")
    >>> files = read_files(folder)
    >>> [(row["id"], row["title"], row["text"], row["kind"]) for row in files]
    [('owls.md', 'Owls', 'They hunt at night.\n', 'markdown')]
    >>> files
    1 document from 1 file (1 markdown)
    """
    named = list(paths) if isinstance(paths, Iterable) and not isinstance(paths, str | bytes | os.PathLike) else [paths]
    wrong = next((path for path in named if not isinstance(path, str | os.PathLike)), None)
    if wrong is not None or None in named:
        raise InputError(f"{shown(wrong)} is no path; name files or folders as text or as paths.")
    if not named or "" in named:
        raise InputError("no path was given; name files or folders.")
    if not isinstance(max_bytes, int) or max_bytes < 1:
        raise InputError(f"max_bytes={max_bytes!r} must be a whole number of at least 1.")
    fields = [on] if isinstance(on, str) else on
    cut = Passages.parse(passages)
    how = Reading(key, fields, cut, lines, skip_empty, strict, max_bytes)
    return Files(list_files(named, ".txt" if lines and stdin_as is None else stdin_as), how)
