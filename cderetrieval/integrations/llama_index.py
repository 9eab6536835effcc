"""A retriever as a retriever of LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Self

from ..errors import needs
from ..retrieval.retriever import Retriever
from .adapter import Adapter, Found, condition, together

with needs("llama-index-core", "llama-index"):
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import (
        BaseNode,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters


class CDERetriever(BaseRetriever):
    """A :class:`~cderetrieval.retrieval.retriever.Retriever` for query engines, fusion and agents.

    What is found is the best passage of each document, as a node with its place; `ref_doc_id` is the document.

    Parameters
    ----------
    retriever
        The retriever; it keeps documents and embeds by itself.
    similarity_top_k
        Most nodes of an answer.
    filters
        LlamaIndex's filters, or a dictionary as for ``Retriever(...)(filter=)``.
    whole
        Find whole documents in place of passages.
    by
        ``"passage"``: several passages of one document may be found.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> owls, bees = TextNode(id_="a", text="owls hunt at night"), TextNode(id_="b", text="bees make honey")
    >>> nodes = CDERetriever.from_documents([owls, bees], model=tiny_model(), similarity_top_k=1)
    >>> nodes.retrieve("what do bees make?")[0].node.text
    'bees make honey'
    """

    def __init__(
        self,
        retriever: Retriever,
        *,
        similarity_top_k: int = 4,
        filters: MetadataFilters | dict[str, Any] | None = None,
        whole: bool = False,
        by: str = "document",
        **options: Any,
    ) -> None:
        self._adapter = Adapter(retriever, whole=whole)
        self._k = similarity_top_k
        given = _filter(filters) if isinstance(filters, MetadataFilters) else filters
        self._options: dict[str, Any] = {"by": by, "filter": given}
        super().__init__(**options)

    @classmethod
    def from_documents(
        cls, documents: Sequence[BaseNode], *, model: Any = "cde-minilm", path: Any = None, **options: Any
    ) -> Self:
        """A new index with these documents or nodes; long ones are split by the retriever."""
        found = cls(Retriever(model, path=path), **options)
        found.add(documents)
        return found

    @property
    def retriever(self) -> Retriever:
        """The retriever."""
        return self._adapter.retriever

    def add(self, documents: Iterable[BaseNode], **options: Any) -> list[str]:
        """Add documents or nodes; their ids. One whose id is there already replaces it."""
        return self._adapter.add(((one.node_id, one.get_content(), one.metadata) for one in documents), **options)

    def delete(self, ids: Iterable[str]) -> None:
        """Remove documents, those of the ids that are there."""
        self._adapter.remove(ids)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._adapter.find(query_bundle.query_str, self._k, **self._options)
        return [NodeWithScore(node=_node(one), score=one.score) for one in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(found: Found) -> TextNode:
    source = {} if found.start is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=found.source)}
    return TextNode(
        id_=found.id,
        text=found.text,
        metadata=found.metadata | ({"heading": found.heading} if found.heading else {}),
        start_char_idx=found.start,
        end_char_idx=found.end,
        relationships=source,
    )


def _filter(filters: MetadataFilters | MetadataFilter) -> dict[str, Any]:
    """LlamaIndex's filters as this package's."""
    if isinstance(filters, MetadataFilter):
        return condition(filters.key, filters.operator.value, filters.value)
    word = "and" if filters.condition is None else filters.condition.value
    return together(word, [_filter(one) for one in filters.filters])
