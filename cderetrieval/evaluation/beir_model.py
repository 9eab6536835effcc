"""A model behind the interface of the `beir` package, for its own loader, search and evaluation.

    loader = GenericDataLoader("scifact"); corpus, queries, qrels = loader.load(split="test")
    model = BeirModel(load("cde-minilm"), corpus)              # the context comes from the corpus, never from queries
    retriever = EvaluateRetrieval(DenseRetrievalExactSearch(model), score_function="dot")
    retriever.evaluate(qrels, retriever.retrieve(corpus, queries), retriever.k_values)

`beir` encodes the queries first and has no argument for a dataset, so the context is made when the adapter is. That way
takes dense vectors alone; models of every family, hybrids too, go through a search of their own:

    retriever = EvaluateRetrieval(BeirSearch(load("bm25")))
    retriever.evaluate(qrels, retriever.retrieve(corpus, queries), retriever.k_values)

Both are cross-checks of this package's own search and metrics, which need no `beir`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..embedding import ContextSpec, Model
from ..errors import InputError
from ..fusion.model import AnyModel
from ..types import text_ids
from ..vectors import DENSE
from .candidates import encoder_in, model_kind
from .forms import Run
from .retrieval import index_corpus, search_blocks, texts_of
from .setting import settings_for


class BeirModel:
    """Adapter of a model and its context.

    Parameters
    ----------
    model
        A contextual model or an encoder.
    corpus
        The corpus as beir loads it: id to ``{"title", "text"}``.
    context, context_size, seed, dtype
        As for :class:`~cderetrieval.retriever.Retriever`.

    Raises
    ------
    InputError
        If the model gives no dense vectors.

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
        context: ContextSpec = "own",
        context_size: int | None = None,
        seed: int = 0,
        dtype: str = "auto",
    ) -> None:
        if (kind := model_kind(model)) != DENSE:
            raise InputError(
                f"beir's exact search takes dense vectors, and this model is {kind!r}: use BeirSearch(model)."
            )
        [setting] = settings_for(model, [context], context_size, [seed])
        self.encoder, self.context = encoder_in(model, setting, texts_of(_documents(corpus)), dtype)

    def encode_queries(self, queries: Sequence[str], batch_size: int = 32, **options: Any) -> Any:
        """Vectors of queries; `batch_size` is not used, batches are cut at a number of tokens."""
        return _as_asked(self.encoder.encode_query(list(queries)), options)

    def encode_corpus(self, corpus: Sequence[Mapping[str, str]], batch_size: int = 32, **options: Any) -> Any:
        """Vectors of documents, title and text joined as a retriever joins them."""
        rows = ({"id": "", **document} for document in corpus)
        texts = [text for _, text in texts_of(rows)]
        return _as_asked(self.encoder.encode_document(texts), options)


class BeirSearch:
    """A model of any family behind beir's search interface, over the Retriever that users run.

    Parameters
    ----------
    model
        A model of any family.
    context, context_size, seed, dtype
        As for :class:`~cderetrieval.retriever.Retriever`.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> corpus = {"d1": {"title": "", "text": "owls"}, "d2": {"title": "", "text": "bees"}}
    >>> list(BeirSearch(tiny_model()).search(corpus, {"q": "bees"}, top_k=1)["q"])
    ['d2']
    """

    def __init__(
        self,
        model: AnyModel,
        *,
        context: ContextSpec = "own",
        context_size: int | None = None,
        seed: int = 0,
        dtype: str = "auto",
    ) -> None:
        self._model, self._dtype = model, dtype
        [self._setting] = settings_for(model, [context], context_size, [seed])

    def search(
        self, corpus: Mapping[str, Mapping[str, str]], queries: Mapping[str, str], top_k: int, *_: Any, **__: Any
    ) -> Run:
        """Hits of each query; the similarity is the model's own, whatever score function beir names."""
        with index_corpus(self._model, self._setting, _documents(corpus), self._dtype) as retriever:
            return {query: hits for block in search_blocks(retriever, queries, top_k) for query, hits in block.items()}


def _documents(corpus: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """Documents with their ids, which are text."""
    names = text_ids(corpus, "corpus")
    return [{**document, "id": name} for name, document in zip(names, corpus.values(), strict=True)]


def _as_asked(vectors: np.ndarray, options: Mapping[str, Any]) -> Any:
    """Vectors in the form that beir asks for with each call."""
    if not options.get("convert_to_tensor"):
        return vectors
    import torch

    return torch.from_numpy(vectors)
