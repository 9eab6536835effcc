"""A collection: documents, their vectors by one or several models, contexts, settings, and the indexes over them.

It is the one object below :class:`~.retriever.Retriever`. On this machine everything lies in one SQLite file, and the
indexes are caches made from it (:class:`~.local.LocalCollection`). A corpus that outgrows one machine lies in a
collection on a Milvus server (:mod:`cderetrieval.milvus`). A model is named by its place, ``part``: 0 where there is
but one. A change is one :meth:`Collection.transaction`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..documents import Row
from ..errors import ConfigError, InputError
from ..models.document_context import DocumentContextLike
from ..passages import Passages, Splitter
from ..splitting import Span
from ..types import Encoder
from ..vectors import Layout, Vectors
from .fusion import Fusion

# In a directory that was saved from a collection on a server: where that is.
SERVER_FILE = "server.json"
EMPTY = "the index is empty: add documents first."


@dataclass(frozen=True)
class Settings:
    """What a retriever remembers about itself; kept in its collection."""

    # Name or directory of the model; None where it was given as an object, or there are several.
    model: str | None
    # Field of the id, fields of the text (None: ``title``, where there is one, and ``text``).
    key: str = "id"
    on: list[str] | None = None
    # ``"auto"``, a FAISS factory string, or the place of a server's collection.
    index: Any = "auto"
    # Size and seed of the sample; size None: what the model was made for.
    context_size: int | None = None
    seed: int = 0
    # For several models: name of each to its name or directory, and to its index where that is not ``"auto"``; and how
    # their rankings are fused.
    models: dict[str, str | None] | None = None
    indexes: dict[str, str] | None = None
    fusion: Fusion | None = None
    # ``"int8"`` where the weights of the models are in eight bits.
    precision: str | None = None

    def __post_init__(self) -> None:
        if not self.key:
            raise ConfigError("key='' names no field; it is the field of a document's id.")
        if self.on is not None and not self.on:
            raise ConfigError("on=[] names no field; name the fields of the text, or leave it out.")
        if self.context_size is not None and self.context_size < 1:
            raise ConfigError(f"context_size={self.context_size!r} must be at least 1; for none pass context=None.")

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what only some retrievers have is left out, so that older programs read the others."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in _OF_SOME or value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The settings that :meth:`to_dict` wrote."""
        settings = cls(**values)
        if settings.fusion is None:
            return settings
        fusion: dict[str, Any] = {**values["fusion"]}
        if fusion.get("weights") is not None:
            fusion["weights"] = tuple(fusion["weights"])
        return replace(settings, fusion=Fusion(**fusion))

    def factory(self, part: int) -> str:
        """The index of a model."""
        return self.index if self.models is None else (self.indexes or {}).get(list(self.models)[part], "auto")


_OF_SOME = ("models", "indexes", "fusion", "precision")


@dataclass(frozen=True)
class Want:
    """What is asked for beside the number of hits: a filter, documents, passages, and what is ranked."""

    filter: Mapping[str, Any] | None = None
    documents: bool = False
    passages: bool = False
    by: str = "document"


PLAIN = Want()


