"""Ids and vectors as Parquet columns, and back.

dense          id, vector: a list of ``dimension`` float32
sparse         id, terms: a list of int32, ascending; weights: as many float32
sparse-embed   the same, and embeddings: the terms' embeddings one after the other, float16 as the store keeps them

Where documents were cut, a row is a passage: id is that of its document; passage, its number in it; start and stop,
characters of the text; heading, as JSON text; head, whether it is the beginning, with all that the model reads.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, needs
from ..files import atomic_write, reading
from ..splitting import Span
from ..store.blobs import LARGEST
from ..vectors import DENSE, SPARSE, Layout, TermEmbeddings, Vectors, weights_of
from .scan import INTEGER, JSON

METADATA = b"cderetrieval"
PASSAGE = ["passage", "start", "stop", "heading", "head"]
EMBED_AGAIN = "Delete it and run `cderetrieval embed` again."


def arrow() -> Any:
    """The pyarrow module."""
    with needs("pyarrow", "scale"):
        import pyarrow as pa
        import pyarrow.parquet
    return pa


def write_vectors(
    path: Path,
    ids: Sequence[Hashable],
    vectors: Vectors,
    layout: Layout,
    id_type: str,
    metadata: dict[str, Any],
    spans: Sequence[Sequence[Span]] | None = None,
) -> None:
    """Write one file, whole or not at all; `spans` of documents that were cut, none of one in one piece."""
    pa = arrow()
    if spans is not None:
        rows = [list(enumerate(some or [Span(0, 0)])) for some in spans]
        ids = [document_id for document_id, some in zip(ids, rows, strict=True) for _ in some]
    names: list[Any] = [json.dumps(i) for i in ids] if id_type == JSON else list(ids)
    columns = {"id": pa.array(names, pa.int64() if id_type == INTEGER else pa.string())}
    if spans is not None:
        passages = [(number, a, b, json.dumps(name), head) for number, (a, b, name, head) in chain.from_iterable(rows)]
        columns |= {name: pa.array([row[i] for row in passages]) for i, name in enumerate(PASSAGE)}
    columns |= _columns(vectors, layout)
    table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(metadata)})
    with atomic_write(path) as temporary:
        # Float vectors do not shrink: zstd would take a second for a million and save 8 per cent.
        compression = {name: "zstd" if name == "id" else "none" for name in columns}
        settings = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
        pa.parquet.write_table(table, temporary, compression=compression, **settings)


def read_vectors(path: Path, layout: Layout, id_type: str) -> tuple[list[Hashable], Vectors, dict[str, Any]]:
    """Ids of documents, vectors and metadata of a file that :func:`write_vectors` wrote; its checksums are verified."""
    with reading(path, remedy=EMBED_AGAIN):
        table = _table(path)
        metadata = json.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
        return _ids(table, id_type), _vectors(table, layout), metadata


def read_ids(path: Path, id_type: str) -> list[Hashable]:
    """The ids alone."""
    with reading(path, remedy=EMBED_AGAIN):
        return _ids(_table(path, ["id", "passage"]), id_type)


def read_spans(path: Path) -> list[list[Span]]:
    """The spans of each document; none of one in one piece."""
    found: list[list[Span]] = []
    with reading(path, remedy=EMBED_AGAIN):
        columns = _table(path, PASSAGE).to_pydict()
        for number, start, stop, heading, head in zip(*(columns[name] for name in PASSAGE), strict=True):
            found += [] if number else [[]]
            found[-1].append(Span(start, stop, json.loads(heading), head))
    return [spans if len(spans) > 1 else [] for spans in found]


def _table(path: Path, columns: list[str] | None = None) -> Any:
    """All columns, or those of some that are there."""
    with arrow().parquet.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns=columns)


def _ids(table: Any, id_type: str) -> list[Hashable]:
    ids = table["id"].to_pylist()
    if "passage" in table.column_names:
        ids = [name for name, number in zip(ids, table["passage"].to_pylist(), strict=True) if number == 0]
    return [json.loads(name) for name in ids] if id_type == JSON else ids


def _columns(vectors: Any, layout: Layout) -> dict[str, Any]:
    pa = arrow()
    if layout.kind == DENSE:
        values = np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)
        return {"vector": pa.FixedSizeListArray.from_arrays(pa.array(values), layout.dimension)}
    weights = weights_of(vectors)
    bounds = weights.indptr.astype(np.int64)
    flat = {"terms": (bounds, weights.indices.astype(np.int32)), "weights": (bounds, weights.data.astype(np.float32))}
    if layout.kind != SPARSE:
        largest = float(np.abs(vectors.embeddings).max(initial=0.0))
        if largest > LARGEST:
            raise InputError(
                f"a term's embedding holds {largest:g}; float16, in which they are kept, ends at {LARGEST:g}."
            )
        flat["embeddings"] = bounds * layout.embedding_size, vectors.embeddings.astype(np.float16).reshape(-1)
    lists = pa.LargeListArray.from_arrays
    return {name: lists(pa.array(bounds), pa.array(values)) for name, (bounds, values) in flat.items()}


def _vectors(table: Any, layout: Layout) -> Vectors:
    if layout.kind == DENSE:
        column = table["vector"].combine_chunks()
        if column.type.list_size != layout.dimension:
            raise ValueError(f"its vectors have {column.type.list_size} dimensions, not {layout.dimension}")
        values = column.flatten().to_numpy(zero_copy_only=False)
        return np.ascontiguousarray(values, dtype=np.float32).reshape(len(table), layout.dimension)
    from scipy.sparse import csr_array

    bounds, terms = _flat(table["terms"])
    _, values = _flat(table["weights"])
    if len(values) != len(terms):
        raise ValueError("terms and weights differ in number")
    weights = csr_array((values, terms, bounds), shape=(len(table), layout.dimension))
    if layout.kind == SPARSE:
        return weights
    _, embeddings = _flat(table["embeddings"])
    return TermEmbeddings(weights, embeddings.reshape(-1, layout.embedding_size))


def _flat(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Bounds and values of a column of lists."""
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    return offsets - offsets[0], lists.flatten().to_numpy(zero_copy_only=False)
