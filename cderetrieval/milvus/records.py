"""Settings and contexts of an alias, in a small collection beside it: ``<alias>_settings``.

Milvus has no place for values of our own that every version and Milvus Lite keep, so they are rows: a name and a JSON
value, cut into parts where it is longer than a Milvus string. Parts are written under a fresh mark before the row that
names it, so a value is the old one or the new one, whole. Reads are "Strong", so that what one process has acknowledged
all others see, unless a few seconds do not matter.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import StoreError
from .connection import CollectionGoneError, Connection, NotLoadedError
from .expressions import Expression, one_of, starting_with
from .fields import VECTOR, index_parameters

SUFFIX = "_settings"
PART = 60_000
MAX_NAME = 512
FIELDS = {"name", "value", VECTOR}


class Records:
    """Named JSON values of an alias."""

    def __init__(self, connection: Connection, alias: str) -> None:
        self._connection = connection
        self._wrote = False
        self.collection = alias + SUFFIX

    def create(self) -> None:
        """Make the collection; harmless where it is there."""
        from pymilvus import DataType, MilvusClient

        call = self._connection.call
        if not call("has_collection", self.collection):
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description="cderetrieval")
            schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=MAX_NAME)
            schema.add_field("value", DataType.VARCHAR, max_length=PART)
            schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=2)  # no collection without a vector
            call("create_collection", self.collection, schema=schema, consistency_level="Strong")
        elif {field["name"] for field in call("describe_collection", self.collection)["fields"]} != FIELDS:
            raise StoreError(f"{self.collection} is not a collection of this package; give yours another name.")
        # Also where another process made it a moment ago, or died before it came here.
        if not call("list_indexes", self.collection):
            self._connection.build_index(self.collection, index_parameters("FLAT", 0))
        self._connection.load(self.collection)

    def get(self, name: str, *, strong: bool = True) -> Any:
        """A value, or None; without `strong`, in a tenth of the time, what another process wrote may come 5 s later."""
        return self.get_many([name], strong=strong).get(name)

    def get_many(self, names: Sequence[str], *, strong: bool = True) -> dict[str, Any]:
        """Those of the values that are there."""
        found = {name: json.loads(text) for name, text in self._rows(names, strong=strong).items()}
        return {name: self._joined(name, value) for name, value in found.items()}

    def starting_with(self, prefix: str) -> dict[str, Any]:
        """Values whose names begin alike."""
        found = self._query(starting_with("name", prefix), strong=True)
        return {name: self._joined(name, json.loads(text)) for name, text in found.items()}

    def put(self, name: str, value: Any) -> None:
        """Store a value."""
        text = json.dumps(value)
        if len(text) <= PART - 100:
            self._write({name: json.dumps({"value": value})})
            return
        before = self._rows([name]).get(name)
        mark = secrets.token_hex(8)
        pieces = [text[start : start + PART] for start in range(0, len(text), PART)]
        self._write({f"part:{mark}:{number}": piece for number, piece in enumerate(pieces)})
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._write({name: json.dumps({"mark": mark, "parts": len(pieces), "sha256": digest})})
        if before is not None:
            self._drop_parts(json.loads(before))

    def remove(self, names: Sequence[str]) -> None:
        """Remove values; harmless where one is not there."""
        for row in self._rows(names).values():
            self._drop_parts(json.loads(row))
        self._delete(names)

    def forget(self, collection: str) -> None:
        """Remove what is noted of a collection that is gone."""
        self.remove([identity_record(collection), measured_record(collection)])

    def put_context(self, digest: str, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Store a context under its digest."""
        from safetensors.numpy import save

        blob = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
        self.put(_context(digest), {"metadata": dict(metadata), "tensors": base64.b64encode(blob).decode()})

    def get_context(self, digest: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Metadata and arrays of a context."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        found = self.get(_context(digest))
        if found is None:
            raise CollectionGoneError(f"{self.collection} holds no context {digest[:12]}: it was replaced. Try again.")
        try:
            return found["metadata"], load(base64.b64decode(found["tensors"], validate=True))
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise StoreError(f"context {digest[:12]} in {self.collection} is damaged ({error}).") from error

    def remove_context(self, digest: str) -> None:
        """Remove a context that no collection stands in any more."""
        self.remove([_context(digest)])

    def _joined(self, name: str, row: Mapping[str, Any]) -> Any:
        if "value" in row:
            return row["value"]
        try:
            names = _parts(row)
            found = self._rows(names)
            text = "".join(found[part] for part in names)
            if hashlib.sha256(text.encode()).hexdigest() != row["sha256"]:
                raise StoreError("its checksum differs")
            return json.loads(text)
        except (KeyError, TypeError, ValueError, StoreError) as error:
            raise StoreError(f"{name} in {self.collection} is damaged ({error!r}).") from error

    def _rows(self, names: Sequence[str], *, strong: bool = True) -> dict[str, str]:
        return self._query(one_of("name", names), strong=strong)

    def _query(self, expression: Expression, *, strong: bool) -> dict[str, str]:
        options: dict[str, Any] = {
            "filter": expression,
            "output_fields": ["name", "value"],
            # "Session" sees what this process wrote.
            "consistency_level": "Strong" if strong else "Session" if self._wrote else "Bounded",
        }
        try:
            rows = self._connection.call("query", self.collection, **options)
        except NotLoadedError:
            self._connection.load(self.collection)
            rows = self._connection.call("query", self.collection, **options)
        except CollectionGoneError:
            return {}
        return {row["name"]: row["value"] for row in rows}

    def _write(self, values: Mapping[str, str]) -> None:
        rows = [{"name": name, "value": value, VECTOR: [0.0, 1.0]} for name, value in values.items()]
        self._connection.call("upsert", self.collection, rows)
        self._wrote = True

    def _drop_parts(self, row: Mapping[str, Any]) -> None:
        if "mark" in row:
            self._delete(_parts(row))

    def _delete(self, names: Sequence[str]) -> None:
        self._connection.call("delete", self.collection, filter=one_of("name", names))


def identity_record(name: str) -> str:
    """Name of the note that says what a collection is."""
    return f"identity:{name}"


def measured_record(name: str) -> str:
    """Name of the note that says how widely a collection's index looks, and what recall that gives."""
    return f"measured:{name}"


def _context(digest: str) -> str:
    return f"context:{digest}"


def _parts(row: Mapping[str, Any]) -> list[str]:
    return [f"part:{row['mark']}:{number}" for number in range(int(row["parts"]))]
