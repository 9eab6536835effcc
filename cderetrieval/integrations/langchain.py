"""A retriever as a vector store of LangChain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from ..errors import InputError, needs
from ..retrieval.retriever import Retriever
from ..types import Encoder
from ..vectors import DENSE
from .adapter import Adapter, Found

with needs("langchain-core", "langchain"):
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance


class CDEEmbeddings(Embeddings):
    """A model in a context, as LangChain's embeddings: ``CDEEmbeddings(retriever.encoder)``.

    Parameters
    ----------
    encoder
        Any dense :class:`~cderetrieval.types.Encoder`.
    """

    def __init__(self, encoder: Encoder) -> None:
        if encoder.kind != DENSE:
            raise InputError(f"this model's vectors are {encoder.kind!r}; LangChain's are lists of numbers: use dense.")
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents."""
        return np.asarray(self.encoder.encode_document(texts)).tolist()

    def embed_query(self, text: str) -> list[float]:
        """Vector of a query."""
        return np.asarray(self.encoder.encode_query([text]))[0].tolist()


class CDEVectorStore(VectorStore):
    """A :class:`~cderetrieval.retrieval.retriever.Retriever` as a vector store.

    What is found is the best passage of each document; its metadata then has ``heading``, ``start`` and ``end``. Search
    takes the retriever's options: ``filter={"year": {">=": 2020}}``, or ``by="passage"`` for several passages of one
    document, whose ids are ``"ID#START"``. Asynchronous calls run on a thread.

    Parameters
    ----------
    retriever
        The retriever; it keeps documents and embeds by itself.
    whole
        Find whole documents in place of passages.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> store = CDEVectorStore(Retriever(tiny_model(), on="text"))
    >>> store.add_texts(["owls hunt at night", "bees make honey"], [{"year": 2020}, {"year": 2021}], ids=["a", "b"])
    ['a', 'b']
    >>> store.similarity_search("what do bees make?", k=1, filter={"year": 2021})
    [Document(id='b', metadata={'year': 2021}, page_content='bees make honey')]
    """

    def __init__(self, retriever: Retriever, *, whole: bool = False) -> None:
        self._adapter = Adapter(retriever, whole=whole)

    @property
    def retriever(self) -> Retriever:
        """The retriever."""
        return self._adapter.retriever

    @property
    def embeddings(self) -> Embeddings | None:
        """The retriever's model in its context; None where it has several, or no vectors."""
        one = self.retriever.fusion is None and len(self.retriever) > 0
        return CDEEmbeddings(self.retriever.encoder) if one and self.retriever.encoder.kind == DENSE else None

    def add_documents(self, documents: list[Document], *, ids: list[str] | None = None, **options: Any) -> list[str]:
        """Add documents; one whose id is there already replaces it. The first call samples the context."""
        if ids is not None and len(ids) != len(documents):
            raise InputError(f"there are {len(ids)} ids for {len(documents)} documents.")
        names = [document.id for document in documents] if ids is None else ids
        items = ((name, one.page_content, one.metadata) for name, one in zip(names, documents, strict=True))
        return self._adapter.add(items, **options)

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Remove documents, those of the ids that are there; None: all."""
        if ids is None:
            self.retriever.remove(self.retriever.ids())
        else:
            self._adapter.remove(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, those that are there."""
        return list(map(_document, self._adapter.get(ids)))

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """The best k."""
        return list(map(_document, self._adapter.find(query, k, **options)))

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Any) -> list[tuple[Document, float]]:
        """The best k, with their similarities; higher is better."""
        return [(_document(found), found.score or 0.0) for found in self._adapter.find(query, k, **options)]

    def _select_relevance_score_fn(self) -> Any:
        if self.embeddings is None and len(self.retriever):
            raise InputError("the similarities of this index have no scale from 0 to 1; ask for the best k instead.")
        return lambda similarity: min(max(similarity, 0.0), 1.0)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Any
    ) -> list[Document]:
        """The best k of `fetch_k` that also differ from each other; the texts of these are embedded once more."""
        if (embeddings := self.embeddings) is None:
            raise InputError("'mmr' compares vectors: it needs an index of one dense model that is not empty.")
        found = list(map(_document, self._adapter.find(query, fetch_k, **options)))
        vectors = embeddings.embed_documents([document.page_content for document in found])
        asked = np.array(embeddings.embed_query(query))
        return [found[place] for place in maximal_marginal_relevance(asked, vectors, lambda_mult, k)]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> Self:
        """A new store with these texts; `options` are those of a `Retriever`, which embeds by itself."""
        if embedding is not None:
            raise InputError("this store embeds with a model of its own: pass embedding=None, and model=NAME.")
        store = cls(Retriever(**options))
        store.add_texts(texts, metadatas, ids=ids)
        return store


def _document(found: Found) -> Document:
    return Document(id=found.id, page_content=found.text, metadata=found.described)
