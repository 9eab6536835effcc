"""The models of a retriever, side by side over one collection: what is done with each of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..context.context import Context
from ..context.spec import ContextLike, ContextSpec
from ..documents import Row
from ..errors import ContextError, InputError
from ..types import Encoder
from .collection import Collection
from .cut import splitter_for
from .embedder import Embedder, embed_queries
from .models import check_names
from .part import Part

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Parts(dict[str, Part]):
    """Parts by name; one model alone has the name ``""``."""

    def __init__(self, collection: Collection, parts: Mapping[str, Part]) -> None:
        super().__init__(parts)
        self._collection = collection

    @classmethod
    def of(cls, collection: Collection, embedders: Sequence[Embedder]) -> Parts:
        """A part for each model of a collection."""
        names = collection.settings.models or [""]
        parts = [Part(collection, number, embedder) for number, embedder in enumerate(embedders)]
        return cls(collection, dict(zip(names, parts, strict=True)))

    @property
    def first(self) -> Part:
        """The first of them, or the only one."""
        return next(iter(self.values()))

    @property
    def contexts(self) -> dict[str, Context]:
        """Contexts by name; of parts that have one."""
        found = {name: part.context for name, part in self.items()}
        return {name: context for name, context in found.items() if context is not None}

    def ready(self, vectors: Any) -> dict[str, Any]:
        """Ready vectors by the names of their models."""
        if vectors is None:
            return {}
        if list(self) == [""]:
            return {"": vectors}
        if not isinstance(vectors, Mapping):
            raise InputError("there are several models: pass vectors= as a dictionary of their names to vectors.")
        check_names(vectors, self, "vectors=")
        return dict(vectors)

    def put(self, rows: Iterable[Row], next_id: int, ready: Mapping[str, Any], show_progress: bool) -> None:
        """Store documents, decide contexts, and embed, inside a transaction; `ready` vectors are not made."""
        samplers = {name: part.sampler() for name, part in self.items()}
        if any(samplers[name] is not None for name in ready):
            raise ContextError(
                "ready vectors were made in some context, and this retriever has none yet: pass it to "
                "Retriever(context=...)."
            )
        splitter = splitter_for(self._collection, list(self.values()), ready=bool(ready))
        numbers = [next_id]
        rows = _numbered(rows, numbers)
        for sampler in samplers.values():
            rows = rows if sampler is None else sampler.watch(rows)
        first, count = self._collection.put_documents(rows, splitter)
        self._collection.set_setting("next_id", numbers[-1])
        if self._collection.passages.how is not None:
            self._collection.set_setting("passages", self._collection.passages.how)
        passages = count
        if splitter is not None and splitter.documents:
            passages += splitter.spans - splitter.documents
            found = splitter.spans - splitter.heads
            logger.info("%d of %d documents were split into %d passages.", splitter.documents, count, found)
        for name, part in self.items():
            part.decide(samplers[name], show_progress)
            if name in ready:
                part.put(ready[name], first, passages)
            else:
                part.embed(count, show_progress, after_seq=first - 1)

    def complete(self) -> None:
        """Embed what a model has no vectors of, inside a transaction."""
        for part in self.values():
            if not part.is_complete:
                part.decide(part.sampled(), show_progress=False)
                part.embed(self._collection.count(), show_progress=False)

    def refresh(self, context: ContextLike | ContextSpec, show_progress: bool) -> Parts:
        """Embed everything in a new context, inside a transaction; parts to take the place of these."""
        refreshed = dict(self)
        for name, part in self.items():
            if part.embedder.takes_context:
                refreshed[name] = part.refresh(part.embedder.told(context), show_progress)
        return Parts(self._collection, refreshed)

    def ask(self, texts: Sequence[str], search: Callable[[list[Any]], T], show_progress: bool) -> T:
        """What `search` answers to the vectors of queries by all models."""
        parts = list(self.values())
        if any(part.known is None for part in parts):
            self._collection.check_filled()  # before a model is loaded
        while True:
            encoders = [part.known or part.encoder for part in parts]
            vectors = [embed_queries(encoder, texts, show_progress) for encoder in encoders]

            def answer(encoders: list[Encoder] = encoders, vectors: list[Any] = vectors) -> T | None:
                # Another thread or process may have refreshed a context since the queries were embedded.
                same = all(part.encoder is encoder for part, encoder in zip(parts, encoders, strict=True))
                return search(vectors) if same else None

            found = self._collection.reading(answer)
            if found is not None:
                return found


def _numbered(rows: Iterable[Row], numbers: list[int]) -> Iterator[Row]:
    """Pass rows through; the next string gets a number above all whole-number ids, or it would replace one."""
    for row in rows:
        if isinstance(row[0], int) and row[0] >= numbers[-1]:
            numbers[-1] = row[0] + 1
        yield row
