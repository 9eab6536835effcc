"""Several retrievers over the same documents as one: one add, one remove, one call, one directory.

    hybrid = Hybrid(["cde-minilm", "bm25"], key="id", on=["title", "text"])
    hybrid.add(documents)
    hybrid("a question", k=10)                   # rankings fused by reciprocal rank
    hybrid.tune(queries, qrels)                  # chooses the weights on a development set
    hybrid.save("index/"); Hybrid.load("index/")

Each part is a whole :class:`~cderetrieval.retriever.Retriever` with a store of its own, so documents are stored once
for each part. A change is one transaction in every part: an error in one leaves all as they were, and what a killed
process has left half-committed is completed at the next use (:mod:`.together`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..context.context import Context
from ..documents import query_texts
from ..embedding import ContextSpec, Model, is_contextual
from ..errors import ContextError, InputError
from ..files import as_path
from ..retriever import STORE_FILE, Retriever
from ..runtime import Here
from ..store import Store
from ..types import Hits
from ..view import check_k
from .manifest import Manifest, claim, part_directory
from .parts import Part, fill, give_context, make_parts, manifest_of, named_parts, open_parts
from .scores import Fusion
from .search import Search, judged_queries
from .together import STAMP, Together, next_number
from .tuning import Tuned, search_weights


class Hybrid(Here):
    """Retrieval by several models at once, their rankings fused.

    Parameters
    ----------
    parts
        Models, names of models (see :func:`cderetrieval.load`) or retrievers; or a dictionary of names to these.
        Retrievers stay where they are; those without documents are filled from the first that has some.
    fusion
        ``"rrf"`` (reciprocal ranks), ``"weighted"`` (normalised scores), or a :class:`~.scores.Fusion`.
    weights, normalization, rrf_k, depth
        See :class:`~.scores.Fusion`.
    key, on
        As for a retriever; the same in all parts.
    context, context_size
        Of contextual parts.
    index
        ``"auto"``, a FAISS factory string, or a dictionary of part names to these.
    path
        Directory to keep everything in; each change is then on disk when its call returns. None: in memory, or where
        the given retrievers live.
    device, dtype, seed
        As for a retriever.

    Raises
    ------
    InputError
        If there are no parts, or retrievers of different keys, fields or documents.
    ConfigError
        If the fusion is unknown, or weights are negative or not one for each part.

    Examples
    --------
    >>> from cderetrieval.testing import HashEncoder, tiny_model
    >>> hybrid = Hybrid({"contextual": tiny_model(), "hash": HashEncoder()}, on="text")
    >>> hybrid.add([{"id": "a", "text": "owls hunt at night"}, {"id": "b", "text": "bees make honey"}])
    Hybrid(2 documents, parts=['contextual', 'hash'], fusion='rrf')
    >>> hybrid("bees make honey", k=1)
    [[{'id': 'b', 'similarity': 0.333333}]]
    """

    def __init__(
        self,
        parts: Sequence[Part] | Mapping[str, Part],
        *,
        fusion: str | Fusion = "rrf",
        weights: Sequence[float] | None = None,
        normalization: str = "min-max",
        rrf_k: int = Fusion.rrf_k,
        depth: int = Fusion.depth,
        key: str | None = None,
        on: str | Sequence[str] | None = None,
        context: ContextSpec = "own",
        context_size: int | None = None,
        index: str | Mapping[str, str] = "auto",
        path: str | Path | None = None,
        device: str | None = None,
        dtype: str = "auto",
        seed: int = 0,
    ) -> None:
        named = named_parts(parts)
        if not isinstance(fusion, Fusion):
            fusion = Fusion(fusion, None if weights is None else tuple(weights), normalization, rrf_k, depth)
        fusion.vector(len(named))
        directory = None if path is None else claim(as_path(path), len(named))
        retrievers = make_parts(
            named,
            directory,
            key=key,
            on=on,
            context_size=context_size,
            index=index,
            device=device,
            dtype=dtype,
            seed=seed,
        )
        give_context(retrievers.values(), context)
        fill(retrievers)
        self._open(directory, retrievers, fusion)
        if directory is not None:
            manifest_of(self._retrievers, self._fusion).write(directory)

    def _open(self, directory: Path | None, retrievers: dict[str, Retriever], fusion: Fusion) -> None:
        self.path = directory
        self._retrievers = retrievers
        self._parts = list(retrievers.values())
        self._fusion = fusion
        self._together = Together(self._parts, one_past=directory is not None)
        self._search = Search(self._parts)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        models: Mapping[str, Model] | None = None,
        device: str | None = None,
        dtype: str = "auto",
    ) -> Hybrid:
        """Open a directory that `save` wrote or that a hybrid lives in.

        Parameters
        ----------
        path
            The directory.
        models
            Part name to model; only needed where one was given as an object, or has moved.
        device, dtype
            As for a new hybrid.

        Raises
        ------
        StoreError
            If the directory holds no hybrid, or it is damaged.
        MismatchError
            If a model is another than the one that built its part, or is missing.
        """
        directory = as_path(path)
        manifest = Manifest.read(directory)
        retrievers = open_parts(directory, manifest, models or {}, device=device, dtype=dtype)
        hybrid = cls.__new__(cls)
        hybrid._open(directory, retrievers, manifest.fusion)
        try:
            hybrid._together.agree()
        except BaseException:
            hybrid._close_stores()
            raise
        return hybrid

    def __repr__(self) -> str:
        return f"Hybrid({len(self)} documents, parts={list(self._retrievers)}, fusion={self._fusion.method!r})"

    def __len__(self) -> int:
        return len(self._parts[0])

    def __contains__(self, document_id: Hashable) -> bool:
        return document_id in self._parts[0]

    def __enter__(self) -> Hybrid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def parts(self) -> dict[str, Retriever]:
        """The retrievers, by name. Search them as you like; changes go through the hybrid."""
        return dict(self._retrievers)

    @property
    def fusion(self) -> Fusion:
        """How rankings are fused; may be set, and is then kept."""
        return self._fusion

    @fusion.setter
    def fusion(self, fusion: Fusion) -> None:
        fusion.vector(len(self._parts))
        if self.path is not None:
            manifest_of(self._retrievers, fusion).write(self.path)
        self._fusion = fusion

    @property
    def contexts(self) -> dict[str, Context]:
        """The contexts of contextual parts, by name."""
        found = {name: part.context for name, part in self._retrievers.items()}
        return {name: context for name, context in found.items() if context is not None}

    @property
    def context(self) -> Context | None:
        """The context of the first contextual part; None where there is none."""
        return next(iter(self.contexts.values()), None)

    def add(
        self,
        documents: Any,
        *,
        vectors: Mapping[str, Any] | None = None,
        skip_empty: bool = False,
        show_progress: bool = True,
    ) -> Hybrid:
        """Add documents to all parts; one whose id is there already replaces it. All of them or, after an error, none.

        Parameters
        ----------
        documents
            As for a retriever; read once and not held.
        vectors
            Part name to ready vectors of the documents, in order; the other parts embed.
        skip_empty
            Leave out documents with an empty text, and log how many, in place of an error.
        show_progress
            Show progress bars on a terminal.

        Raises
        ------
        InputError
            If a document lacks a field, has an empty text, or shares its id with another of this call.
        """
        ready = dict(vectors or {})
        unknown = [name for name in ready if name not in self._retrievers]
        if unknown:
            names = ", ".join(map(repr, self._retrievers))
            raise InputError(f"vectors= names part {unknown[0]!r}; the parts are {names}.")
        (first_name, first), *others = self._retrievers.items()

        def put() -> None:
            after = next_number(first) - 1
            first.add(documents, vectors=ready.get(first_name), skip_empty=skip_empty, show_progress=show_progress)
            for name, part in others:
                rows, given = first._store.rows(after), ready.get(name)
                part._change(partial(part._put, rows, vectors=given, show_progress=show_progress))

        self._together.change(put)
        return self

    def remove(self, ids: Hashable | Iterable[Hashable]) -> Hybrid:
        """Remove documents by id from all parts. All of them or, after an error, none.

        Raises
        ------
        InputError
            If an id is not there.
        """
        wanted = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else [ids]

        def remove() -> None:
            for part in self._parts:
                part.remove(wanted)

        self._together.change(remove)
        return self

    def __call__(
        self,
        queries: str | Sequence[str] | Mapping[Any, str],
        k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        documents: bool = False,
        show_progress: bool = False,
    ) -> Hits:
        """Search all parts and fuse their rankings.

        Parameters
        ----------
        queries
            One query, a list of them, or a dictionary of query id to query.
        k
            Most hits for each query.
        filter
            Which documents may be hits, as for a retriever.
        documents
            Give each hit its ``"document"``, as it was added.
        show_progress
            Show progress bars on a terminal.

        Returns
        -------
        Hits
            For each query a list of ``{"id", "similarity"}``, best first, equal ones in order of insertion. The
            similarity is the fused score: its size says nothing across hybrids.

        Raises
        ------
        InputError
            If the index is empty, k is not positive, or a query is empty or no string.
        """
        k = check_k(k)
        query_ids, texts = query_texts(queries)
        if texts is None:
            raise InputError("a hybrid has no vectors of its own: pass queries as texts, or search one of its parts.")
        options: dict[str, Any] = {"filter": filter, "documents": documents, "show_progress": show_progress}
        hits = self._together.reading(partial(self._search.fused, texts, self._fusion, k, **options))
        return Hits(hits, query_ids)

    def tune(
        self,
        queries: Any,
        qrels: Any,
        k: int = 10,
        *,
        show_progress: bool = False,
    ) -> Tuned:
        """Choose the weights by nDCG@k on development queries, and keep them.

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
            The weights, their score, that of the weights before and of each part alone, all on these queries.

        Raises
        ------
        InputError
            If nothing is judged, or no judged document is in the index.
        """
        k = check_k(k)
        asked, judged = judged_queries(queries, qrels)
        texts, ids = list(asked.values()), list(asked)
        graded = partial(self._search.graded, texts, self._fusion, k, judged, ids, show_progress=show_progress)
        rankings, grades = self._together.reading(graded)
        tuned = search_weights(list(self._retrievers), rankings, grades, self._fusion, k)
        self.fusion = replace(self._fusion, weights=tuple(tuned.weights.values()))
        return tuned

    def context_report(self, *, seed: int = 1) -> dict[str, dict[str, Any]]:
        """What the context of each contextual part is, as :meth:`Retriever.context_report` says it, by part name."""
        if not self.contexts:
            raise ContextError("this hybrid has no context: none of its parts takes one, or nothing was added yet.")
        return {name: self._retrievers[name].context_report(seed=seed) for name in self.contexts}

    def refresh(self, context: ContextSpec = "own", *, show_progress: bool = True) -> Hybrid:
        """Make a new context for each contextual part and embed its documents in it, one part after the other."""
        contextual = [part for part in self._parts if is_contextual(part._embedder.model)]
        if not contextual:
            raise ContextError("no part of this hybrid takes a context; there is none to refresh.")
        for part in contextual:
            part.refresh(context, show_progress=show_progress)
        return self

    def save(self, path: str | Path) -> Hybrid:
        """Write the hybrid into a directory, which must not hold another index; this one stays where it is."""
        target = as_path(path)
        if self.path is not None and target.resolve() == self.path.resolve():
            for part in self._parts:
                part.save(part.path or target)
            return self
        claim(target, len(self._parts))

        def save() -> None:
            for number, part in enumerate(self._parts):
                part.save(part_directory(target, number))

        self._together.reading(save)
        for number in range(len(self._parts)):
            with Store(part_directory(target, number) / STORE_FILE) as copy:
                copy.set_setting(STAMP, None)
        manifest_of(self._retrievers, self._fusion).write(target)
        return self

    def close(self) -> None:
        """Write the index caches, where parts live in directories and were changed, and close the stores."""
        with contextlib.ExitStack() as stack:
            for part in self._parts:
                stack.callback(part.close)

    def _close_stores(self) -> None:
        for part in self._parts:
            part._store.close()
