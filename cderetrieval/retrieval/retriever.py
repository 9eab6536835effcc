"""From documents to answers: one object that holds a model or several, their contexts, a store and its indexes.

    retriever = Retriever("cde-minilm", key="id", on=["title", "text"])
    retriever.add(documents)          # samples a minicorpus, embeds it once, embeds and indexes the documents
    retriever(["a question"], k=10)   # [[{"id": 17, "similarity": 0.83}, ...]]

The first `add` decides the context; everything later, queries included, is embedded in that same context until
`refresh`. The collection (:mod:`.collection`) is the one source of truth: each `add`, `remove` or `refresh` is one
transaction in it. Several models are a hybrid: each has vectors of its own over the same documents, and the rankings
are fused (:mod:`.fusion`). This module holds no model mathematics and no file format.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from ..context.context import Context
from ..context.spec import OWN, ContextLike, ContextSpec
from ..documents import document_rows, query_texts
from ..errors import ContextError, InputError
from ..runtime import Here
from ..types import Encoder, Hits, Vectors
from .collection import Collection, Settings, check_k
from .embedder import Embedder, Model, in_context
from .fusion import Fusion
from .local import LocalCollection
from .names import check_names, given_names, indexes_of, moved_models, parse_models
from .open import create, reopen, save
from .parts import Parts
from .tuning import Tuned, grades_by_row, judged_queries, search_weights

Models = str | Path | Model | Sequence[str | Path | Model] | Mapping[str, str | Path | Model]


class Retriever(Here):
    """Contextual, dense, sparse or hybrid retrieval over a collection of documents.

    Parameters
    ----------
    model
        A model's name or directory (see :func:`cderetrieval.load`), a contextual model, or any
        :class:`~cderetrieval.types.Encoder`. Several of them, as a list, a dictionary of names to models, or
        ``"hybrid:A+B"``, are a hybrid: their rankings are fused.
    key
        Field of a document's id.
    on
        Field or fields of its text, joined by spaces; None: ``title``, where there is one, and ``text``.
    context
        For contextual models: ``"own"`` (a sample of the first documents added), ``"random"`` (neutral sentences), a
        list of texts, the path of a file, a :class:`~cderetrieval.context.context.Context`, or None or ``"null"`` (no
        context). For a dense model: ``"centre"``, the statistics of the first documents added.
    context_size
        Number of context documents; None: what the model was made for.
    index
        ``"auto"`` (exact while the collection is small, and for sparse vectors); a FAISS factory string, such as
        ``"HNSW32"`` (for several models a dictionary of names to these); or a collection on a Milvus server,
        ``"milvus://HOST:PORT/collection"``, or in a Milvus Lite file, ``"name.db/collection"``, which then holds
        everything and may be there already.
    fusion
        How the rankings of several models are fused: ``"rrf"``, ``"weighted"``, or a :class:`~.fusion.Fusion`.
    path
        Directory to keep the index in; each change is then on disk when its call returns. None: in memory, until
        `save`.
    device, dtype
        Where and in which number format models compute.
    seed
        Seed of the random sample that becomes the context.

    Examples
    --------
    >>> from cderetrieval.testing import HashEncoder, tiny_model
    >>> documents = [{"id": "a", "text": "owls hunt at night"}, {"id": "b", "text": "bees make honey"}]
    >>> retriever = Retriever(tiny_model(), on="text").add(documents)
    >>> retriever("what do bees make?", k=1)[0][0]["id"]
    'b'
    >>> Retriever({"contextual": tiny_model(), "hash": HashEncoder()}, on="text").add(documents)
    Retriever(2 documents, models=['contextual', 'hash'], fusion='rrf')
    """

    def __init__(
        self,
        model: Models = "cde-minilm",
        *,
        key: str = "id",
        on: str | Sequence[str] | None = None,
        context: ContextLike | ContextSpec = OWN,
        context_size: int | None = None,
        index: str | Mapping[str, str] = "auto",
        fusion: str | Fusion | None = None,
        path: str | Path | None = None,
        device: str | None = None,
        dtype: str = "auto",
        seed: int = 0,
    ) -> None:
        named, fusion = parse_models(model, fusion)
        spec = ContextSpec.parse(context)
        options: dict[str, Any] = {"context_size": context_size, "seed": seed, "device": device, "dtype": dtype}
        fields = [on] if isinstance(on, str) else None if on is None else list(on)
        if fusion is None:
            embedders = [Embedder(named[""], spec, **options)]
            settings = Settings(embedders[0].name, key, fields, index, context_size, seed)  # type: ignore[arg-type]
        else:
            embedders = in_context([Embedder(one, ContextSpec(), **options) for one in named.values()], spec)
            names = {name: embedder.name for name, embedder in zip(named, embedders, strict=True)}
            settings = Settings(None, key, fields, "auto", context_size, seed, names, indexes_of(index, names), fusion)
        self._open(create(settings, path, spec), embedders)

    def _open(self, collection: Collection, embedders: Sequence[Embedder]) -> None:
        self._collection = collection
        self._settings = collection.settings
        self._parts = Parts.of(collection, embedders)
        self._is_part = False
        this = weakref.proxy(self)  # a circle would hold the writer's lock until the next garbage collection
        collection.word_model = lambda part: list(this._parts.values())[part].encoder

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: str | Path | Model | Mapping[str, str | Path | Model] | None = None,
        device: str | None = None,
        dtype: str = "auto",
    ) -> Self:
        """Open a directory that `save` wrote or that a retriever lives in, or a collection on a server.

        Neither a model is loaded nor a document embedded: that waits for the first text.

        Parameters
        ----------
        path
            The directory, or where the collection is, as for ``index=``.
        model
            The model the index was built with, of several a dictionary of names to models; only needed where one was
            given as an object, or has moved.
        device, dtype
            As for a new retriever.

        Raises
        ------
        StoreError
            If there is no index, or it is damaged; a `ServerError` if a server cannot be reached.
        MismatchError
            If `model` is another than the one that built the index.
        """
        collection = reopen(path)
        try:
            settings = collection.settings
            given = moved_models(settings, model)
            options: dict[str, Any] = {"context_size": settings.context_size, "seed": settings.seed}
            options |= {"device": device, "dtype": dtype}
            retriever = cls.__new__(cls)
            retriever._open(collection, [Embedder(one, ContextSpec(), **options) for one in given.values()])
            for name in given_names(settings, model):
                _ = retriever._parts[name].encoder  # a model that was named is checked now, not at the first query
            if isinstance(collection, LocalCollection) and collection.is_merged:
                retriever._complete()
        except BaseException:
            collection.close()
            raise
        return retriever

    def __repr__(self) -> str:
        if self._settings.fusion is None or self._is_part:
            part = self._parts.first
            what = f"model={part.embedder.title!r}, index={self._settings.factory(part.number)!r}"
        else:
            what = f"models={list(self._parts)}, fusion={self._settings.fusion.method!r}"
        return f"{type(self).__name__}({len(self)} documents, {what})"

    def __len__(self) -> int:
        return self._collection.count()

    def __contains__(self, document_id: Hashable) -> bool:
        return document_id in self._collection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path | None:
        """The directory in which the index lives; None in memory and on a server."""
        return self._collection.directory

    @property
    def collection(self) -> Collection:
        """Where documents, vectors and indexes are; what searches and changes an index below this class."""
        return self._collection

    @property
    def model(self) -> Model:
        """The model, loaded when first asked for; of several the first."""
        return self._parts.first.embedder.model

    @property
    def encoder(self) -> Encoder:
        """The model in this index's context: what embeds every document and query; of several the first."""
        return self._parts.first.encoder

    @property
    def context(self) -> Context | None:
        """The context of all vectors; None before the first `add`, and for models that take none."""
        return next(iter(self.contexts.values()), None)

    @property
    def contexts(self) -> dict[str, Context]:
        """The contexts of several models, by name."""
        return self._parts.contexts

    @property
    def parts(self) -> dict[str, Retriever]:
        """A retriever for each of several models, by name, over the same documents; it searches and changes nothing."""
        return {name: self._only(name) for name in self._parts}

    def _only(self, name: str) -> Retriever:
        only = Retriever.__new__(Retriever)
        only._collection, only._settings, only._is_part = self._collection, self._settings, True
        only._parts = Parts(self._collection, {name: self._parts[name]})
        return only

    @property
    def fusion(self) -> Fusion | None:
        """How the rankings of several models are fused; may be set, and is then kept. None for one model."""
        return self._settings.fusion

    @fusion.setter
    def fusion(self, fusion: Fusion) -> None:
        if self._settings.fusion is None or self._is_part:
            raise InputError("this retriever has one model, and no rankings to fuse.")
        fusion.vector(len(self._parts))
        settings = replace(self._settings, fusion=fusion)
        if self._collection.get_setting("retriever") is not None:
            with self._collection.transaction():
                self._collection.set_setting("retriever", settings.to_dict())
        self._collection.settings = self._settings = settings

    def add(
        self,
        documents: Any,
        *,
        vectors: Vectors | Mapping[str, Vectors] | None = None,
        skip_empty: bool = False,
        show_progress: bool = True,
    ) -> Self:
        """Add documents; one whose id is there already replaces it. All of them or, after an error, none.

        Parameters
        ----------
        documents
            Dictionaries with the key and text fields, strings (which get the numbers 0, 1, ... as ids), a pandas frame,
            BEIR rows, a dictionary of id to document, or any iterable of these; it is read once and not held.
        vectors
            Ready vectors of the documents, in order, shape (n, dimension), made by this retriever's encoder: an array,
            a scipy csr_array, or term embeddings. Of several models a dictionary of names to these; the others embed.
        skip_empty
            Leave out documents with an empty text, and log how many, in place of an error.
        show_progress
            Show progress bars on a terminal.

        Raises
        ------
        InputError
            If a document lacks a field, has an empty text, or shares its id with another of this call.
        """
        ready = self._ready(vectors)
        with self._changing():
            next_id = self._collection.get_setting("next_id", 0)
            rows = document_rows(documents, self._settings.key, self._settings.on, next_id, skip_empty=skip_empty)
            self._parts.put(rows, next_id, ready, show_progress)
        return self

    def _ready(self, vectors: Any) -> dict[str, Any]:
        """Ready vectors by the names of their models."""
        if vectors is None:
            return {}
        if self._settings.fusion is None:
            return {"": vectors}
        if not isinstance(vectors, Mapping):
            raise InputError("there are several models: pass vectors= as a dictionary of their names to vectors.")
        check_names(vectors, self._parts, "vectors=")
        return dict(vectors)

    def remove(self, ids: Hashable | Iterable[Hashable]) -> Self:
        """Remove documents by id. All of them or, after an error, none.

        Raises
        ------
        InputError
            If an id is not there.
        """
        wanted = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else [ids]
        self._check_whole()
        with self._collection.transaction():
            if missing := self._collection.missing(wanted):
                raise InputError(
                    f"{len(missing)} of {len(wanted)} ids are not in this index, the first is {missing[0]!r}. "
                    "Nothing was removed."
                )
            self._collection.remove(wanted)
        return self

    def __call__(
        self,
        queries: str | Sequence[str] | Mapping[Any, str] | Vectors,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        documents: bool = False,
        show_progress: bool = False,
    ) -> Hits:
        """Search.

        Parameters
        ----------
        queries
            One query, a list of them, a dictionary of query id to query, or, for one model, ready vectors of shape
            (n, dimension).
        k
            Most hits for each query.
        filter
            Which documents may be hits, ``{"year": {">=": 2020}, "language": ["en", "fr"]}`` for example (see
            :mod:`cderetrieval.filters`).
        documents
            Give each hit its ``"document"``, as it was added.
        show_progress
            Show a progress bar on a terminal.

        Returns
        -------
        Hits
            For each query a list of ``{"id", "similarity"}``, best first, equal ones in order of insertion. Documents
            whose sparse vector shares no term with a query's are no hits: there may be fewer than k, or none. The
            similarity of several models is the fused score, which means nothing outside this index.

        Raises
        ------
        InputError
            If the index is empty, k is not positive, or a query is empty or no string.
        """
        k = check_k(k)
        query_ids, texts = query_texts(queries)
        if texts is None and len(self._parts) > 1:
            raise InputError("several models have no vectors in common: pass queries as texts, or search one of parts.")
        search = partial(self._search, k=k, filter=filter, documents=documents)
        hits = self._parts.ask(texts, search, show_progress) if texts is not None else None
        return Hits(self._collection.reading(lambda: search([queries])) if hits is None else hits, query_ids)

    def _search(
        self, vectors: list[Any], *, k: int, filter: Mapping[str, Any] | None, documents: bool
    ) -> list[list[dict[str, Any]]]:
        if len(self._parts) > 1 or (self._settings.fusion is not None and not self._is_part):
            assert isinstance(self._collection, LocalCollection)
            assert self._settings.fusion is not None
            return self._collection.fused(vectors, self._settings.fusion, k, filter=filter, documents=documents)
        return self._collection.search(vectors[0], k, self._parts.first.number, filter=filter, documents=documents)

    def tune(self, queries: Any, qrels: Any, k: int = 10, *, show_progress: bool = False) -> Tuned:
        """Choose the weights of several models by nDCG@k on development queries, and keep them.

        Parameters
        ----------
        queries
            Query id to text; those without judgements are left out.
        qrels
            Query id to document id to grade, or another form of judgements that
            :func:`~cderetrieval.judgements.as_qrels` reads.
        k
            Cut-off.
        show_progress
            Show progress bars on a terminal.

        Returns
        -------
        Tuned
            The weights, their score, that of the weights before and of each model alone, all on these queries.

        Raises
        ------
        InputError
            If there is one model, nothing is judged, or no judged document is in the index.
        """
        k, collection, fusion = check_k(k), self._collection, self._settings.fusion
        if fusion is None or self._is_part or not isinstance(collection, LocalCollection):
            raise InputError("this retriever has one model, and no weights to tune.")
        asked, judged = judged_queries(queries, qrels)

        def graded(vectors: list[Any]) -> Any:
            rankings = collection.rankings(vectors, fusion, k)
            return rankings, grades_by_row(judged, list(asked), *collection.numbered_ids())

        rankings, grades = self._parts.ask(list(asked.values()), graded, show_progress)
        tuned = search_weights(list(self._parts), rankings, grades, fusion, k)
        self.fusion = replace(fusion, weights=tuple(tuned.weights.values()))
        return tuned

    def context_report(self, *, seed: int = 1) -> dict[str, Any]:
        """Describe the context: its sample, its cost, and how far the corpus has drifted from it.

        Parameters
        ----------
        seed
            Seed of the fresh sample of the corpus that the context is compared with.

        Returns
        -------
        dict
            ``source``, ``documents``, ``ids``, ``seed``, ``digest``; ``cache_bytes``, the keys and values that all
            texts share; ``drift``, a :class:`~cderetrieval.context.drift.Drift`, for a context sampled from a corpus.
            Of several models, such a dictionary for each that takes a context, by name.
        """
        if self._settings.fusion is None or self._is_part:
            return self._parts.first.report(seed)
        if not self.contexts:
            raise ContextError("this hybrid has no context: none of its models takes one, or nothing was added yet.")
        return {name: self._parts[name].report(seed) for name in self.contexts}

    def refresh(self, context: ContextLike | ContextSpec = OWN, *, show_progress: bool = True) -> Self:
        """Make a new context and embed every document in it. Until all is done, searches see the index as it was.

        Parameters
        ----------
        context
            As for a new retriever; ``"own"`` samples today's corpus.
        show_progress
            Show progress bars on a terminal.
        """
        if not any(part.embedder.takes_context for part in self._parts.values()):
            raise ContextError("this retriever's model takes no context; there is none to refresh.")
        if len(self) == 0:
            raise InputError("the index is empty: add documents first.")
        with self._changing():
            parts = self._parts.refresh(context, show_progress)
        self._parts = parts
        return self

    def save(self, path: str | Path) -> Self:
        """Write the index into a directory, which must not hold another one; this retriever stays where it is.

        Of a collection on a server, the directory says where that is.
        """
        save(self._collection, path)
        return self

    def close(self) -> None:
        """Write the index cache, where the index lives in a directory and was changed, and close the store."""
        self._collection.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction that ends with the settings."""
        self._check_whole()
        with self._collection.transaction():
            yield
            self._collection.set_setting("retriever", self._settings.to_dict())

    def _complete(self) -> None:
        with self._changing():
            self._parts.complete()

    def _check_whole(self) -> None:
        if self._is_part:
            raise InputError("this retriever is one model of a hybrid: change the hybrid, which changes all of them.")
