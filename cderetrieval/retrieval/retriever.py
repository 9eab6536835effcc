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

import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack

from ..context.spec import OWN, ContextLike, ContextSpec
from ..errors import InputError
from ..files import closing_on_error
from ..milvus.location import is_location
from ..models.document_context import DocumentContext, DocumentContextLike
from ..models.locate import DEFAULT_MODEL
from ..passages import AUTO, Cut, Passages, PassagesLike
from ..queries import check_k
from ..runtime import Compute
from .collection import Collection, Settings
from .embedder import Embedder, Model
from .fusion import Fusion
from .local import INCOMPLETE, LocalCollection
from .names import Models, begin, moved_models, options_of
from .open import Options, asked_models, check_options, create, holds_index, reopen, save
from .part import Part
from .rerank import Reranker, RerankLike
from .searcher import Searcher
from .tuning import Tuned, grades_by_row, judged_queries, search_weights
from .updater import Updater


class Retriever(Updater):
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
    passages
        How documents become passages, each with a vector of its own; a document is found by its best one. ``"auto"``:
        one that fits the model stays whole, a longer one is split at headings, paragraphs and sentences. A number of
        word pieces: passages of at most so many. None: one vector each, of as much of the text as the model reads. The
        name of a field that holds a list of passages (documents may also be lists of passages), or a function of a
        text that returns ``(start, end)`` pairs. Models of words alone, ``"bm25"``, keep whole documents by default.
    document_context
        What a passage takes in of its document: ``"auto"``, ``"none"``, or a
        :class:`~cderetrieval.models.document_context.DocumentContext`.
    index
        ``"auto"`` (exact while the collection is small, and for sparse vectors); a FAISS factory string, such as
        ``"HNSW32"`` (for several models a dictionary of names to these); or a collection on a Milvus server,
        ``"milvus://HOST:PORT/collection"``, or in a Milvus Lite file, ``"name.db/collection"``, which then holds
        everything and may be there already.
    fusion
        How the rankings of several models are fused: ``"rrf"``, ``"weighted"``, or a :class:`~.fusion.Fusion`.
    rerank
        A cross-encoder that reorders the best `depth` candidates of each query: its name or directory, or an object
        with ``predict(pairs)``. It is not kept with the index: name it again in `load`.
    depth
        Candidates of each query that are reranked.
    path
        Directory to keep the index in; each change is then on disk when its call returns. None: in memory, until
        `save`.
    device, dtype, runtime
        Where, in which number format and by which library models compute, see :func:`cderetrieval.load`.
    precision
        ``"int8"``: models named compute in eight bits, faster and with other vectors, see :func:`cderetrieval.load`;
        kept with the index.
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
        model: Models = DEFAULT_MODEL,
        *,
        key: str = "id",
        on: str | Sequence[str] | None = None,
        context: ContextLike | ContextSpec = OWN,
        context_size: int | None = None,
        passages: PassagesLike = AUTO,
        document_context: DocumentContextLike = AUTO,
        index: str | Mapping[str, str] = "auto",
        fusion: str | Fusion | None = None,
        rerank: RerankLike | None = None,
        depth: int = 50,
        path: str | Path | None = None,
        device: str | None = None,
        dtype: str = "auto",
        runtime: str = "auto",
        precision: str = "float32",
        seed: int = 0,
    ) -> None:
        spec, reranker = ContextSpec.parse(context), Reranker.of(rerank, depth, device)
        fields = [on] if isinstance(on, str) else None if on is None else list(on)
        compute = Compute(device, dtype, runtime, precision)
        kept = None if precision == Compute.precision else precision
        settings = Settings(None, key, fields, index, context_size, seed, precision=kept)
        options = {"device": compute.device, "dtype": compute.dtype, "runtime": compute.runtime}
        settings, embedders = begin(model, fusion, spec, settings, **options)
        cut, known = Passages.parse(passages), DocumentContext.parse(document_context)
        collection = create(settings, path, spec)
        collection.passages, collection.document = cut, known
        self._open(collection, embedders, reranker)

    def _open(self, collection: Collection, embedders: Sequence[Embedder], reranker: Reranker | None) -> None:
        names = collection.settings.models or [""]
        parts = [Part(collection, number, embedder) for number, embedder in enumerate(embedders)]
        super().__init__(collection, dict(zip(names, parts, strict=True)), reranker)
        this = weakref.proxy(self)  # a circle would hold the writer's lock until the next garbage collection
        collection.word_model = lambda part: list(this._parts.values())[part].encoder

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: str | Path | Model | Mapping[str, str | Path | Model] | None = None,
        passages: Cut | None = None,
        rerank: RerankLike | None = None,
        depth: int = 50,
        device: str | None = None,
        dtype: str = "auto",
        runtime: str = "auto",
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
        passages
            The function that cuts texts, where the index was made with one; only needed to add documents.
        rerank, depth, device, dtype, runtime
            As in a new retriever.

        Raises
        ------
        StoreError
            If there is no index, or it is damaged; a `ServerError` if a server cannot be reached.
        MismatchError
            If `model` is another than the one that built the index.
        """
        reranker = Reranker.of(rerank, depth, device)
        collection = reopen(path)
        with closing_on_error(collection):
            settings = collection.settings
            if passages is not None:
                collection.passages = collection.passages.with_function(passages)
            given = moved_models(settings, model)
            options = options_of(settings, device=device, dtype=dtype, runtime=runtime)
            retriever = cls.__new__(cls)
            retriever._open(collection, [Embedder(one, ContextSpec(), **options) for one in given.values()], reranker)
            for part in retriever._parts.values() if model is not None else ():
                _ = part.encoder  # a model that was given is checked now, not at the first query
            if collection.get_setting(INCOMPLETE):
                retriever._complete()
        return retriever

    @classmethod
    def open(cls, path: str | Path, model: Models | None = None, **options: Unpack[Options]) -> Self:
        """Open the index in a directory, or create it there where there is none.

        Parameters
        ----------
        path
            The directory, or where the collection is on a server, as for ``index=``.
        model
            As in a new retriever; None: the one that built the index, or ``"cde-minilm"`` for a new one.
        options
            As in a new retriever. Those given must be those of the index, but for ``context``: an index keeps its
            context until `refresh`.

        Raises
        ------
        MismatchError
            If `model` is another than the one that built the index (its fingerprint is compared), or an option differs.

        Examples
        --------
        >>> import tempfile
        >>> from cderetrieval.testing import HashEncoder
        >>> place = tempfile.mkdtemp()
        >>> with Retriever.open(place, HashEncoder(), on="text") as retriever:
        ...     _ = retriever.add([{"id": 1, "text": "owls"}])
        >>> with Retriever.open(place, HashEncoder(), on="text") as retriever:
        ...     len(retriever)
        1
        """
        if unknown := set(options) - set(Options.__annotations__):
            raise TypeError(f"Retriever.open has no option {sorted(unknown)[0]!r}.")
        if not holds_index(path):
            place: Any = {"index" if is_location(path) else "path": os.fspath(path)}
            return cls(DEFAULT_MODEL if model is None else model, **{**options, **place})
        cut = options.get("passages")
        loaded = ("rerank", "depth", "device", "dtype", "runtime")
        kept: Any = {name: value for name, value in options.items() if name in loaded}
        given = None if model is None else asked_models(path, model, options)
        retriever = cls.load(path, model=given, passages=cut if callable(cut) else None, **kept)
        with closing_on_error(retriever):
            check_options(retriever._collection, options)
        return retriever

    @property
    def parts(self) -> dict[str, Searcher]:
        """Each of several models by itself, by name: it searches the same documents, and changes nothing."""
        return {name: Searcher(self._collection, {name: part}) for name, part in self._parts.items()}

    @property
    def fusion(self) -> Fusion | None:
        """How the rankings of several models are fused; may be set, and is then kept. None for one model."""
        return super().fusion

    @fusion.setter
    def fusion(self, fusion: Fusion) -> None:
        if self.fusion is None:
            raise InputError("this retriever has one model, and no rankings to fuse.")
        if not isinstance(fusion, Fusion):
            raise InputError(f"fusion is {type(fusion).__name__}; pass a Fusion, Fusion('weighted') for example.")
        fusion.vector(len(self._parts))
        settings = replace(self._collection.settings, fusion=fusion)
        with self._collection.transaction():
            if self._collection.get_setting("retriever") is not None:  # before the first add nothing is kept
                self._collection.set_setting("retriever", settings.to_dict())
        self._collection.settings = settings

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
        k, collection, fusion = check_k(k), self._collection, self.fusion
        if fusion is None or not isinstance(collection, LocalCollection):
            raise InputError("this retriever has one model, and no weights to tune.")
        asked, judged = judged_queries(queries, qrels)

        def graded(vectors: list[Any]) -> Any:
            rankings = collection.rankings(vectors, fusion, k)
            return rankings, grades_by_row(judged, list(asked), *collection.numbered_ids())

        rankings, grades = self._ask(list(asked.values()), graded, show_progress)
        tuned = search_weights(list(self._parts), rankings, grades, fusion, k)
        self.fusion = replace(fusion, weights=tuple(tuned.weights.values()))
        return tuned

    def save(self, path: str | Path, *, overwrite: bool = False) -> Self:
        """Write the index into a directory; this retriever stays where it is.

        For a collection on a server, the directory says where that is.

        Parameters
        ----------
        path
            The directory.
        overwrite
            Replace an index that is there, in one step; without it that is an error. Who has it open opens it again.

        Raises
        ------
        StoreError
            If the directory holds an index already.
        """
        save(self._collection, path, overwrite)
        return self
