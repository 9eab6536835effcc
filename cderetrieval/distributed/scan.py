"""The first walk through a corpus: check every document, sample the context, and note what each block holds.

So a bad row, or an id that occurs twice, is found before hours of embedding. Ids are compared by hashes of 64 bits, 8
bytes a document; where two are equal, the blocks are read again to see whether the ids are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..context.sample import Sampler
from ..corpora.blocks import Block, read_block
from ..documents import Row, document_rows
from ..errors import InputError
from ..passages import Passages
from ..store.codec import encode_id, encode_json

# How a column of ids is stored: as itself where all are of one type, else as JSON text.
STRING, INTEGER, JSON = "string", "int64", "json"
# Parquet holds UTF-8, which a lone surrogate is not.
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Fields:
    """Which fields hold a document's id and text, whether one without text is left out, and how documents are cut."""

    key: str = "id"
    on: tuple[str, ...] | None = None
    skip_empty: bool = False
    passages: str | int | None = None

    @property
    def cut(self) -> Passages:
        """How documents are cut."""
        return Passages.parse(self.passages)


@dataclass(frozen=True)
class Scanned:
    """A block whose documents were read and checked."""

    block: Block
    # Without those that were left out.
    documents: int
    # Digest of ids and texts, in order: what vectors depend on.
    digest: str
    # Digest of all fields; None in a folder that was written before these were compared.
    payloads: str | None = None


def block_rows(block: Block, fields: Fields) -> list[Row]:
    """Documents of a block as (id, text, payload), each checked; none where all were left out."""
    documents = list(read_block(block, fields.key))
    if not documents:
        return []
    try:
        return list(
            document_rows(
                documents, fields.key, fields.on, skip_empty=fields.skip_empty, may_be_empty=True, passages=fields.cut
            )
        )
    except InputError as error:
        raise InputError(f"{block}, counted from 0: {error}") from error


class BlockScanner:
    """A job that reads blocks of a corpus."""

    def __init__(self, blocks: Sequence[Block], fields: Fields, sample: tuple[int, int] | None) -> None:
        self._blocks, self._fields, self._sample = blocks, fields, sample

    def __call__(self, number: int) -> dict[str, Any]:
        """What a block holds, as JSON values: digests, types and hashes of its ids, and a sample of its own."""
        rows = block_rows(self._blocks[number], self._fields)
        sampler = None if self._sample is None else Sampler(*self._sample)
        if sampler is not None:
            for document_id, text, _ in rows:
                sampler.offer(document_id, text)
        return {
            "block": number,
            "documents": len(rows),
            "digest": rows_digest(rows),
            "payloads": payloads_digest(rows),
            "types": sorted({_type(document_id) for document_id, *_ in rows}),
            "hashes": id_hashes(document_id for document_id, *_ in rows).tolist(),
            "sampled": [] if sampler is None else sampler.items(),
        }


def gather(
    results: Iterable[dict[str, Any]], blocks: Sequence[Block], fields: Fields, sampler: Sampler | None, bar: Any
) -> tuple[tuple[Scanned, ...], str]:
    """All blocks, from the results of their scans in order, and how their ids are stored; `sampler` sees the samples.

    A sample of the blocks' samples is one of the corpus, since a sampler keeps the documents with the smallest keys.
    """
    scanned, hashes, types = [], [], set()
    for result in results:
        bar.update(blocks[result["block"]].rows)
        scanned.append(Scanned(blocks[result["block"]], result["documents"], result["digest"], result["payloads"]))
        hashes.append(np.array(result["hashes"], dtype=np.uint64))
        types.update(result["types"])
        if sampler is not None:
            for document_id, text in result["sampled"]:
                sampler.offer(document_id, text)
    if not sum(map(len, hashes)):
        raise InputError("no documents: the corpus is empty.")
    check_unique(hashes, lambda number: (row[0] for row in block_rows(blocks[number], fields)), blocks)
    return tuple(scanned), types.pop() if len(types) == 1 else JSON


def check_unique(hashes: Sequence[np.ndarray], ids: Callable[[int], Iterable[Hashable]], names: Sequence[Any]) -> None:
    """Refuse an id that occurs twice; `ids` reads the ids of a part whose hashes occur elsewhere."""
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    double = values[counts > 1]
    seen: dict[str, tuple[int, int]] = {}
    for part, found in enumerate(hashes):
        places = np.flatnonzero(np.isin(found, double))
        named = list(ids(part)) if len(places) else []
        for place in places.tolist():
            name = encode_id(named[place])
            if name in seen:
                other, earlier = seen[name]
                raise InputError(
                    f"id {named[place]!r} occurs twice: document {earlier} of {names[other]}, and document {place} of "
                    f"{names[part]}. Ids must be unique; drop one of the two, or give the corpora other ids."
                )
            seen[name] = part, place


def rows_digest(rows: Iterable[Row]) -> str:
    """Digest of ids and texts in order, 16 hexadecimal digits."""
    return _digest(json.dumps([encode_id(document_id), text]) for document_id, text, _ in rows)


def payloads_digest(rows: Iterable[Row]) -> str:
    """Digest of all fields in order, 16 hexadecimal digits."""
    return _digest(encode_json(payload) for *_, payload in rows)


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode())
    return digest.hexdigest()


def id_hashes(ids: Iterable[Hashable]) -> np.ndarray:
    """A hash of each id, shape (n,), uint64."""
    data = (encode_id(document_id).encode() for document_id in ids)
    return np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in data), dtype=np.uint64)


def _type(document_id: Hashable) -> str:
    if isinstance(document_id, str):
        return JSON if SURROGATE.search(document_id) else STRING
    whole = isinstance(document_id, int) and not isinstance(document_id, bool)
    return INTEGER if whole and -(2**63) <= int(document_id) < 2**63 else JSON  # type: ignore[call-overload]
