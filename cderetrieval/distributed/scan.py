"""The first walk through a corpus: checks every document, samples the context, and notes what each block holds.

So a bad row, or an id that occurs twice, is found before hours of embedding. Ids are compared by hashes of 64 bits, 8
bytes a document; where two are equal, the blocks are read again to see whether the ids are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..context.sample import Sampler
from ..corpora.blocks import Block
from ..documents import Row
from ..errors import InputError
from ..store.codec import encode_id, encode_json
from .work import Fields, Result, block_rows

# How a column of ids is stored: as itself where all are of one type, else as JSON text.
STRING, INTEGER, JSON = "string", "int64", "json"


@dataclass(frozen=True)
class Scanned:
    """A block whose documents were read and checked."""

    # Where it lies.
    block: Block
    # How many there are; without those that were left out.
    documents: int
    # Digest of their ids and texts, in order: what vectors depend on.
    digest: str
    # Digest of all their fields; None in a folder that was written before these were compared.
    payloads: str | None = None


class Scanner:
    """Reads blocks of a corpus."""

    computes: ClassVar[bool] = False

    def __init__(self, blocks: Sequence[Block], fields: Fields, sample: tuple[int, int] | None) -> None:
        self._blocks = blocks
        self._fields = fields
        self._sample = sample

    def __call__(self, number: int) -> Result:
        """Number of documents, digest, types and hashes of ids, and the block's own sample."""
        rows = block_rows(self._blocks[number], self._fields)
        sampled = []
        if self._sample is not None:
            sampler = Sampler(*self._sample)
            for row in rows:
                sampler.offer(row[0], row[1])
            sampled = sampler.items()
        return {
            "block": number,
            "documents": len(rows),
            "digest": rows_digest(rows),
            "payloads": payloads_digest(rows),
            "types": sorted({_type(row[0]) for row in rows}),
            "hashes": id_hashes(row[0] for row in rows).tobytes(),
            "sampled": sampled,
        }


@dataclass(frozen=True)
class Scan:
    """What a walk through a corpus found."""

    # Its blocks, in order.
    blocks: tuple[Scanned, ...]
    # How ids are stored: ``"string"``, ``"int64"`` or ``"json"``.
    ids: str

    @property
    def documents(self) -> int:
        """Documents in all."""
        return sum(scanned.documents for scanned in self.blocks)


def gather(results: Iterable[Result], blocks: Sequence[Block], fields: Fields, sampler: Sampler | None) -> Scan:
    """Put what was found in each block together."""
    scanned, hashes, types = [], [], set()
    for result in results:
        scanned.append(Scanned(blocks[result["block"]], result["documents"], result["digest"], result["payloads"]))
        hashes.append(np.frombuffer(result["hashes"], dtype=np.uint64))
        types.update(result["types"])
        if sampler is not None:
            for document_id, text in result["sampled"]:
                sampler.offer(document_id, text)
    scan = Scan(tuple(scanned), types.pop() if len(types) == 1 else JSON)
    if not scan.documents:
        raise InputError("no documents: the corpus is empty.")
    check_unique(hashes, lambda number: ids_of(block_rows(blocks[number], fields)), [str(block) for block in blocks])
    return scan


def check_unique(hashes: Sequence[np.ndarray], ids: Any, names: Sequence[str]) -> None:
    """Refuse an id that occurs twice."""
    everything = np.sort(np.concatenate(hashes))
    double = np.unique(everything[1:][everything[1:] == everything[:-1]])
    if not len(double):
        return
    seen: dict[str, tuple[int, int]] = {}
    for part, found in enumerate(hashes):
        places = np.flatnonzero(np.isin(found, double))
        if not len(places):
            continue
        values = list(ids(part))
        for place in places.tolist():
            name = encode_id(values[place])
            if name in seen:
                other, earlier = seen[name]
                raise InputError(
                    f"id {values[place]!r} occurs twice: document {earlier} of {names[other]}, and document {place} of "
                    f"{names[part]}. Ids must be unique; drop one of the two, or give the corpora other ids."
                )
            seen[name] = part, place


def rows_digest(rows: Iterable[Row]) -> str:
    """Digest of ids and texts in order, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for document_id, text, _ in rows:
        digest.update(json.dumps([encode_id(document_id), text]).encode())
    return digest.hexdigest()


def payloads_digest(rows: Iterable[Row]) -> str:
    """Digest of all fields in order, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for *_, payload in rows:
        digest.update(encode_json(payload).encode())
    return digest.hexdigest()


def id_hashes(ids: Iterable[Hashable]) -> np.ndarray:
    """A hash of each id, shape (n,), uint64."""
    data = (encode_id(document_id).encode() for document_id in ids)
    return np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in data), dtype=np.uint64)


def ids_of(rows: Iterable[Row]) -> Iterator[Hashable]:
    """The ids of rows."""
    return (row[0] for row in rows)


def _type(document_id: Hashable) -> str:
    if isinstance(document_id, str):
        # Parquet holds UTF-8, which a lone surrogate is not.
        return STRING if document_id.isascii() or _is_utf8(document_id) else JSON
    whole = isinstance(document_id, int) and not isinstance(document_id, bool)
    return INTEGER if whole and -(2**63) <= int(document_id) < 2**63 else JSON  # type: ignore[call-overload]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
