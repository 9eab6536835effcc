"""A retriever as a document store and a component of Haystack."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from ..errors import InputError, needs
from ..retrieval.retriever import Retriever
from .adapter import Adapter, Found, condition, together

with needs("haystack-ai", "haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy
    from haystack.utils.filters import document_matches_filter


class CDEDocumentStore:
    """A :class:`~cderetrieval.retrieval.retriever.Retriever` as a document store.

    Parameters
    ----------
    path
        Directory of the index, which is opened or made; None: in memory.
    model
        Name or directory of the model of a new index.
    **options
        Other arguments of a new `Retriever`, as JSON values.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model_directory
    >>> store = CDEDocumentStore(model=tiny_model_directory())
    >>> store.write_documents([Document(content="owls hunt at night"), Document(content="bees make honey")])
    2
    >>> CDERetriever(store, top_k=1).run("what do bees make?")["documents"][0].content
    'bees make honey'
    """

    def __init__(self, path: str | None = None, model: str = "cde-minilm", **options: Any) -> None:
        self._given = {"path": path, "model": model, **options}
        retriever = Retriever(model, **options) if path is None else Retriever.open(path, model, **options)
        self.adapter = Adapter(retriever)

    @property
    def retriever(self) -> Retriever:
        """The retriever."""
        return self.adapter.retriever

    def to_dict(self) -> dict[str, Any]:
        """Serialise, for a pipeline; the documents stay in the directory."""
        return default_to_dict(self, **self._given)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Deserialise."""
        return default_from_dict(cls, data)

    def count_documents(self) -> int:
        """Number of documents."""
        return len(self.retriever)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """All documents that pass Haystack's filters; each is read."""
        documents = map(_document, self.adapter.all())
        return [one for one in documents if not filters or document_matches_filter(filters, one)]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Add documents; how many. ``NONE`` is ``FAIL``: an id that is there already is an error."""
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError("documents must be a list of haystack's Documents.")
        double = [one.id for one in documents if one.id in self.retriever]
        if double and policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
            raise DuplicateDocumentError(f"document {double[0]!r} is in the store already.")
        new = {one.id: one for one in documents if policy == DuplicatePolicy.OVERWRITE or one.id not in double}
        self.adapter.add((one.id, one.content or "", one.meta) for one in new.values())
        return len(new)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Remove documents, those of the ids that are there."""
        self.adapter.remove(document_ids)


@component
class CDERetriever:
    """A component that searches a :class:`CDEDocumentStore`; what is found is the best passage of each document.

    Parameters
    ----------
    document_store
        The store.
    filters
        Haystack's filters.
    top_k
        Most documents of an answer.
    filter_policy
        Whether filters of a run replace those given here, or are joined with them.
    by
        ``"passage"``: several passages of one document may be found.
    """

    def __init__(
        self,
        document_store: CDEDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
        by: str = "document",
    ) -> None:
        if not isinstance(document_store, CDEDocumentStore):
            raise InputError(f"document_store is {type(document_store).__name__}; pass a CDEDocumentStore.")
        self.document_store, self.filters, self.top_k, self.by = document_store, filters, top_k, by
        self.filter_policy = FilterPolicy.from_str(filter_policy) if isinstance(filter_policy, str) else filter_policy

    def to_dict(self) -> dict[str, Any]:
        """Serialise, for a pipeline."""
        given = {"filters": self.filters, "top_k": self.top_k, "filter_policy": self.filter_policy.value, "by": self.by}
        return default_to_dict(self, document_store=self.document_store.to_dict(), **given)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Deserialise."""
        given = data["init_parameters"]
        store = CDEDocumentStore.from_dict(given["document_store"])
        return default_from_dict(cls, {**data, "init_parameters": {**given, "document_store": store}})

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, Any]:
        """Search."""
        asked = apply_filter_policy(self.filter_policy, self.filters, filters)
        wanted = _filter(asked) if asked else None
        k = self.top_k if top_k is None else top_k
        found = self.document_store.adapter.find(query, k, filter=wanted, by=self.by)
        return {"documents": list(map(_document, found))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """Search on a thread."""
        return await asyncio.to_thread(self.run, query, filters, top_k)


def _document(found: Found) -> Document:
    return Document(id=found.id, content=found.text, meta=found.described, score=found.score)


def _filter(filters: dict[str, Any]) -> dict[str, Any]:
    """Haystack's filters as this package's."""
    if "conditions" in filters:
        return together(str(filters.get("operator")), [_filter(one) for one in filters["conditions"]])
    field = filters.get("field")
    name = field.removeprefix("meta.") if isinstance(field, str) else field
    return condition(name, filters.get("operator"), filters.get("value"))
