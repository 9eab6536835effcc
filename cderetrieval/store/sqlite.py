"""The store: documents, their vectors and their contexts in one SQLite file, the one source of truth.

Everything else (an index, a cache) is made from it and can be thrown away. Vectors are of one of three kinds, one blob
a row (:mod:`.blobs`); inside one ``epoch`` the vector of a number never changes, so whatever an index has read stays
right. To embed anew is to clear all vectors, which starts the next epoch, and to put the new ones in the same
transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from ..errors import InputError, StoreError
from ..files import as_path, atomic_write, open_own, private_mode
from ..vectors import DENSE, Layout, Vectors, as_vectors, checked
from .blobs import decode as decode_vectors
from .blobs import encode as encode_vectors
from .codec import Damage, checksum, decode, encode_json
from .documents import Documents, _numbers
from .lock import WriterLock
from .passages import slices
from .schema import (
    DENSE_VERSION,
    SCHEMA_VERSION,
    SPARSE_VERSION,
    beside,
    check_structure,
    translated,
    vector_schema,
    vector_table,
)
from .snapshots import of_part

# 8,192 vectors of 384 dimensions are 12 MB.
VECTORS = 8_192


class Store(Documents):
    """Documents, vectors, contexts and settings of one retriever."""

    @property
    def layout(self) -> Layout | None:
        """Kind and dimension of the vectors of the first model; `None` before there are any."""
        return self.layout_of(0)

    def layout_of(self, part: int) -> Layout | None:
        """Kind and dimension of the vectors of a model; `None` before there are any."""
        dimension = self.get_setting(of_part("dimension", part))
        if dimension is None:
            return None
        with self._decoding():
            return Layout(**(self.get_setting(of_part("layout", part)) or {"kind": DENSE, "dimension": dimension}))

    def put_vectors(self, seqs: Sequence[int] | np.ndarray, vectors: Vectors, part: int = 0) -> None:
        """Store a model's vectors of documents that have none: shape (n, dimension), of any one kind."""
        numbers = _numbers(seqs)
        given = as_vectors(vectors, "document")
        if len(given.shape) != 2 or given.shape[0] != len(numbers):
            raise InputError(f"vectors have shape {given.shape}; {len(numbers)} rows of one length are expected.")
        if not numbers:
            return
        layout = Layout.of(given)
        given = checked(given, layout, "document")
        with self.transaction():
            self._check_target(numbers, layout, part)
            statement = f"INSERT INTO {vector_table(part)} VALUES (?, ?, ?)"
            try:
                self._execute_many(statement, encode_vectors(layout, numbers, given))
            except StoreError as error:
                if isinstance(error.__cause__, sqlite3.IntegrityError):
                    raise InputError("a document has its vector already; clear_vectors() starts over.") from error
                raise

    def _check_target(self, numbers: list[int], layout: Layout, part: int) -> None:
        known = self.layout_of(part)
        if known is None:
            self._prepare(layout, part)
        elif known != layout:
            raise InputError(f"these are {layout}; the store holds {known}.")
        for chunk in slices(numbers):
            rows = self._select("seq FROM documents WHERE seq", chunk)
            absent = sorted(set(chunk) - {seq for (seq,) in rows})
            if len(rows) != len(chunk) and (len(rows) + len(absent) != len(chunk) or not self._are_passages(absent)):
                raise InputError(f"document numbers {absent[:3] or 'given twice'} are not those of documents here.")

    def _prepare(self, layout: Layout, part: int) -> None:
        """Note the kind of a model's vectors and make the table for them; raise the version where that takes it."""
        self._set(of_part("dimension", part), layout.dimension)
        if layout.kind != DENSE:
            self._set(of_part("layout", part), layout.to_dict())
        self._raise_version(SCHEMA_VERSION if part else DENSE_VERSION if layout.kind == DENSE else SPARSE_VERSION)
        for missing in range(self.tables, part + 1):
            self._execute(vector_schema(missing))
            self._set("tables", missing + 1)

    def iter_vectors(
        self, after_seq: int = 0, chunk: int = VECTORS, part: int = 0
    ) -> Iterator[tuple[np.ndarray, Vectors]]:
        """Numbers, shape (n,), int64, and a model's vectors, shape (n, dimension), in order of insertion.

        Hold `snapshot` around the whole walk where another process may write.
        """
        layout = self.layout_of(part)
        if layout is None:
            return
        statement = f"SELECT seq, vector, checksum FROM {vector_table(part)} WHERE seq > ? ORDER BY seq LIMIT ?"
        for rows in self._chunks(statement, chunk, after_seq):
            with self._decoding():
                yield decode_vectors(layout, rows)

    def vectors_of(self, seqs: Sequence[int], part: int = 0) -> tuple[np.ndarray, Vectors]:
        """Numbers and a model's vectors of those of the passages that have one, in order of insertion."""
        layout = self.layout_of(part)
        assert layout is not None
        rows = sorted(self._select(f"seq, vector, checksum FROM {vector_table(part)} WHERE seq", seqs))
        with self._decoding():
            return decode_vectors(layout, rows)

    def clear_vectors(self, part: int = 0) -> None:
        """Drop all vectors of a model and start its next epoch; every document is then pending."""
        with self.transaction():
            if part < self.tables:
                self._execute(f"DELETE FROM {vector_table(part)}")
            for key in ("dimension", "layout"):
                if self.get_setting(of_part(key, part)) is not None:
                    self._set(of_part(key, part), None)
            self._set(of_part("epoch", part), self.epoch_of(part) + 1)

    def put_context(self, digest: str, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Store a context under its digest; one of the same digest is replaced."""
        from safetensors.numpy import save

        blob = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
        text = encode_json(metadata)
        with self.transaction():
            self._execute(
                "INSERT INTO contexts (digest, metadata, tensors, checksum) VALUES (?, ?, ?, ?) ON CONFLICT (digest) "
                "DO UPDATE SET metadata = excluded.metadata, tensors = excluded.tensors, checksum = excluded.checksum",
                (digest, text, blob, _context_checksum(digest, text, blob)),
            )

    def get_context(self, digest: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Metadata and arrays of a context."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        rows = self._execute("SELECT metadata, tensors, checksum FROM contexts WHERE digest = ?", (digest,))
        if not rows:
            raise StoreError(
                f"{self.path or 'the store in memory'} holds no context {digest!r}; it has {self.contexts()}."
            )
        text, blob, expected = rows[0]
        with self._decoding():
            if _context_checksum(digest, text, blob) != expected:
                raise Damage(f"context {digest} does not match its checksum")
            try:
                return decode(text, checksum(text, 0), 0), load(blob)
            except SafetensorError as error:
                raise Damage(str(error)) from error

    def contexts(self) -> list[str]:
        """Digests of the contexts, oldest first."""
        return [digest for (digest,) in self._execute("SELECT digest FROM contexts ORDER BY number")]

    def check(self) -> None:
        """Read everything and compare it with its checksums; minutes for very large stores."""
        with self.snapshot(), self._decoding():
            check_structure(self._connection(), self.path)
            seqs, _ = self.live()
            for chunk in slices(seqs.tolist()):
                self.documents(chunk)
            if [seq for seq, _ in self.texts()] != seqs.tolist():
                raise Damage("the id index does not match the documents")
            expected = seqs.tolist(), self.numbers(seqs).tolist()
            for part in range(self.tables):
                embedded = [seq for chunk, _ in self.iter_vectors(part=part) for seq in chunk.tolist()]
                if self.layout_of(part) is not None and embedded not in expected:
                    raise Damage(f"{len(seqs)} documents have {len(embedded)} vectors")
            self.spans_of(seqs)
            for digest in self.contexts():
                self.get_context(digest)

    def backup(self, path: str | Path) -> None:
        """Copy what is committed into another file, whole or not at all; a store that stands there is replaced."""
        target = as_path(path)
        if self.path is not None and target.resolve() == self.path.resolve():
            raise InputError(f"{target} is this very store; name another file for the copy.")
        lock = WriterLock(target)
        lock.acquire()
        try:
            mode = private_mode(target if target.exists() or self.path is None else self.path)
            # SQLite copies nothing from a connection that is writing, and Python would wait for it for ever.
            seen = self.committed() if self._is_writing() else self.snapshot()
            with seen, translated(target), atomic_write(target, mode=mode) as temporary:
                with contextlib.closing(sqlite3.connect(temporary)) as copy:
                    self._connection().backup(copy)
                    copy.execute("PRAGMA journal_mode = WAL")
                _empty_log(target)
        except OSError as error:
            raise StoreError(f"{target} cannot be written ({error}). Check free space and permissions.") from error
        finally:
            lock.release()


def _empty_log(target: Path) -> None:
    """Empty the write-ahead log of the store that is about to be replaced: SQLite would play it into the new one."""
    log = beside(target, "-wal")
    if not os.path.lexists(log):
        return
    descriptor = open_own(log, os.O_RDWR)
    try:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(target, timeout=1.0)) as old:
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _context_checksum(digest: str, metadata: str, tensors: bytes) -> int:
    return crc32(tensors, checksum(digest + metadata, 0))
