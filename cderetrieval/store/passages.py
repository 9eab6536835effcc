"""The spans of documents that were cut into passages; one row for each such document.

A document of n spans has n numbers, from its own on, and each may have a vector; so the document of a number is the
last one at or below it. The setting ``cut`` holds the number of rows and the exclusive-or of the checksums of their
counts: the counts are read at every change, and their spans are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..splitting import Span
from ..vectors import spans
from .codec import Damage, checksum
from .database import Database
from .schema import PASSAGES, SCHEMA_VERSION

# Gives the spans of a document, from its text and payload; none where it is one passage.
SpansOf = Callable[[str, Mapping[str, Any]], Sequence[Span]]
# Placeholders in one IN (...); SQLite before 3.32 allows 999.
LOOKUP = 500


class SpanTable(Database):
    """Numbers and spans of passages; :class:`~.documents.Documents` adds the documents."""

    def cut(self, after_seq: int = 0, before: Sequence[int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the documents that were cut, ascending, and how many spans each has, both of shape (n,), int64.

        Above a number alone, where `before` is the state of all that is not above it.
        """
        with self.snapshot():
            expected = self.cut_state()
            rows: list[Any] = []
            if expected[0]:
                rows = self._execute("SELECT seq, count FROM passages WHERE seq > ? ORDER BY seq", (after_seq,))
        with self._decoding():
            if _included(before, rows, 1) != expected:
                raise Damage("the counts of passages do not match their checksum")
        return self._counts(rows)

    def numbers(self, seqs: np.ndarray, after_seq: int = 0, before: Sequence[int] = (0, 0)) -> np.ndarray:
        """Numbers of all passages of documents, `seqs`; these are all there are, or all above a number, see `cut`."""
        cut, counts = self.cut(after_seq, before)
        if not len(cut):
            return seqs
        rows = np.searchsorted(seqs, cut)
        each = np.ones(len(seqs), dtype=np.int64)
        with self._decoding():
            if rows[-1] == len(seqs) or (seqs[rows] != cut).any():
                raise Damage("it holds passages of no document")
            each[rows] = counts
            if (each[:-1] > np.diff(seqs)).any():
                raise Damage("two documents have passages of one number")
        return spans(seqs, each)

    def spans_of(self, seqs: Sequence[int] | np.ndarray) -> dict[int, list[Span]]:
        """The spans of those of the documents that were cut, by number."""
        found: dict[int, list[Span]] = {}
        if self.cut_state()[0]:
            rows = self._select("seq, count, spans, checksum FROM passages WHERE seq", np.asarray(seqs).tolist())
            with self._decoding():
                found = {seq: _decoded(seq, count, text, total) for seq, count, text, total in rows}
        return found

    def _select(self, what: str, among: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Rows of a SELECT whose last column is one of these values."""
        chunks = slices(among)
        return [row for chunk in chunks for row in self._execute(f"SELECT {what} IN ({_marks(chunk)})", chunk)]

    def _put_spans(self, rows: Sequence[tuple[int, int, str, int]]) -> None:
        if not rows:
            return
        self._raise_version(SCHEMA_VERSION)
        self._execute_many("INSERT INTO passages VALUES (?, ?, ?, ?)", rows)
        self._set("cut", _included(self.cut_state(), rows, 1))

    def _delete_spans(self, seqs: Sequence[int]) -> list[int]:
        """Drop the spans of documents; the numbers of all their passages."""
        state, numbers = self.cut_state(), list(seqs)
        if not state[0]:
            return numbers
        for chunk in slices(seqs):
            rows = self._execute(f"DELETE FROM passages WHERE seq IN ({_marks(chunk)}) RETURNING seq, count", chunk)
            state = _included(state, rows, -1)
            first, counts = self._counts(rows)
            numbers += spans(first + 1, counts - 1).tolist()
        self._set("cut", state)
        return numbers

    def _are_passages(self, numbers: Sequence[int]) -> bool:
        """Whether these numbers, ascending, are those of passages."""
        seqs, counts = self._cut_between(numbers[0], numbers[-1])
        owners = np.searchsorted(seqs, numbers, side="right") - 1
        return bool(len(seqs) and (owners >= 0).all() and (numbers < (seqs + counts)[owners]).all())

    def _cut_between(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        if not self.cut_state()[0]:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        begin = "SELECT COALESCE(MAX(seq), 0) FROM passages WHERE seq <= ?"
        statement = f"SELECT seq, count FROM passages WHERE seq BETWEEN ({begin}) AND ? ORDER BY seq"
        return self._counts(self._execute(statement, (first, last)))

    def _counts(self, rows: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of documents and how many passages each has, from their rows; no more than numbers were given."""
        with self._decoding():
            seqs, counts = np.array(rows, dtype=np.int64).reshape(-1, 2).T
            if (counts < 1).any() or (counts > self.get_setting("next_seq", 1) - seqs).any():
                raise Damage("a document has a number of passages that cannot be")
        return seqs, counts

    def _raise_version(self, wanted: int) -> None:
        """Give the file a later version, where what it is to hold takes that."""
        ((version,),) = self._execute("PRAGMA user_version")
        if wanted == SCHEMA_VERSION > version:
            self._execute(PASSAGES)
            self._set("tables", int(self.get_setting("tables", 1)))
        if wanted > version:
            self._execute(f"PRAGMA user_version = {wanted}")

    def cut_state(self) -> list[int]:
        """Number of documents that were cut, and a checksum of their counts."""
        with self._decoding():
            rows, total = self.get_setting("cut", [0, 0])
            return [int(rows), int(total)]


def encode_spans(seq: int, found: Sequence[Span]) -> tuple[int, int, str, int]:
    """The row of a document."""
    text = json.dumps([span if span.head else span[:3] for span in found], separators=(",", ":"))
    return seq, len(found), text, checksum(f"{len(found)}:{text}", seq)


def _decoded(seq: int, count: int, text: str, expected: int) -> list[Span]:
    if checksum(f"{count}:{text}", seq) != expected:
        raise Damage(f"the passages of document {seq} do not match their checksum")
    found = [Span(*one) for one in json.loads(text)]
    if not all(type(a) is type(b) is int and 0 <= a <= b and isinstance(heading, str) for a, b, heading, _ in found):
        raise Damage(f"document {seq} has a passage that cannot be")
    if len(found) != count:
        raise Damage(f"document {seq} has {len(found)} passages, not {count}")
    return found


def _included(state: Sequence[int], rows: Iterable[tuple[Any, ...]], sign: int) -> list[int]:
    """The state with rows (seq, count, ...) taken in (``sign=1``) or out (-1)."""
    number, total = state
    for seq, count, *_ in rows:
        number += sign
        total ^= checksum(str(count), seq)
    return [number, total]


def slices(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Portions for one IN (...)."""
    for start in range(0, len(values), LOOKUP):
        yield values[start : start + LOOKUP]


def _marks(values: Sequence[Any]) -> str:
    """As many question marks."""
    return ",".join("?" * len(values))
