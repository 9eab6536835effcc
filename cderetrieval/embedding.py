"""A model in the context of one index: what embeds every document and query of it.

The context is decided once, by the first documents or by what the user said, and kept in the store beside the vectors
that were made in it, together with the encoder's fingerprint. Any other encoder is refused from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from .context.context import Context
from .context.drift import Drift, measure_drift
from .context.sample import Sampler
from .context.spec import ContextSpec as Spec
from .errors import ConfigError, ContextError, InputError, MismatchError, ModelError
from .recognition import has_made, may_be
from .runtime import progress
from .store import Store
from .store.turns import Turns
from .types import ContextualModel, Encoder, Vectors
from .types import is_contextual as is_contextual
from .vectors import DENSE, Layout, as_vectors, checked, weights_of

logger = logging.getLogger(__name__)

Model = ContextualModel | Encoder
# Models that have no vectors: their index is made from the texts.
LEXICAL = "lexical"
# Documents whose term embeddings are held at a time.
EMBEDDED = 2_000
UNLIKE = "weights, tokenizer, prompts or length limit differ"
ContextSpec = Context | Sequence[str] | str | Path | None


@dataclass(frozen=True)
class Settings:
    """What a retriever remembers about itself; kept in its store.

    Attributes
    ----------
    model
        Name or directory of the model; None where it was given as an object.
    key, on
        Field of the id, fields of the text (None: ``title``, where there is one, and ``text``).
    index
        ``"auto"`` or a FAISS factory string.
    context_size, seed
        Of the sample; size None: what the model was made for.
    """

    model: str | None
    key: str = "id"
    on: list[str] | None = None
    index: str = "auto"
    context_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.key:
            raise ConfigError("key='' names no field; it is the field of a document's id.")
        if self.on is not None and not self.on:
            raise ConfigError("on=[] names no field; name the fields of the text, or leave it out.")
        if self.context_size is not None and self.context_size < 1:
            raise ConfigError(f"context_size={self.context_size!r} must be at least 1; for none pass context=None.")


def _report_empty(terms: np.ndarray, first: int) -> None:
    """Say which documents no query can find, since no term of theirs has a weight.

    A few such texts (a row of dashes, a language that the model has never seen) must not end a job of hours, so they
    are stored, warned of, and never found. Where a call begins with nothing else, the model has collapsed: an error.

    Raises
    ------
    InputError
        If no document has a term.
    """
    empty = np.flatnonzero(terms == 0)
    if not len(empty):
        return
    if len(empty) == len(terms) and first == 0:
        raise InputError(
            f"the sparse vectors of documents {first} to {first + len(terms) - 1} are all zero: no query could find "
            "one. Check that the model was trained as a sparse encoder and knows the language of these texts."
        )
    logger.warning(
        "%d of %d documents have an all-zero sparse vector, the first is document %d: no query will find them.",
        len(empty),
        len(terms),
        first + int(empty[0]),
    )


def with_statistics(model: Model | str | None) -> Model | str:
    """The model that ``context="centre"`` asks for: a dense one that takes the statistics of a corpus.

    Raises
    ------
    ContextError
        If the model takes a context already, or is not dense.
    """
    if isinstance(model, str):
        return model if model.startswith("centre:") else f"centre:{model}"
    from .models.dense import DenseEncoder
    from .models.statistics import StatisticsModel

    if not isinstance(model, DenseEncoder):
        raise ContextError(
            f"context='centre' gives a context to a DenseEncoder, not to {type(model).__name__}. Leave it out, or pass "
            "a dense model."
        )
    return StatisticsModel(model)


def _mismatch(name: str | None, stored: str, given: str, why: str = UNLIKE) -> str:
    return (
        f"this index was built by model {name or 'given as an object'} with fingerprint {stored[:12]}, not "
        f"{given[:12]}: {why}. Open it with the model that built it, or build a new index."
    )


@dataclass(frozen=True)
class Made:
    """What was made for the context of a digest: replaced as a whole, so that threads never see a half of two."""

    digest: str | None = None
    context: Context | None = None
    encoder: Encoder | None = None


class CorpusEmbedder:
    """The model of an index, its context, and the encoder that the two make.

    Parameters
    ----------
    store
        Where context, vectors and fingerprint are kept.
    settings
        Of the retriever.
    given
        The model, its name, or None where nobody has said.
    spec
        What the user said of the context.
    device, dtype
        Where and in which number format the model computes.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        given: Model | str | None,
        spec: ContextSpec,
        device: str | None,
        dtype: str,
    ) -> None:
        self._store = store
        self._settings = settings
        self._given = given
        self._spec = spec
        self._device, self._dtype = device, dtype
        self._model: Model | None = None
        self._made = Made()
        self._turns = Turns()

    @property
    def name(self) -> str:
        """What to call the model; it is not loaded for that."""
        return self._settings.model or ("given as an object" if self._given is None else type(self._given).__name__)

    @property
    def model(self) -> Model:
        """The model, loaded when first asked for, by one thread: transformers loads one model at a time."""
        if self._model is None:
            with self._turns.turn("model"):
                return self._load()
        return self._model

    def _load(self) -> Model:
        if self._model is None:
            if self._given is None:
                raise MismatchError(
                    "this index was built with a model that was given as an object. Open it with "
                    "Retriever.load(path, model=that_model)."
                )
            if isinstance(self._given, str):
                from .models.load import load

                self._model = load(self._given, device=self._device, dtype=self._dtype)
            else:
                self._model = self._given
        return self._model

    @property
    def context(self) -> Context | None:
        """The context of all stored vectors; None before it is decided, and for models that take none."""
        return self._now().context

    def _now(self) -> Made:
        digest, made = self._store.get_setting("context"), self._made
        if made.digest != digest:
            # Decided in another process, or refreshed there since it was last read here; or a change was undone.
            made = Made(digest, None if digest is None else Context.restore(*self._store.get_context(digest)))
            self._made = made
        return made

    @property
    def known(self) -> Encoder | None:
        """The encoder that was last asked for, without a look at the store; None before that."""
        return self._made.encoder

    @property
    def encoder(self) -> Encoder:
        """The model in the context.

        Raises
        ------
        ContextError
            If the context is to be sampled from documents that have not been added yet.
        MismatchError
            If the stored vectors were made by another encoder.
        """
        made = self._now()
        if made.encoder is not None:
            return made.encoder
        encoder = self._build(made.context)
        stored = self._store.get_setting("fingerprint")
        if stored is not None and not has_made(encoder, self._store, stored):
            raise MismatchError(_mismatch(self._settings.model, stored, encoder.fingerprint, self._difference(encoder)))
        self._made = replace(made, encoder=encoder)
        return encoder

    def _build(self, context: Context | None) -> Encoder:
        model = self.model
        if not is_contextual(model):
            return cast(Encoder, model)
        if context is None:
            raise ContextError("the context is sampled by the first add: add documents, or pass context=.")
        if not may_be(model, context.model):
            raise MismatchError(_mismatch(self._settings.model, context.model, model.fingerprint))
        return context.encoder(model, dtype=self._dtype, checked=True)

    def _difference(self, encoder: Encoder) -> str:
        """What differs from the encoder of the stored vectors, as plainly as can be said."""
        layout = self._store.layout
        given = Layout.of_encoder(encoder)
        if layout in (None, given):
            return UNLIKE
        return f"it holds {layout}, and {type(encoder).__name__} makes {given}"

    def forget(self, spec: ContextSpec = "own") -> None:
        """Drop what is held in memory; the store says what is true. `spec` is for the next :meth:`decide`."""
        self._spec = spec
        self._made = Made()

    def told(self, spec: ContextSpec) -> CorpusEmbedder:
        """One like this with something else said of the context; this one stays as it is."""
        other = copy(self)
        other.forget(spec)
        return other

    def sampler(self) -> Sampler | None:
        """What must watch the documents go by, where the context is to be sampled from them."""
        model = self.model
        if (
            not is_contextual(model)
            or self.context is not None
            or not isinstance(self._spec, str)
            or self._spec != "own"
        ):
            return None
        return Sampler(self._settings.context_size or model.context_size, self._settings.seed)

    def decide(self, sampler: Sampler | None, show_progress: bool) -> None:
        """Make and store the context of a contextual model that has none yet.

        Parameters
        ----------
        sampler
            From :meth:`sampler`, after it has seen all documents.
        show_progress
            Show a progress bar on a terminal.
        """
        model = self.model
        if not is_contextual(model):
            if self._spec is not None and not (isinstance(self._spec, str) and self._spec == "own"):
                raise ContextError(
                    "context= was given, but this model is not contextual. Leave it out, or use a contextual model, "
                    "'cde-minilm' for example."
                )
            return
        if self.context is not None:
            return
        seed, size = self._settings.seed, self._settings.context_size
        if sampler is None:
            context = Spec.parse(self._spec).make(model, seed=seed, size=size, show_progress=show_progress)
        else:
            ids, texts = zip(*sampler.items(), strict=True)
            context = Context.from_texts(
                model, texts, ids=ids, source="own", seed=seed, size=size, show_progress=show_progress
            )
        self._store.put_context(context.digest, context.describe(), context.arrays())
        self._store.set_setting("context", context.digest)

    def embed(self, chunks: Iterable[tuple[np.ndarray, list[str]]], total: int, show_progress: bool) -> None:
        """Embed stored texts, chunk by chunk, and store their vectors; a lexical model has none."""
        encoder = self.encoder
        if encoder.kind == LEXICAL:
            return
        done = 0
        with progress(range(total), "embedding documents", show=show_progress) as bar:
            for seqs, texts in self._portions(chunks):
                try:
                    vectors = encoder.encode_document(texts)
                except ModelError as error:
                    raise ModelError(f"documents {done} to {done + len(texts) - 1}: {error}") from error
                self._store.put_vectors(seqs, self.checked(vectors, len(texts), done))
                done += len(texts)
                bar.update(len(texts))

    def _portions(self, chunks: Iterable[tuple[np.ndarray, list[str]]]) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Smaller chunks for term embeddings: 10,000 documents of 124 terms and 64 dimensions are 320 MB."""
        for seqs, texts in chunks:
            size = EMBEDDED if Layout.of_encoder(self.encoder).embedding_size else max(1, len(texts))
            for start in range(0, len(texts), size):
                yield seqs[start : start + size], texts[start : start + size]

    def checked(self, vectors: Any, count: int, first: int = 0) -> Vectors:
        """Check the kind, shape and numbers of document vectors before they are stored; `first` is the first's row."""
        if self.encoder.kind == LEXICAL:
            raise InputError(f"{type(self.encoder).__name__} has no vectors: leave out vectors=.")
        layout = Layout.of_encoder(self.encoder)
        given = as_vectors(vectors, "document")
        expected = (count, layout.dimension)
        if given.shape[:1] != expected[:1] or (layout.kind == DENSE and given.shape != expected):
            raise InputError(f"vectors have shape {given.shape}; {count} documents of this encoder need {expected}.")
        found = checked(given, layout, "document", first)
        if layout.kind != DENSE:
            _report_empty(np.diff(weights_of(found).indptr), first)
        return found

    def report(self, seed: int) -> dict[str, Any]:
        """What the context is, what it costs, and whether the corpus has moved away from it."""
        context = self.context
        if context is None:
            raise ContextError("this retriever has no context: its model takes none, or nothing was added yet.")
        report = {**context.describe(), "cache_bytes": getattr(self.encoder, "cache_bytes", 0), "drift": None}
        if context.source == "own" and context.embeddings is not None and self._store.count():
            report["drift"] = self._drift(context.embeddings, seed)
        return report

    def _drift(self, embeddings: np.ndarray, seed: int) -> Drift:
        """Compare the context with a fresh sample of the corpus, drawn under another seed."""
        model = self.model
        assert is_contextual(model)
        sampler = Sampler(len(embeddings), self._settings.seed + seed)
        for number, text in self._store.texts():
            sampler.offer(number, text)
        fresh = model.embed_context(sampler.texts())
        # Where a small corpus was repeated to fill the context, each document counts once.
        distinct = np.unique(embeddings.reshape(len(embeddings), -1), axis=0)
        return measure_drift(distinct, fresh.reshape(len(fresh), -1), seed=seed)
