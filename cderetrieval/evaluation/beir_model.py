"""Models behind the interfaces of the `beir` package, to check this package's search and metrics against it.

    EvaluateRetrieval(DenseRetrievalExactSearch(BeirModel(model, corpus)), score_function="dot")      # dense models
    EvaluateRetrieval(BeirSearch(model))                                                              # all families

`beir` encodes the queries before the documents, so `BeirModel` is given the corpus to sample its context from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..context.spec import ContextLike
from ..errors import InputError
from ..queries import text_ids
from ..retrieval.embedder import Model
from ..retrieval.names import AnyModel
from ..vectors import DENSE
from .metrics import Run
from .search import encoder_in, index_corpus, model_kind, search_blocks, texts_of
from .variants import as_variant


class BeirModel:
    """A dense model in the context of a corpus, for beir's exact search.

    Parameters
    ----------
    model
        A contextual model or an encoder.
    corpus
        The corpus as beir loads it: id to ``{"title", "text"}``.
    context, context_size, seed, dtype
        As in :class:`~cderetrieval.retrieval.retriever.Retriever`.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> corpus = {"d1": {"title": "", "text": "owls"}, "d2": {"title": "", "text": "bees"}}
    >>> BeirModel(tiny_model(), corpus).encode_queries(["what makes honey?"]).shape
    (1, 32)
    """

    def __init__(
        self,
        model: Model,
        corpus: Mapping[str, Mapping[str, str]],
        *,
        context: ContextLike = "own",
        context_size: int | None = None,
        seed: int = 0,
        dtype: str = "auto",
    ) -> None:
        if (kind := model_kind(model)) != DENSE:
            raise InputError(
                f"beir's exact search takes dense vectors, and this model is {kind!r}: use BeirSearch(model)."
            )
        variant = as_variant(model, context, context_size, seed)
        self.encoder, self.context = encoder_in(model, variant, texts_of(_documents(corpus)), dtype)

    def encode_queries(self, queries: Sequence[str], batch_size: int = 32, **options: Any) -> Any:  # noqa: V105
        """Vectors of queries; `batch_size` is not used, batches are cut at a number of tokens."""
        return _as_asked(self.encoder.encode_query(list(queries)), options)

    def encode_corpus(self, corpus: Sequence[Mapping[str, str]], batch_size: int = 32, **options: Any) -> Any:  # noqa: V105
        """Vectors of documents, title and text joined as a retriever joins them."""
        texts = [text for _, text in texts_of({"id": "", **document} for document in corpus)]
        return _as_asked(self.encoder.encode_document(texts), options)


class BeirSearch:
    """A model of any family behind beir's search interface.

    Keywords are those of `BeirModel`; `passages`, None by default, and `document_context` are as in a `Retriever`.
    """

    def __init__(self, model: AnyModel, *, dtype: str = "auto", **context: Any) -> None:
        self._model, self._dtype = model, dtype
        self._variant = as_variant(model, **context)

    def search(
        self, corpus: Mapping[str, Mapping[str, str]], queries: Mapping[str, str], top_k: int, *_: Any, **__: Any
    ) -> Run:
        """Hits of each query; the similarity is the model's own, whatever score function beir names."""
        with index_corpus(self._model, self._variant, _documents(corpus), self._dtype) as retriever:
            return {query: hits for block in search_blocks(retriever, queries, top_k) for query, hits in block.items()}


def _documents(corpus: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """Documents with their ids, which become text."""
    names = text_ids(corpus, "corpus")
    return [{**document, "id": name} for name, document in zip(names, corpus.values(), strict=True)]


def _as_asked(vectors: Any, options: Mapping[str, Any]) -> Any:
    """Vectors in the form that beir asks for with each call."""
    if not options.get("convert_to_tensor"):
        return vectors
    import torch

    return torch.from_numpy(vectors)
