"""From documents to answers: one object that holds a model, its context, a store and an index.

    retriever = Retriever("cde-minilm", key="id", on=["title", "text"])
    retriever.add(documents)          # samples a minicorpus, embeds it once, embeds and indexes the documents
    retriever(["a question"], k=10)   # [[{"id": 17, "similarity": 0.83}, ...]]

The first `add` decides the context; everything later, queries included, is embedded in that same context until
`refresh`. The store is the one source of truth: each `add`, `remove` or `refresh` is one transaction in it, and the
index is a cache that can be rebuilt from it at any time. With ``index="milvus://..."`` a server is both of them
(:mod:`cderetrieval.backend`). This module holds no model mathematics and no file format.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .backend import STORE_FILE as STORE_FILE
from .backend import Opened, create, reopen, save, view_of
from .context.context import Context
from .documents import Row, document_rows, query_texts
from .embedding import ContextSpec, CorpusEmbedder, Model, Settings, is_contextual, with_statistics
from .errors import ContextError, InputError
from .runtime import Here
from .types import Encoder, Hits, Vectors
from .view import check_k

# Documents that are embedded together: enough to sort by length, 10 MB of text at 1,000 characters each.
CHUNK = 10_000


class Retriever(Here):
    """Contextual, dense or sparse retrieval over a collection of documents.

    Parameters
    ----------
    model
        A model's name or directory (see :func:`cderetrieval.load`), a contextual model, or any
        :class:`~cderetrieval.types.Encoder`.
    key
        Field of a document's id.
    on
        Field or fields of its text, joined by spaces; None: ``title``, where there is one, and ``text``.
    context
        Of a contextual model: ``"own"`` (a sample of the first documents added), ``"random"`` (neutral sentences), a
        list of texts, the path of a file, a :class:`~cderetrieval.context.context.Context`, or None (the null context).
        Of a dense model: ``"centre"``, the statistics of the first documents added (see `models.statistics`).
    context_size
        Number of context documents; None: what the model was made for.
    index
        ``"auto"`` (exact while the collection is small, and for sparse vectors); a FAISS factory string, such as
        ``"HNSW32"``; or a collection on a Milvus server, ``"milvus://HOST:PORT/collection"``, or in a Milvus Lite file,
        ``"name.db/collection"``, which then holds everything and may be there already.
    path
        Directory to keep the index in; each change is then on disk when its call returns. None: in memory, until
        `save`.
    device, dtype
        Where and in which number format the model computes.
    seed
        Of the sample.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> retriever = Retriever(tiny_model(), on="text")
    >>> retriever.add([{"id": "a", "text": "owls hunt at night"}, {"id": "b", "text": "bees make honey"}])
    Retriever(2 documents, model='ContextualTransformer', index='auto')
    >>> retriever("what do bees make?", k=1)[0][0]["id"]
    'b'
    """

    def __init__(
        self,
        model: str | Path | Model = "cde-minilm",
        *,
        key: str = "id",
        on: str | Sequence[str] | None = None,
        context: ContextSpec = "own",
        context_size: int | None = None,
        index: str = "auto",
        path: str | Path | None = None,
        device: str | None = None,
        dtype: str = "auto",
        seed: int = 0,
    ) -> None:
        given = str(model) if isinstance(model, Path) else model
        if isinstance(context, str) and context == "centre":
            given, context = with_statistics(given), "own"
        fields = [on] if isinstance(on, str) else None if on is None else list(on)
        name = given if isinstance(given, str) else None
        settings = Settings(name, key, fields, index, context_size, seed)
        self._open(create(settings, path, context), given, context, device, dtype)

    def _open(
        self, opened: Opened, given: Model | str | None, context: ContextSpec, device: str | None, dtype: str
    ) -> None:
        self._opened = opened
        self._store, self._settings, self.path, _ = opened
        self._embedder = CorpusEmbedder(self._store, self._settings, given, context, device, dtype)
        this = weakref.proxy(self)  # a circle would hold the writer's lock until the next garbage collection
        self._view = view_of(opened, lambda: this._embedder.encoder)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: str | Path | Model | None = None,
        device: str | None = None,
        dtype: str = "auto",
    ) -> Retriever:
        """Open a directory that `save` wrote or that a retriever lives in, or a collection on a server.

        Neither the model is loaded nor a document embedded: that waits for the first text.

        Parameters
        ----------
        path
            The directory, or where the collection is, as for ``index=``.
        model
            The model the index was built with; only needed where it was given as an object, or has moved.
        device, dtype
            As for a new retriever.

        Raises
        ------
        StoreError
            If there is no index, or it is damaged; a `ServerError` if a server cannot be reached.
        MismatchError
            If `model` is another than the one that built the index.
        """
        opened = reopen(path)
        given = str(model) if isinstance(model, Path) else model
        retriever = cls.__new__(cls)
        retriever._open(opened, given or opened.settings.model, "own", device, dtype)
        if model is not None:
            try:
                _ = retriever.encoder  # a model that was named is checked now, not at the first query
            except BaseException:
                opened.store.close()
                raise
        return retriever

    def __repr__(self) -> str:
        return f"Retriever({len(self)} documents, model={self._embedder.name!r}, index={self._settings.index!r})"

    def __len__(self) -> int:
        return self._store.count()

    def __contains__(self, document_id: Hashable) -> bool:
        return document_id in self._store

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def encoder(self) -> Encoder:
        """The model in this index's context: what embeds every document and query."""
        return self._embedder.encoder

    @property
    def context(self) -> Context | None:
        """The context of all vectors; None before the first `add`, and for models that take none."""
        return self._embedder.context

    def add(
        self,
        documents: Any,
        *,
        vectors: Vectors | None = None,
        skip_empty: bool = False,
        show_progress: bool = True,
    ) -> Retriever:
        """Add documents; one whose id is there already replaces it. All of them or, after an error, none.

        Parameters
        ----------
        documents
            Dictionaries with the key and text fields, strings (which get the numbers 0, 1, ... as ids), a pandas frame,
            BEIR rows, a dictionary of id to document, or any iterable of these; it is read once and not held.
        vectors
            Ready vectors of the documents, in order, shape (n, dimension), made by this retriever's encoder: an array,
            a scipy csr_array, or term embeddings.
        skip_empty
            Leave out documents with an empty text, and log how many, in place of an error.
        show_progress
            Show progress bars on a terminal.

        Raises
        ------
        InputError
            If a document lacks a field, has an empty text, or shares its id with another of this call.
        """
        settings = self._settings

        def put() -> None:
            next_id = self._store.get_setting("next_id", 0)
            rows = document_rows(documents, settings.key, settings.on, next_id, skip_empty=skip_empty)
            self._put(rows, vectors, show_progress)

        self._change(put)
        return self

    def _put(self, rows: Iterable[Row], vectors: Any = None, show_progress: bool = False) -> None:
        """Store checked documents and their vectors, inside :meth:`_change`."""
        embedder = self._embedder
        numbers = [self._store.get_setting("next_id", 0)]
        rows = _numbered(rows, numbers)
        sampler = embedder.sampler()
        if sampler is not None and vectors is not None:
            raise ContextError(
                "ready vectors were made in some context, and this retriever has none yet: pass it to "
                "Retriever(context=...)."
            )
        first, count = self._store.put_documents(rows if sampler is None else sampler.watch(rows))
        self._store.set_setting("next_id", numbers[-1])
        embedder.decide(sampler, show_progress)
        self._view.check(self.encoder)
        if vectors is None:
            embedder.embed(self._store.pending(CHUNK, after_seq=first - 1), count, show_progress)
        else:
            self._store.put_vectors(np.arange(first, first + count), embedder.checked(vectors, count))

    def remove(self, ids: Hashable | Iterable[Hashable]) -> Retriever:
        """Remove documents by id. All of them or, after an error, none.

        Raises
        ------
        InputError
            If an id is not there.
        """
        wanted = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else [ids]
        with self._store.transaction():
            if missing := self._store.missing(wanted):
                raise InputError(
                    f"{len(missing)} of {len(wanted)} ids are not in this index, the first is {missing[0]!r}. "
                    "Nothing was removed."
                )
            self._store.remove(wanted)
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
            One query, a list of them, a dictionary of query id to query, or ready vectors of shape (n, dimension).
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
            whose sparse vector shares no term with a query's are no hits: there may be fewer than k, or none.

        Raises
        ------
        InputError
            If the index is empty, k is not positive, or a query is empty or no string.
        """
        k = check_k(k)
        query_ids, texts = query_texts(queries)

        vectors, encoder = queries, self._embedder.known
        if texts is not None and encoder is None:
            self._view.check_filled()  # before a model is loaded
            encoder = self.encoder

        def ask() -> list[list[dict[str, Any]]] | None:
            # Another thread or process may have refreshed the context since the queries were embedded.
            if texts is not None and self.encoder is not encoder:
                return None
            return self._view.answer(vectors, k, documents=documents, filter=filter)

        while True:
            if texts is not None and encoder is not None:
                vectors = encoder.encode_query(texts, show_progress=show_progress)
            hits = self._view.reading(ask)
            if hits is not None:
                return Hits(hits, query_ids)
            encoder = self.encoder

    def context_report(self, *, seed: int = 1) -> dict[str, Any]:
        """What the context is, what it costs, and whether the corpus has moved away from it.

        Parameters
        ----------
        seed
            Of the fresh sample of the corpus that the context is compared with.

        Returns
        -------
        dict
            ``source``, ``documents``, ``ids``, ``seed``, ``digest``; ``cache_bytes``, the keys and values that all
            texts share; ``drift``, a :class:`~cderetrieval.context.drift.Drift`, for a context sampled from a corpus.
        """
        return self._embedder.report(seed)

    def refresh(self, context: ContextSpec = "own", *, show_progress: bool = True) -> Retriever:
        """Make a new context and embed every document in it. Until all is done, searches see the index as it was.

        Parameters
        ----------
        context
            As for a new retriever; ``"own"`` samples today's corpus.
        show_progress
            Show progress bars on a terminal.
        """
        if not is_contextual(self._embedder.model):
            raise ContextError("this retriever's model takes no context; there is none to refresh.")
        if len(self) == 0:
            raise InputError("the index is empty: add documents first.")
        embedder = self._embedder.told(context)

        def embed() -> None:
            self._store.set_setting("context", None)
            self._store.set_setting("fingerprint", None)
            sampler = embedder.sampler()
            if sampler is not None:
                for document_id, text, _ in self._store.rows():
                    sampler.offer(document_id, text)
            embedder.decide(sampler, show_progress)
            self._store.clear_vectors()
            embedder.embed(self._store.pending(CHUNK), len(self), show_progress)

        self._change(embed, embedder)
        self._embedder = embedder
        return self

    def save(self, path: str | Path) -> Retriever:
        """Write the index into a directory, which must not hold another one; this retriever stays where it is.

        Of a collection on a server, the directory says where that is.
        """
        save(self._opened, self._view, path)
        return self

    def close(self) -> None:
        """Write the index cache, where the index lives in a directory and was changed, and close the store."""
        try:
            if self.path is not None and self._store.is_writer:
                self._view.save(self.path, self._store)
        finally:
            self._store.close()

    def _change(self, body: Callable[[], None], embedder: CorpusEmbedder | None = None) -> None:
        """One transaction that ends with the settings. What is held in memory follows the store, after errors too."""
        with self._store.transaction():
            body()
            self._store.set_setting("retriever", asdict(self._settings))
            self._store.set_setting("fingerprint", (embedder or self._embedder).encoder.fingerprint)


def _numbered(rows: Iterable[Row], numbers: list[int]) -> Iterator[Row]:
    """Pass rows through; the next string gets a number above all whole-number ids, or it would replace one."""
    for row in rows:
        if isinstance(row[0], int) and row[0] >= numbers[-1]:
            numbers[-1] = row[0] + 1
        yield row
