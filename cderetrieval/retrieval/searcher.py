"""Search a collection by one model or several: all that a retriever does without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import numpy as np

from ..context.context import Context
from ..errors import ContextError, CopyError, InputError
from ..queries import Hits, check_k, query_texts
from ..types import Encoder
from ..vectors import Vectors
from .collection import Collection, Want
from .embedder import Model
from .local import LocalCollection
from .part import Part
from .rerank import Reranker, check_texts_for, passage_text

if TYPE_CHECKING:
    import pandas as pd

    from .fusion import Fusion

T = TypeVar("T")


class Searcher:
    """A collection, and the models that search it: all of them, or, of a hybrid, one; and what reranks their hits."""

    def __init__(self, collection: Collection, parts: Mapping[str, Part], reranker: Reranker | None = None) -> None:
        self._collection, self.reranker = collection, reranker
        # The models by name; one alone has the name "".
        self._parts = dict(parts)
        self._numbers = [part.number for part in parts.values()]

    @property
    def _first(self) -> Part:
        return next(iter(self._parts.values()))

    @property
    def _fuses(self) -> bool:
        """Whether rankings of several models are fused."""
        models = self._collection.settings.models
        return models is not None and len(self._parts) == len(models)

    @property
    def fusion(self) -> Fusion | None:
        """How the rankings of several models are fused. None for one model."""
        return self._collection.fusion if self._fuses else None

    def __repr__(self) -> str:
        fusion = self.fusion
        if fusion is None:
            part = self._first
            what = f"model={part.embedder.title!r}, index={self._collection.settings.factory(part.number)!r}"
        else:
            what = f"models={list(self._parts)}, fusion={fusion.method!r}"
        return f"{type(self).__name__}({len(self)} documents, {what})"

    def __len__(self) -> int:
        return self._collection.count()

    def __contains__(self, document_id: Hashable) -> bool:
        return document_id in self._collection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, _: Any) -> Any:
        first = "save the index with save(path)" if self.path is None else f"pass its path, {str(self.path)!r},"
        raise CopyError(
            f"a {type(self).__name__} holds open files and cannot be pickled or copied: {first} and open it there with "
            "Retriever.load."
        )

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
        return self._first.embedder.model

    @property
    def encoder(self) -> Encoder:
        """The model in this index's context: what embeds every document and query; of several the first."""
        return self._first.encoder

    @property
    def context(self) -> Context | None:
        """The context of all vectors; None before the first `add`, and for models that take none."""
        return next(iter(self.contexts.values()), None)

    @property
    def contexts(self) -> dict[str, Context]:
        """The contexts of several models, by name."""
        found = {name: part.context for name, part in self._parts.items()}
        return {name: context for name, context in found.items() if context is not None}

    def __call__(
        self,
        queries: str | Sequence[str] | Mapping[Any, str] | Vectors,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        documents: bool = False,
        passages: bool = False,
        by: str = "document",
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
        passages
            Give each hit its best ``"passage"``: ``"text"``, ``"heading"``, and ``"start"`` and ``"end"``, offsets in
            the last field of the document's text.
        by
            What is ranked: ``"document"``, each once, by its best passage; or ``"passage"``, with the id of its
            document.
        show_progress
            Show a progress bar on a terminal.

        Returns
        -------
        Hits
            For each query a list of ``{"id", "similarity"}``, best first, equal ones in order of insertion. Documents
            whose sparse vector shares no term with a query's are no hits: there may be fewer than k, or none. The
            similarity of several models is the fused score, which means nothing outside this index; where hits are
            reranked, it is the score of the cross-encoder.

        Raises
        ------
        InputError
            If the index is empty, k is not positive, or a query is empty or no string.
        """
        k = check_k(k)
        query_ids, texts = query_texts(queries)
        if texts is None and len(self._parts) > 1:
            raise InputError("several models have no vectors in common: pass queries as texts, or search one of parts.")
        if by not in ("document", "passage"):
            raise InputError(f"by={by!r} is unknown; rank by 'document' or by 'passage'.")
        want = Want(filter, documents, passages, by)
        if self.reranker is not None:
            return Hits(self._reranked(self.reranker, check_texts_for(texts), k, want, show_progress), query_ids)
        search = partial(self._collection.search, k=k, parts=self._numbers, want=want)
        return Hits(self._ask([queries] if texts is None else texts, search, show_progress, texts is None), query_ids)

    def _ask(
        self, queries: Sequence[Any], search: Callable[[list[Any]], T], show_progress: bool, ready: bool = False
    ) -> T:
        """What `search` finds, in one state of the collection, for the vectors of queries by each model.

        Where they are `ready`, `queries` are these vectors.
        """
        collection, parts = self._collection, [] if ready else list(self._parts.values())
        while True:
            vectors: list[Any] = list(queries) if ready else []
            contexts: dict[str, str | None] = {}
            for part in parts:
                made = part.made
                if made.encoder is None:
                    collection.check_filled()  # before a model is loaded
                    made = part.ready()
                assert made.encoder is not None
                found = made.encoder.encode_query(queries, show_progress=show_progress)
                count = len(found) if isinstance(found, list) else (*np.shape(found), 0)[0]
                if count != len(queries):
                    raise InputError(
                        f"{type(made.encoder).__name__} made {count} vectors of {len(queries)} queries; it must make "
                        "as many."
                    )
                vectors.append(found)
                contexts[part.context_key] = made.digest
            with collection.reading():
                # Another thread or process may have refreshed a context since the queries were embedded.
                if list(map(collection.get_setting, contexts)) == list(contexts.values()):
                    return search(vectors)
            for part in parts:
                part.ready()

    def _reranked(
        self, reranker: Reranker, texts: Sequence[str], k: int, want: Want, show_progress: bool
    ) -> list[list[dict[str, Any]]]:
        """Hits in the order of a cross-encoder, which reads more candidates than are asked for."""
        most = max(k, reranker.depth)
        search = partial(self._collection.search, k=most, parts=self._numbers, want=replace(want, passages=True))
        hits = self._ask(texts, search, show_progress)
        ordered = reranker.order(texts, [[passage_text(hit) for hit in ranking] for ranking in hits], hits)
        for hit in (hit for ranking in ordered for hit in ranking if not want.passages):
            del hit["passage"]
        return [ranking[:k] for ranking in ordered]

    def explain(self, query: str, id: Hashable, *, filter: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Say why a document answers a query: its similarity in shares that add up to it.

        Parameters
        ----------
        query
            One query.
        id
            Id of a document.
        filter
            As in the search; it changes the ranks that several models give.

        Returns
        -------
        pandas.DataFrame
            For a dense model the columns ``source``, ``term`` and ``share``: ``"meaning"``, each ``"term"`` of the
            query where the model weighs terms, and what the best passage takes in of its document: ``"title"`` or
            ``"beginning"``, and ``"mean"``. For sparse models and BM25 the terms in common, with their weights in
            ``query`` and ``document``. For several models, what each adds: ``source``, its name, and ``rank``,
            ``similarity`` and ``share``; its own shares are those of ``parts[name].explain(query, id)``. The
            similarity is in ``attrs``, and in ``attrs["found_by"]`` what of the document is nearest: ``"passage"``, its
            ``"beginning"`` as far as the model reads it, or the whole ``"document"``. A reranked hit is explained as
            the candidate that it was.

        Raises
        ------
        InputError
            If the id is not there, there is not one query, or the index is on a server.

        Examples
        --------
        >>> from cderetrieval import Retriever
        >>> retriever = Retriever("bm25", on="text").add([{"id": 1, "text": "owls hunt"}, {"id": 2, "text": "bees"}])
        >>> why = retriever.explain("hunting owls", 1)
        >>> why["term"].tolist(), bool(abs(why["share"].sum() - why.attrs["similarity"]) < 1e-6)
        (['hunt', 'owl'], True)
        """
        from .explain import explained

        collection = self._collection
        if not isinstance(collection, LocalCollection):
            raise InputError("an index on a server cannot explain its answers: it gives back no vectors.")
        if not isinstance(query, str):
            raise InputError(f"query is {type(query).__name__}; explain takes one query, a string.")
        _, texts = query_texts(query)
        found: pd.DataFrame = self._ask(
            texts or [], lambda vectors: explained(collection, self._parts, query, vectors, id, filter), False
        )
        return found

    @overload
    def search(self, queries: str, k: int = 10, **options: Any) -> list[dict[str, Any]]: ...

    @overload
    def search(self, queries: Sequence[str] | Mapping[Any, str] | Vectors, k: int = 10, **options: Any) -> Hits: ...

    def search(self, queries: Any, k: int = 10, **options: Any) -> Any:
        """Search as a call does, but answer one query with one list of hits.

        Parameters
        ----------
        queries, k, options
            As in a call: ``retriever(queries, k, ...)``, which answers one query with a list that has one list.

        Returns
        -------
        list or Hits
            For one string its hits; else `Hits`, a list of hits for each query.

        Examples
        --------
        >>> from cderetrieval import Retriever
        >>> from cderetrieval.testing import HashEncoder
        >>> retriever = Retriever(HashEncoder()).add([{"id": 1, "text": "owls"}])
        >>> retriever.search("owls"), retriever("owls")
        ([{'id': 1, 'similarity': 1.0}], [[{'id': 1, 'similarity': 1.0}]])
        """
        hits = self(queries, k, **options)
        return hits[0] if isinstance(queries, str) else hits

    def get(self, ids: Any) -> Any:
        """A document by its id, as it was added, or a list of documents; None for each that is not there.

        Parameters
        ----------
        ids
            One id, or a list of them.

        Examples
        --------
        >>> from cderetrieval import Retriever
        >>> from cderetrieval.testing import HashEncoder
        >>> retriever = Retriever(HashEncoder()).add([{"id": 1, "text": "owls"}])
        >>> retriever.get(1), retriever.get([1, 2])
        ({'id': 1, 'text': 'owls'}, [{'id': 1, 'text': 'owls'}, None])
        """
        several = isinstance(ids, Iterable) and not isinstance(ids, str | bytes)
        found = self._collection.lookup(list(ids) if several else [ids])
        documents = [None if one is None else one[1] for one in found]
        return documents if several else documents[0]

    def ids(self) -> list[Hashable]:
        """The ids of all documents, in order of insertion; on a server in any order."""
        return self._collection.ids()

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """All documents as they were added, one after the other; what is changed meanwhile may show or not."""
        return (payload for _, _, payload in self._collection.rows())

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
            For several models, such a dictionary for each that takes a context, by name.
        """
        if not self._fuses:
            return self._first.report(seed)
        if not self.contexts:
            raise ContextError("this hybrid has no context: none of its models takes one, or nothing was added yet.")
        return {name: self._parts[name].report(seed) for name in self.contexts}

    def close(self) -> None:
        """Write the index cache, where the index lives in a directory and was changed, and close the store."""
        self._collection.close()
