"""Documents of the store: put, remove, look up, read back.

Every document has a number, its ``seq``, given in order of insertion and never given again; a replaced document gets a
new one. So an index needs only vectors and numbers, and "what is new" is "what is above the last number I hold". Rows
are written and read in chunks: no corpus is ever held in memory. The setting ``live`` holds the number of rows and the
exclusive-or of all their id checksums and numbers, so that reading every id from the id index alone, which never
touches the texts, is fast (100,000 in 0.15 s) and still notices a row that was lost or altered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from ..documents import Row
from ..errors import InputError, StoreError
from ..splitting import Span
from .codec import Damage, checksum, decode, decode_ids, encode_id, encode_json, encode_text
from .passages import LOOKUP, SpansOf, SpanTable, encode_spans
from .schema import vector_table

TEXTS = 1_024
# Two halves of a character, side by side: Python keeps both, and JSON joins them.
PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# Pending texts are read so many at a time, and given out at the latest when they have so many characters together.
STEP, CHARACTERS = 64, 2**24


class Taking(Protocol):
    """A change, which its own source of documents must not make another part of."""

    taking: bool


class Documents(SpanTable):
    """The documents of a store; :class:`~cderetrieval.store.sqlite.Store` adds vectors and contexts."""

    def put_documents(self, rows: Iterable[Row], cut: SpansOf | None = None) -> tuple[int, int]:
        """Insert documents, or replace those of the same ids; the first number, and how many.

        `cut` gives the spans of a document; one that has some takes as many numbers.
        """
        with self.transaction():
            first = seq = self._number("next_seq", 1)
            live = self._live()
            source = self.taken(rows)
            position = 0
            while chunk := list(islice(source, LOOKUP)):
                encoded, passages = [], []
                for row in chunk:
                    encoded.append(_encode(row, seq, position))
                    spans = [] if cut is None else _spans(cut, _kept(row, encoded[-1]), position)
                    if spans:
                        passages.append(encode_spans(seq, spans))
                    seq, position = seq + max(1, len(spans)), position + 1
                self._replace(encoded, first, position - len(encoded), live)
                self._execute_many("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", encoded)
                self._put_spans(passages)
                live.include(((row[0], row[1]) for row in encoded), 1)
            if seq > first:
                self._set("next_seq", seq)
                self._set("live", live.values())
        return first, position

    def put_fields(self, row: Row) -> None:
        """Replace the payload of a document that is there; its text, number, passages and vectors stay.

        Inside a transaction, and also between documents that are being put.
        """
        (seq,) = self._find([encode_id(row[0])]).values()
        payload = encode_json(row[2])
        changed = (payload, checksum(payload, seq), seq)
        self._execute_many("UPDATE documents SET payload = ?, payload_checksum = ? WHERE seq = ?", [changed])

    def taken(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows; while the caller's iterable is asked for the next one, it must not change this store."""
        use = self._current()
        assert use is not None
        return taken(rows, use)

    def remove(self, ids: Iterable[Hashable]) -> int:
        """Remove documents and their vectors."""
        texts = list(dict.fromkeys(encode_id(document_id) for document_id in ids))
        with self.transaction():
            live = self._live()
            found = self._find(texts)
            if found:
                self._delete(found, live)
                self._set("live", live.values())
        return len(texts) - len(found)

    def count(self) -> int:
        """Number of documents."""
        return self._live().count

    def lookup(self, ids: Sequence[Hashable]) -> list[tuple[str, dict[str, Any]] | None]:
        """Text and payload of each of the documents; None for one that is not there."""
        texts = [encode_id(document_id) for document_id in ids]
        columns = "id, seq, text, text_checksum, payload, payload_checksum"
        rows = self._select(f"{columns} FROM documents WHERE id", list(dict.fromkeys(texts)))
        with self._decoding():
            found = {i: (decode(text, one, seq), decode(more, two, seq)) for i, seq, text, one, more, two in rows}
        return [found.get(text) for text in texts]

    def __contains__(self, document_id: Hashable) -> bool:
        return bool(self._find([encode_id(document_id)]))

    def seqs_of(self, ids: Sequence[Hashable]) -> np.ndarray:
        """Numbers of documents, shape (n,), int64; -1 where an id is not there."""
        texts = [encode_id(document_id) for document_id in ids]
        found = self._find(list(dict.fromkeys(texts)))
        return np.array([found.get(text, -1) for text in texts], dtype=np.int64)

    def missing(self, ids: Sequence[Hashable]) -> list[Hashable]:
        """Those of the ids that are not there."""
        return [document_id for document_id, seq in zip(ids, self.seqs_of(ids).tolist(), strict=True) if seq < 0]

    def live(self) -> tuple[np.ndarray, list[Hashable]]:
        """Numbers, shape (n,), int64, ascending, and ids of all documents."""
        with self.snapshot():
            live = self._live()
            rows = self._execute("SELECT seq, id FROM documents INDEXED BY documents_id")
        with self._decoding():
            live.include(rows, -1)
            if live.values() != [0, 0, 0]:
                raise Damage("the ids do not match their checksum")
            rows.sort()
            seqs = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
            return seqs, decode_ids([row[1] for row in rows])

    def state(self) -> list[int]:
        """Count and checksums of all documents: equal states hold the same numbers and ids."""
        return self._live().values()

    def added(self, since: Sequence[int], after_seq: int) -> tuple[np.ndarray, list[Hashable]] | None:
        """Numbers and ids of the documents above a number, if nothing else has changed; `None` if something has."""
        with self.snapshot():
            live = self._live()
            rows = self._execute("SELECT seq, id FROM documents WHERE seq > ? ORDER BY seq", (after_seq,))
        with self._decoding():
            live.include(rows, -1)
            if live.values() != list(since):
                return None
            return np.array([seq for seq, _ in rows], dtype=np.int64), decode_ids([text for _, text in rows])

    def live_seqs(self) -> np.ndarray:
        """Numbers of all documents, ascending, shape (n,), int64; half the time of `live`."""
        with self.snapshot():
            live = self._live()
            rows = self._execute("SELECT seq FROM documents INDEXED BY documents_id")
        with self._decoding():
            seqs = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
            if len(seqs) != live.count or int(np.bitwise_xor.reduce(seqs, initial=0)) != live.seqs:
                raise Damage("the numbers of the documents do not match their checksum")
        seqs.sort()
        return seqs

    def documents(self, seqs: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Payloads of documents, in the order of `seqs`."""
        wanted = _numbers(seqs)
        distinct = list(dict.fromkeys(wanted))
        rows = self._select("seq, payload, payload_checksum FROM documents WHERE seq", distinct)
        with self._decoding():
            payloads = {seq: decode(text, expected, seq) for seq, text, expected in rows}
        missing = [seq for seq in distinct if seq not in payloads]
        if missing:
            raise StoreError(
                f"document number {missing[0]} ({len(missing)} in all) is not in the store; it was removed. "
                "Bring the index up to date and search again."
            )
        # A document asked for twice is two dictionaries: callers add fields to them.
        return [dict(payloads[seq]) for seq in wanted]

    def texts_of(self, seqs: Sequence[int] | np.ndarray) -> dict[int, str]:
        """Texts of documents, by number."""
        rows = self._select("seq, text, text_checksum FROM documents WHERE seq", sorted(set(_numbers(seqs))))
        with self._decoding():
            return {seq: decode(text, expected, seq) for seq, text, expected in rows}

    def texts(self, chunk: int = TEXTS) -> Iterator[tuple[int, str]]:
        """Number and text of each document, in order of insertion."""
        statement = "SELECT seq, text, text_checksum FROM documents WHERE seq > ? ORDER BY seq LIMIT ?"
        for rows in self._chunks(statement, chunk, 0):
            with self._decoding():
                decoded = [(seq, decode(text, expected, seq)) for seq, text, expected in rows]
            yield from decoded

    def rows(self, after_seq: int = 0, chunk: int = TEXTS) -> Iterator[tuple[Hashable, str, dict[str, Any]]]:
        """Id, text and payload of each document above a number, in order, as `put_documents` takes them."""
        statement = (
            "SELECT seq, id, text, text_checksum, payload, payload_checksum FROM documents WHERE seq > ? "
            "ORDER BY seq LIMIT ?"
        )
        for found in self._chunks(statement, chunk, after_seq):
            with self._decoding():
                ids = decode_ids([row[1] for row in found])
                decoded = [
                    (i, decode(text, text_sum, seq), decode(payload, payload_sum, seq))
                    for i, (seq, _, text, text_sum, payload, payload_sum) in zip(ids, found, strict=True)
                ]
            yield from decoded

    def pending(self, chunk: int = TEXTS, after_seq: int = 0, part: int = 0) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers and texts of documents that lack a model's vector, in chunks; put vectors between two chunks.

        Above ``after_seq`` alone: ``first_seq - 1`` of the documents just put saves a walk over all others.
        """
        table = vector_table(part)
        lacks = f"NOT EXISTS (SELECT 1 FROM {table} AS v WHERE v.seq = d.seq)" if part < self.tables else "1"
        statement = (
            f"SELECT seq, text, text_checksum FROM documents AS d WHERE seq > ? AND {lacks} ORDER BY seq LIMIT ?"
        )
        numbers: list[int] = []
        texts: list[str] = []
        size = 0
        for rows in self._chunks(statement, min(chunk, STEP), after_seq):
            with self._decoding():
                texts += [decode(text, expected, seq) for seq, text, expected in rows]
            numbers += [row[0] for row in rows]
            size += sum(map(len, texts[-len(rows) :]))
            if len(texts) >= chunk or size >= CHARACTERS:
                yield np.array(numbers, dtype=np.int64), texts
                numbers, texts, size = [], [], 0
        if texts:
            yield np.array(numbers, dtype=np.int64), texts

    @property
    def tables(self) -> int:
        """Number of tables of vectors, one for each model that has had some."""
        return self._number("tables", 1)

    def _chunks(self, statement: str, chunk: int, after_seq: int) -> Iterator[list[tuple[Any, ...]]]:
        """Rows in order of their number, the first column; a short chunk is the last."""
        while rows := self._execute(statement, (after_seq, chunk)):
            after_seq = rows[-1][0]
            yield rows
            if len(rows) < chunk:
                return

    def _live(self) -> Live:
        with self._decoding():
            return Live(*self.get_setting("live", [0, 0, 0]))

    def _find(self, texts: Sequence[str]) -> dict[str, int]:
        return dict(map(tuple, self._select("id, seq FROM documents WHERE id", texts)))

    def _replace(self, encoded: Sequence[tuple[Any, ...]], first: int, before: int, live: Live) -> None:
        """Delete what has the ids of these rows; refuse an id that this call, from number `first` on, has twice.

        `before` is the number of documents that the call has put already.
        """
        places: dict[str, int] = {}
        found = self._find([row[1] for row in encoded])
        for place, (_, text, *_) in enumerate(encoded, start=before):
            earlier = places.setdefault(text, place)
            if earlier == place and (seq := found.get(text, 0)) >= first:
                ((earlier,),) = self._execute(
                    "SELECT COUNT(*) FROM documents WHERE seq BETWEEN ? AND ?", (first, seq - 1)
                )
            if earlier != place:
                raise InputError(
                    f"row {place}: id {decode_ids([text])[0]!r} is that of row {earlier} too. Ids must be unique; drop "
                    "one of the two."
                )
        self._delete(found, live)

    def _delete(self, found: Mapping[str, int], live: Live) -> None:
        if found:
            seqs = list(found.values())
            self._execute_many("DELETE FROM documents WHERE seq = ?", [(seq,) for seq in seqs])
            numbers = [(seq,) for seq in self._delete_spans(seqs)]
            for part in range(self.tables):
                self._execute_many(f"DELETE FROM {vector_table(part)} WHERE seq = ?", numbers)
        live.include(((seq, text) for text, seq in found.items()), -1)


def taken(rows: Iterable[Row], use: Taking) -> Iterator[Row]:
    """The rows; `use` knows while the caller's iterable is asked for the next one."""
    source = iter(rows)
    while True:
        use.taking = True
        try:
            row = next(source)
        except StopIteration:
            return
        finally:
            use.taking = False
        yield row


class Live:
    """Count of the documents, and exclusive-or of their id checksums and of their numbers."""

    def __init__(self, count: int, ids: int, seqs: int) -> None:
        self.count, self.ids, self.seqs = int(count), int(ids), int(seqs)

    def include(self, rows: Iterable[tuple[int, str]], sign: int) -> None:
        """Take documents, as (seq, id), in (``sign=1``) or out (-1)."""
        count, ids, seqs = self.count, self.ids, self.seqs
        for seq, text in rows:
            count += sign
            ids ^= checksum(text, seq)
            seqs ^= seq
        self.count, self.ids, self.seqs = count, ids, seqs

    def values(self) -> list[int]:
        """As it is stored."""
        return [self.count, self.ids, self.seqs]


def _encode(row: Row, seq: int, position: int) -> tuple[int, str, str, int, str, int]:
    try:
        document_id, text, payload = row
        id_json, text_json, payload_json = encode_id(document_id), encode_text(text), encode_json(payload)
    except InputError as error:
        raise InputError(f"row {position}: {error}") from error
    return seq, id_json, text_json, checksum(text_json, seq), payload_json, checksum(payload_json, seq)


def _kept(row: Row, encoded: tuple[int, str, str, int, str, int]) -> Row:
    """A document as it comes back: the two halves of a surrogate pair are one character then."""
    _, _, text, _, payload, _ = encoded
    return (row[0], json.loads(text), json.loads(payload)) if PAIR.search(row[1]) else row


def _spans(cut: SpansOf, row: Row, position: int) -> Sequence[Span]:
    try:
        return cut(row[1], row[2])
    except InputError as error:
        raise InputError(f"document {position} (id {row[0]!r}): {error}") from error


def _numbers(seqs: Sequence[int] | np.ndarray) -> list[int]:
    return np.asarray(seqs, dtype=np.int64).ravel().tolist()
