"""One model of a retriever: its embedder, and its context and vectors in the collection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ..context.context import Context
from ..context.sample import Sampler
from ..errors import ContextError, MismatchError
from ..models.document_context import DocumentContext
from ..runtime import progress
from ..store.snapshots import of_part
from ..types import Encoder
from ..vectors import Layout
from .collection import Collection
from .embedder import LEXICAL, CutDocument, Embedder, checked_documents, embed
from .recognition import has_made, may_be

UNLIKE = "weights, tokenizer, prompts or length limit differ"
# Documents that are embedded together: enough to sort by length, 10 MB of text at 1,000 characters each.
CHUNK = 10_000


@dataclass(frozen=True)
class Made:
    """What was made for the context of a digest: replaced as a whole, so that threads never see a half of two."""

    digest: str | None = None
    context: Context | None = None
    encoder: Encoder | None = None


class Part:
    """A model at its place, `number`, in a collection."""

    def __init__(self, collection: Collection, number: int, embedder: Embedder) -> None:
        self.number, self.embedder = number, embedder
        self.context_key = of_part("context", number)
        # What was made last; another process may have changed the context since.
        self.made = Made()
        self._collection = collection

    @property
    def context(self) -> Context | None:
        """The context of all stored vectors; None before it is decided, and for models that take none."""
        return self._now().context

    def _now(self) -> Made:
        digest, made = self._collection.get_setting(self.context_key), self.made
        if made.digest != digest:
            # Decided in another process, or refreshed there since it was last read here; or a change was undone.
            context = None if digest is None else Context.restore(*self._collection.get_context(digest))
            self.made = made = Made(digest, context)
        return made

    @property
    def encoder(self) -> Encoder:
        """The model in the context."""
        return cast(Encoder, self.ready().encoder)

    def ready(self) -> Made:
        """The context of now, with the encoder."""
        made = self._now()
        if made.encoder is not None:
            return made
        model, stored = self.embedder.model, self._get("fingerprint")
        if made.context is not None and not may_be(model, made.context.model):
            raise MismatchError(self._mismatch(made.context.model, model.fingerprint))
        encoder = self.embedder.encoder(made.context)
        if stored is not None and not has_made(encoder, self._collection, self.number, stored):
            if self._get("context") != made.digest:  # refreshed by another process meanwhile
                return self.ready()
            raise MismatchError(self._mismatch(stored, encoder.fingerprint, self._difference(encoder)))
        self.made = made = replace(made, encoder=encoder)
        return made

    def _mismatch(self, stored: str, given: str, why: str = UNLIKE) -> str:
        return (
            f"this index was built by model {self._name() or 'given as an object'} with fingerprint {stored[:12]}, not "
            f"{given[:12]}: {why}. Open it with the model that built it, or build a new index."
        )

    def _name(self) -> str | None:
        """Name of the model that built the index."""
        settings = self._collection.settings
        return settings.model if settings.models is None else list(settings.models.values())[self.number]

    def check(self) -> None:
        """Refuse another model than the one that built the index; one of the same name is checked when it is used."""
        if self.embedder.name is None or self.embedder.name != self._name():
            _ = self.encoder

    def _difference(self, encoder: Encoder) -> str:
        """What differs from the encoder of the stored vectors, as plainly as can be said."""
        layout, given = self._collection.layout_of(self.number), Layout.of_encoder(encoder)
        if layout in (None, given):
            return UNLIKE
        return f"it holds {layout}, and {type(encoder).__name__} makes {given}"

    @property
    def document(self) -> DocumentContext:
        """What a passage takes in of its document: as it was kept, else as it is wanted."""
        kept = self._get("document")
        wanted = self._collection.document if kept is None else kept
        return DocumentContext.of(wanted, self.embedder.model)

    @property
    def is_complete(self) -> bool:
        """Whether the model has vectors of all documents, or is one of words, which has none."""
        if self._get("fingerprint") is None:
            return False
        unknown = self._collection.layout_of(self.number) is None
        return unknown or next(self._collection.pending(1, part=self.number), None) is None

    def sampler(self) -> Sampler | None:
        """What must watch the documents go by, where the context is to be sampled from them."""
        return self.embedder.sampler() if self.context is None else None

    def sampled(self) -> Sampler | None:
        """What :meth:`sampler` gives, after it has seen all documents that are there."""
        sampler = self.sampler()
        if sampler is not None:
            for document_id, text, _ in self._collection.rows():
                sampler.offer(document_id, text)
        return sampler

    def decide(self, sampler: Sampler | None, show_progress: bool) -> None:
        """Make and keep the context, where there is none yet; and note the encoder."""
        if self.context is None:
            context = self.embedder.make_context(sampler, show_progress)
            if context is not None:
                self._collection.put_context(context.digest, context.describe(), context.arrays())
                self._set("context", context.digest)
        if self._collection.passages.how is not None:
            self._set("document", self.document.to_dict())
        self._set("fingerprint", self.encoder.fingerprint)
        self._collection.check_encoder(self.encoder, self.number)

    def embed(self, total: int, show_progress: bool, after_seq: int = 0) -> None:
        """Embed the documents above a number that have no vector yet; a model of words has none."""
        encoder, done = self.encoder, 0
        if encoder.kind == LEXICAL:
            return
        with progress(range(total), "embedding documents", show=show_progress) as bar:
            for seqs, texts in self._collection.pending(CHUNK, after_seq, self.number):
                known, cut = dict(zip(seqs.tolist(), texts, strict=True)), self._collection.spans_of(seqs)
                titles = self._collection.titles_of({seq: known[seq] for seq in cut})
                documents = [
                    CutDocument(seq, text, cut.get(seq, ()), titles.get(seq, "")) for seq, text in known.items()
                ]
                for count, some, vectors in embed(encoder, documents, self.document, done):
                    self._collection.put_vectors(some, vectors, self.number)
                    done += count
                    bar.update(count)

    def put(self, vectors: Any, first: int, count: int) -> None:
        """Keep ready vectors of documents that were just put."""
        checked = checked_documents(self.encoder, vectors, count)
        self._collection.put_vectors(np.arange(first, first + count), checked, self.number)

    def refresh(self, embedder: Embedder, show_progress: bool) -> Part:
        """Embed everything in a new context, inside a transaction; a part to take the place of this one."""
        part = Part(self._collection, self.number, embedder)
        part._set("context", None)
        part._set("fingerprint", None)
        part.decide(part.sampled(), show_progress)
        self._collection.clear_vectors(self.number)
        part.embed(self._collection.count(), show_progress)
        return part

    def report(self, seed: int) -> dict[str, Any]:
        """What the context is, what it costs, and whether the corpus has moved away from it."""
        context = self.context
        if context is None:
            raise ContextError("this retriever has no context: its model takes none, or nothing was added yet.")
        drift = self.embedder.drift(context, self._collection.texts(), seed)
        return {**context.describe(), "cache_bytes": getattr(self.encoder, "cache_bytes", 0), "drift": drift}

    def _get(self, key: str) -> Any:
        return self._collection.get_setting(of_part(key, self.number))

    def _set(self, key: str, value: Any) -> None:
        self._collection.set_setting(of_part(key, self.number), value)
