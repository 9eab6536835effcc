"""A model that becomes an encoder in a context, and turns texts into checked vectors. It knows no store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ..context.context import Context
from ..context.drift import Drift, measure_drift
from ..context.sample import Sampler
from ..context.spec import CENTRE, ContextLike, ContextSpec
from ..errors import ContextError, InputError, MismatchError, ModelError
from ..models.document_context import DocumentContext, Units, encode_passages
from ..runtime import Compute
from ..splitting import Span
from ..store.turns import Turns
from ..types import ContextualModel, Encoder, is_contextual
from ..vectors import DENSE, Layout, Vectors, as_vectors, checked, spans, weights_of

logger = logging.getLogger(__name__)

Model = ContextualModel | Encoder
# Models that have no vectors: their index is made from the texts.
LEXICAL = "lexical"
# Passages that are embedded together, enough to sort them by length; and those whose term embeddings are held at a
# time: 10,000 of 124 terms and 64 dimensions would be 320 MB.
PASSAGES, EMBEDDED = 10_000, 2_000


class CutDocument(NamedTuple):
    """A document to embed: its number, text, spans and title; no spans: in one piece."""

    seq: int
    text: str
    spans: Sequence[Span] = ()
    title: str = ""


class Embedder:
    """A model, loaded when first needed, and what the user said of its context."""

    def __init__(
        self,
        given: Model | str | Path | None,
        spec: ContextSpec,
        *,
        context_size: int | None = None,
        seed: int = 0,
        device: str | None = None,
        dtype: str = "auto",
        runtime: str = "auto",
        precision: str | None = None,
    ) -> None:
        given = str(given) if isinstance(given, Path) else given
        if not (given is None or isinstance(given, str) or is_contextual(given) or hasattr(given, "encode_document")):
            raise InputError(
                f"model is {type(given).__name__}; pass a name, a directory, a contextual model or an Encoder."
            )
        self._given = with_statistics(given) if spec.source == CENTRE else given
        self._spec = ContextSpec() if spec.source == CENTRE else spec
        self._size, self._seed = context_size, seed
        self._compute = Compute(device, dtype, runtime, precision or Compute.precision)
        self._model: Model | None = None
        self._turns = Turns()

    @property
    def name(self) -> str | None:
        """Name or directory of the model; None where it was given as an object."""
        return self._given if isinstance(self._given, str) else None

    @property
    def title(self) -> str:
        """What to call the model; it is not loaded for that."""
        return self.name or ("given as an object" if self._given is None else type(self._given).__name__)

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
                from ..models.load import load

                self._model = load(self._given, **asdict(self._compute))
            else:
                self._model = self._given
        return self._model

    @property
    def takes_context(self) -> bool:
        """Whether the model needs a context."""
        return is_contextual(self.model)

    def told(self, context: ContextLike | ContextSpec) -> Embedder:
        """The same model with something else said of the context; this one stays as it is."""
        spec = ContextSpec.parse(context)
        if spec.source == CENTRE:
            raise ContextError("context='centre' makes another model of a dense one: name that model 'centre:MODEL'.")
        other = copy(self)
        other._spec = spec
        return other

    def sampler(self) -> Sampler | None:
        """What must watch the documents go by, where the context is to be sampled from them."""
        model = self.model
        if not is_contextual(model) or not self._spec.is_own:
            return None
        return Sampler(self._size or model.context_size, self._seed)

    def make_context(self, sampler: Sampler | None, show_progress: bool) -> Context | None:
        """The context of a contextual model; `sampler` is that of :meth:`sampler`, after it has seen all documents."""
        model = self.model
        if is_contextual(model):
            pool = sampler or ()
            return self._spec.make(model, pool, seed=self._seed, size=self._size, show_progress=show_progress)
        if not self._spec.is_own:
            raise ContextError(
                "context= was given, but this model is not contextual. Leave it out, or use a contextual model, "
                "'cde-minilm' for example."
            )
        return None

    def encoder(self, context: Context | None) -> Encoder:
        """The model in a context."""
        model = self.model
        if not is_contextual(model):
            return cast(Encoder, model)
        if context is None:
            raise ContextError("the context is sampled by the first add: add documents, or pass context=.")
        return context.encoder(model, dtype=self._compute.dtype, checked=True)

    def drift(self, context: Context, texts: Iterator[tuple[int, str]], seed: int) -> Drift | None:
        """Compare a context that was sampled from a corpus with a fresh sample of it."""
        model = self.model
        if context.source != "own" or context.embeddings is None or not is_contextual(model):
            return None
        embeddings = context.embeddings
        sampler = Sampler(len(embeddings), self._seed + seed)
        for number, text in texts:
            sampler.offer(number, text)
        if not sampler.offered:
            return None
        fresh = model.embed_context(sampler.texts())
        # Where a small corpus was repeated to fill the context, each document counts once.
        distinct = np.unique(embeddings.reshape(len(embeddings), -1), axis=0)
        return measure_drift(distinct, fresh.reshape(len(fresh), -1), seed=seed)


def embed(
    encoder: Encoder, documents: Sequence[CutDocument], context: DocumentContext, first: int
) -> Iterator[tuple[int, np.ndarray, Vectors]]:
    """How many documents, and numbers and checked vectors of their passages, in portions.

    `first` is the row of the first document, for messages.
    """
    counts = np.array([max(1, len(document.spans)) for document in documents])
    most = EMBEDDED if Layout.of_encoder(encoder).embedding_size else PASSAGES
    for rows in portions(counts, most):
        some, row = [documents[i] for i in rows], first + int(rows[0])
        try:
            vectors = encode_passages(encoder, Units.of(document[1:] for document in some), context)
        except ModelError as error:
            raise ModelError(f"documents {row} to {row + len(some) - 1}: {error}") from error
        numbers = spans(np.array([document.seq for document in some]), counts[rows])
        yield len(some), numbers, checked_documents(encoder, vectors, len(numbers), row)


def portions(counts: np.ndarray, most: int) -> list[np.ndarray]:
    """Rows in portions of about `most` passages; a document is in one of them, whole."""
    before = np.cumsum(counts) - counts
    return np.split(np.arange(len(counts)), np.flatnonzero(np.diff(before // most)) + 1)


def checked_documents(encoder: Encoder, vectors: Any, count: int, first: int = 0) -> Vectors:
    """Check the kind, shape and numbers of document vectors before they are stored; `first` is the first's row."""
    if encoder.kind == LEXICAL:
        raise InputError(f"{type(encoder).__name__} has no vectors: leave out vectors=.")
    layout = Layout.of_encoder(encoder)
    given = as_vectors(vectors, "document")
    expected = (count, layout.dimension)
    if given.shape[:1] != expected[:1] or (layout.kind == DENSE and given.shape != expected):
        raise InputError(f"vectors have shape {given.shape}; {count} documents of this encoder need {expected}.")
    found = checked(given, layout, "document", first)
    if layout.kind != DENSE:
        _report_empty(np.diff(weights_of(found).indptr), first)
    return found