class Collection(ABC):
    """What a retriever asks of the place where its documents, vectors and indexes are."""

    settings: Settings
    directory: Path | None = None
    # How documents are cut, and what their passages take in of them, as the user said; a model keeps its own.
    passages = Passages(None)
    document: DocumentContextLike = "auto"
    # Gives the encoder of a part whose index is made from words.
    word_model: Callable[[int], Encoder]

    @property
    def fusion(self) -> Fusion | None:
        """How rankings are fused, as the collection says now: another process may have set it. None for one model."""
        stored = self.get_setting("retriever") if self.settings.fusion is not None else None
        return self.settings.fusion if stored is None else Settings.from_dict(stored).fusion

    @property
    def replaced(self) -> int:
        """How many documents of this thread's last change were there before, on a server, where sending shows it."""
        return 0

    @abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """A change: all of it when the block ends, or, after an error in the block, none."""

    @abstractmethod
    def reading(self) -> contextlib.AbstractContextManager[None, bool | None]:
        """A block whose reads are from one state; where that is replaced meanwhile it may end early: read again."""

    @abstractmethod
    def get_setting(self, key: str, default: Any = None) -> Any:
        """The value of a setting."""

    @abstractmethod
    def set_setting(self, key: str, value: Any) -> None:
        """Set a value."""

    @abstractmethod
    def get_context(self, digest: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A context's description and arrays."""

    @abstractmethod
    def put_context(self, digest: str, metadata: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Keep a context."""

    @abstractmethod
    def put_documents(self, rows: Iterable[Row], cut: Splitter | None) -> tuple[int, int]:
        """Take documents, cut into passages; their first number, and how many there are."""

    @abstractmethod
    def spans_of(self, seqs: Sequence[int] | np.ndarray) -> dict[int, list[Span]]:
        """The spans of those of the documents that were cut, by number."""

    @abstractmethod
    def titles_of(self, texts: Mapping[int, str]) -> dict[int, str]:
        """The titles of documents to embed, given as number to text."""

    @abstractmethod
    def pending(self, chunk: int, after_seq: int = 0, part: int = 0) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Numbers and texts of documents that lack a vector of a model."""

    @abstractmethod
    def put_vectors(self, seqs: Sequence[int] | np.ndarray, vectors: Vectors, part: int = 0) -> None:
        """Take a model's vectors of documents that :meth:`pending` gave."""

    @abstractmethod
    def clear_vectors(self, part: int = 0) -> None:
        """Make all vectors of a model anew: every document is pending."""

    @abstractmethod
    def iter_vectors(
        self, after_seq: int = 0, chunk: int = 8_192, part: int = 0
    ) -> Iterator[tuple[np.ndarray, Vectors]]:
        """Numbers and vectors, in order."""

    @abstractmethod
    def layout_of(self, part: int) -> Layout | None:
        """Kind and dimension of a model's vectors."""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Id, text and payload of each document."""

    @abstractmethod
    def texts(self) -> Iterator[tuple[int, str]]:
        """A number and the text of each document."""

    @abstractmethod
    def count(self) -> int:
        """Number of documents."""

    @abstractmethod
    def lookup(self, ids: Sequence[Hashable]) -> list[tuple[str, dict[str, Any]] | None]:
        """Text and payload of each of the documents; None for one that is not there."""

    def ids(self) -> list[Hashable]:
        """Ids of all documents."""
        return [row[0] for row in self.rows()]

    def taken(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows of a change; while the caller's iterable is asked for the next one, it must change nothing here."""
        return iter(rows)

    def check_settings(self) -> None:  # noqa: B027
        """Refuse to change what another process has made meanwhile with other settings."""

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Keep others from writing between changes."""
        raise InputError("exclusive() is for an index on this machine: a server has no lock to keep.")

    def holds(self, ids: Sequence[Hashable]) -> list[bool]:
        """Whether each of the documents is there."""
        return [found is not None for found in self.lookup(ids)]

    def missing(self, ids: Sequence[Hashable]) -> list[Hashable]:
        """Those of the ids that are not there."""
        return [document_id for document_id, held in zip(ids, self.holds(ids), strict=True) if not held]

    def __contains__(self, document_id: Hashable) -> bool:
        return not self.missing([document_id])

    @abstractmethod
    def remove(self, ids: Iterable[Hashable]) -> Any:
        """Remove documents."""

    @abstractmethod
    def check_encoder(self, encoder: Encoder, part: int = 0) -> None:
        """Refuse an encoder whose vectors the index cannot hold, before documents are embedded for it."""

    @abstractmethod
    def check_filled(self) -> None:
        """Refuse to search where there are no documents."""

    @abstractmethod
    def search(
        self, queries: Sequence[Any], k: int, parts: Sequence[int] = (0,), want: Want = PLAIN
    ) -> list[list[dict[str, Any]]]:
        """The hits of each query by some of the models; `queries` are its vectors by each of these."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write everything into a directory; the collection stays where it is."""

    @abstractmethod
    def close(self) -> None:
        """Write the index caches, where that saves work later, and give up what is held open."""
