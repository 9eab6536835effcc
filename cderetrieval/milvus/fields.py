"""What a collection is: its fields, its index, and what it says of the vectors it holds.

The name that a user gives is an alias. Behind it stands a collection for one encoder: vectors of one model in one
context. A new context is a new collection, and the alias is switched to it once it is whole, so vectors of two encoders
are never mixed, and readers go from one to the other in one step.

Index types, by ``?index=``:

- ``auto``: ``FLAT``, exact, in Milvus Lite; ``HNSW`` on a server; ``SPARSE_INVERTED_INDEX``, exact, for sparse vectors.
- ``FLAT``, ``HNSW``, ``IVF_FLAT``, ``IVF_SQ8``, ``AUTOINDEX`` (what the server takes; managed clusters know only this).

A server keeps up to 1,024 rows of a segment unindexed and searches them exactly, whatever the type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError, StoreError
from ..vectors import DENSE, SPARSE, Layout
from .connection import VECTOR_INDEX
from .rows import MAX_KEY, MAX_STRING

# The newest; a collection of one vector a document has the first, which older versions read.
FORMAT, FIRST = 2, 1
# Characters that the number of a passage takes in a key.
NUMBER = 16
VECTOR = VECTOR_INDEX
METRIC = "IP"
# Parameter of search that says how widely to look, by type of index; None: there is none, or it is exact.
WIDTHS: Mapping[str, str | None] = {
    "FLAT": None,
    "HNSW": "ef",
    "IVF_FLAT": "nprobe",
    "IVF_SQ8": "nprobe",
    "AUTOINDEX": None,
}
EXACT = ("FLAT", "SPARSE_INVERTED_INDEX")
SPARSE_SINCE = [2, 4]
HNSW = {"M": 24, "efConstruction": 200}
OF_PASSAGES = ("passages", "document")


@dataclass(frozen=True)
class Identity:
    """What a collection holds, kept beside it and checked whenever it is opened."""

    # Fingerprint of the encoder: weights, tokenizer, prompts, length limit and context.
    fingerprint: str
    # Digest of the context; None for models that take none.
    context: str | None
    # Kind and dimension of the vectors.
    kind: str
    dimension: int
    # Settings of the retriever.
    settings: Mapping[str, Any]
    # Type of the index.
    index: str
    format: int = FIRST
    # How documents are cut, and what passages take in of them; None: one vector each.
    passages: str | int | None = None
    document: Mapping[str, Any] | None = None

    @property
    def layout(self) -> Layout:
        """Kind and dimension of the vectors."""
        return Layout(self.kind, self.dimension)

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        values = asdict(self)
        return values if self.passages is not None else {k: v for k, v in values.items() if k not in OF_PASSAGES}

    @classmethod
    def of(cls, stored: Mapping[str, Any], where: str) -> Identity:
        """Read what :meth:`to_dict` made."""
        if stored.get("format", 0) > FORMAT:
            raise StoreError(f"{where} was written by a newer cderetrieval; upgrade it: pip install -U cderetrieval")
        try:
            return cls(**stored)
        except TypeError as error:
            raise StoreError(f"what {where} says of itself cannot be read ({error}).") from error


def choose_index(wanted: str, kind: str, *, lite: bool) -> str:
    """Type of the index.

    >>> choose_index("auto", "dense", lite=False), choose_index("auto", "sparse", lite=True)
    ('HNSW', 'SPARSE_INVERTED_INDEX')
    """
    if kind not in (DENSE, SPARSE):
        raise ConfigError(f"Milvus holds dense and sparse vectors; for a {kind!r} model use an index on this machine.")
    if kind == SPARSE:
        if wanted not in ("auto", "SPARSE_INVERTED_INDEX"):
            raise ConfigError(f"index={wanted}: for sparse vectors leave it out, or use SPARSE_INVERTED_INDEX.")
        return "SPARSE_INVERTED_INDEX"
    if wanted == "auto":
        return "FLAT" if lite else "HNSW"
    if wanted not in WIDTHS:
        raise ConfigError(f"index={wanted} is unknown; use auto, {', '.join(WIDTHS)}.")
    return wanted


def check_sparse(version: str) -> None:
    """Refuse a server that cannot hold sparse vectors.

    >>> check_sparse("v2.5.4")
    """
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    if numbers and numbers < SPARSE_SINCE:
        raise ConfigError(f"Milvus {version} has no sparse vectors; 2.4 and later have. Upgrade it, or use another.")


def index_parameters(index: str, rows: int) -> Any:
    """What to build an index with; the lists of IVF follow from the rows that are there at first."""
    from pymilvus import MilvusClient

    settings: dict[str, int] = {}
    if index == "HNSW":
        settings = dict(HNSW)
    elif index.startswith("IVF"):
        settings = {"nlist": 2 ** round(math.log2(min(65_536, max(16, 2.5 * math.sqrt(rows)))))}
    return MilvusClient.prepare_index_params(
        VECTOR, index_type=index, index_name=VECTOR, metric_type=METRIC, params=settings
    )


def collection_schema(layout: Layout, cut: bool) -> Any:
    """Schema of a collection of documents, or of their passages."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(
        auto_id=False, enable_dynamic_field=False, description="written by cderetrieval; do not change by hand"
    )
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_KEY + (NUMBER if cut else 0))
    schema.add_field("seq", DataType.INT64)
    if layout.kind == SPARSE:
        schema.add_field(VECTOR, DataType.SPARSE_FLOAT_VECTOR)
    else:
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=layout.dimension)
    schema.add_field("payload", DataType.VARCHAR, max_length=MAX_STRING)
    schema.add_field("metadata", DataType.JSON)
    if cut:
        schema.add_field("passages", DataType.INT64)
    return schema


def check_schema(described: Mapping[str, Any], layout: Layout, cut: bool, where: str) -> None:
    """Compare a collection's fields with what this package writes."""
    expected = {field["name"]: field for field in collection_schema(layout, cut).to_dict()["fields"]}
    found = {field["name"]: field for field in described["fields"]}
    for name in sorted(set(expected) | set(found)):
        wanted, given = expected.get(name, {}), found.get(name, {})
        same = wanted.get("type") == given.get("type") and _dimension(wanted) == _dimension(given)
        if not same or bool(wanted.get("is_primary")) != bool(given.get("is_primary")):
            raise StoreError(
                f"{where} is not as this package made it: its field {name!r} is {_shown(given)}, not {_shown(wanted)}. "
                "Use another collection, or build it again."
            )


def _dimension(field: Mapping[str, Any]) -> int | None:
    dimension = field.get("params", {}).get("dim")
    return None if dimension is None else int(dimension)


def _shown(field: Mapping[str, Any]) -> str:
    if not field:
        return "absent"
    name = getattr(field["type"], "name", field["type"])
    dimension = _dimension(field)
    return f"{name}({dimension})" if dimension else str(name)