def _report_empty(terms: np.ndarray, first: int) -> None:
    """Warn of documents that no query can find, since no term of theirs has a weight.

    A few such texts (a row of dashes, a language that the model has never seen) must not end a job of hours. Where a
    call begins with nothing else, the model has collapsed: an error.
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
    """The model that ``context="centre"`` asks for: a dense one that takes the statistics of a corpus."""
    if isinstance(model, str):
        return model if model.startswith("centre:") else f"centre:{model}"
    from ..models.dense import DenseEncoder
    from ..models.statistics import StatisticsModel

    if not isinstance(model, DenseEncoder):
        raise ContextError(
            f"context='centre' gives a context to a DenseEncoder, not to {type(model).__name__}. Leave it out, or pass "
            "a dense model."
        )
    return StatisticsModel(model)


def in_context(embedders: Sequence[Embedder], spec: ContextSpec) -> list[Embedder]:
    """Several models, the contextual ones told what their context is to be."""
    if spec.is_own:
        return list(embedders)
    if spec.source == CENTRE:
        raise ContextError("context='centre' makes another model of a dense one: name that part 'centre:MODEL'.")
    if not any(embedder.takes_context for embedder in embedders):
        raise ContextError("context= was given, but no part of this hybrid is contextual. Leave it out.")
    return [embedder.told(spec) if embedder.takes_context else embedder for embedder in embedders]
