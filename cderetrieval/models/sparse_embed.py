"""SparseEmbed as an encoder: a text as a few weighted terms, each with a small contextual embedding.

The first stage of a search goes by the weights, as with SPLADE; the score of a document is then the sum, over the terms
that it shares with the query, of the inner products of their embeddings (:mod:`.term_pooling`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from ..errors import ConfigError
from ..types import TermEmbeddings
from .sparse_embed_model import SparseEmbedModel
from .splade import Splade
from .splade_model import check_k_tokens
from .splade_parts import build
from .term_pooling import Terms, pairwise_scores


class SparseEmbed(Splade):
    """A SparseEmbed model behind the :class:`~cderetrieval.types.Encoder` contract.

    Parameters
    ----------
    model_name_or_path
        Directory or hub name of a SparseEmbed model, or of any that :class:`~.splade.Splade` takes: then the embeddings
        are new and random, and have to be trained.
    model, tokenizer, pooling, max_length, dtype, device, prompts
        As for :class:`~.splade.Splade`.
    embedding_size
        Of a term's embedding; None: that of the model, else 64.
    k_tokens, query_k_tokens
        Most terms of a document and of a query, the heaviest of positive weight; None: those of the model, else 96 and
        as documents.

    Raises
    ------
    ModelError
        If there is no masked-language-model head, or the directory holds the pickled weights of an older package.
    WeightsError
        If the saved embedding weights do not fit.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_sparse_embed
    >>> model = tiny_sparse_embed()
    >>> vectors = model.encode_document(["owls hunt at night", "bees make honey"])
    >>> vectors.shape == (2, model.dimension), vectors.embeddings.shape == (vectors.weights.nnz, model.embedding_size)
    (True, True)
    """

    kind = "sparse-embed"

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        model: Any = None,
        tokenizer: Any = None,
        pooling: str | None = None,
        embedding_size: int | None = None,
        k_tokens: int | None = None,
        query_k_tokens: int | None = None,
        max_length: int | None = None,
        dtype: str = "auto",
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        if embedding_size is not None and (not isinstance(embedding_size, int) or embedding_size < 1):
            raise ConfigError(f"embedding_size={embedding_size!r} must be a whole number of at least 1.")
        built = build(
            SparseEmbedModel, model_name_or_path, model, tokenizer, pooling, device, embedding_size=embedding_size
        )
        self._open(built, max_length, dtype, prompts)
        if embedding_size not in (None, built.embedding_size):
            raise ConfigError(
                f"embedding_size={embedding_size!r}, but this model has {built.embedding_size}: leave it out."
            )
        check_k_tokens(k_tokens, self.dimension)
        check_k_tokens(query_k_tokens, self.dimension, "query_k_tokens")
        if k_tokens is not None:
            built.k_tokens = built.query_k_tokens = k_tokens
        if query_k_tokens is not None:
            built.query_k_tokens = query_k_tokens

    @property
    def embedding_size(self) -> int:
        """Length of a term's embedding."""
        return int(self.model.embedding_size)

    @property
    def k_tokens(self) -> int | None:
        """Most terms of a document."""
        return int(self.model.k_tokens)

    @property
    def query_k_tokens(self) -> int:
        """Most terms of a query."""
        return int(self.model.query_k_tokens)

    def inference_free(self, weights: Mapping[str, float] | None = None) -> Splade:
        """Not for SparseEmbed, whose queries need embeddings too.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            "queries of SparseEmbed need embeddings, which only inference gives. Use Splade(model=encoder.model)"
            ".inference_free() for SPLADE with the same weights."
        )

    def _limits(self) -> Any:
        return self.k_tokens, self.query_k_tokens

    def _limit_of(self, prompt_name: str) -> int | None:
        return self.query_k_tokens if prompt_name == "query" else self.k_tokens

    def _rows(self, input_ids: Tensor, attention_mask: Tensor, limit: int | None) -> TermEmbeddings:
        features = self.model(self._features(input_ids, attention_mask), k_tokens=limit)
        return term_rows(features["terms"], self.dimension)

    def _ordered(self, parts: list[TermEmbeddings], order: np.ndarray) -> TermEmbeddings:
        if not parts:
            empty = csr_array((0, self.dimension), dtype=np.float32)
            return TermEmbeddings(empty, np.empty((0, self.embedding_size), dtype=np.float32))
        return TermEmbeddings.concatenate(parts).take(order)

    def _scores(self, queries: TermEmbeddings, documents: TermEmbeddings) -> np.ndarray:
        return pairwise_scores(padded_terms(queries), padded_terms(documents)).numpy()


def term_rows(terms: Terms, dimension: int) -> TermEmbeddings:
    """A batch of terms without the padding, and with the terms of each text in the order of the vocabulary."""
    active = ~(terms.weights <= 0)  # what is not a number stays, to be refused and not to be lost
    order = terms.ids.masked_fill(~active, dimension).argsort(dim=1)
    active = active.gather(1, order)
    ids = terms.ids.gather(1, order)[active]
    weights = terms.weights.gather(1, order)[active]
    rows = torch.arange(len(order), device=order.device)[:, None].expand_as(order)[active]
    embeddings = terms.embeddings[rows, order[active]]
    indptr = np.concatenate([[0], active.sum(dim=1).cumsum(0).cpu().numpy()]).astype(np.int32)
    parts = (weights.float().cpu().numpy(), ids.to(torch.int32).cpu().numpy(), indptr)
    return TermEmbeddings(csr_array(parts, shape=(len(order), dimension)), embeddings.float().cpu().numpy())


def padded_terms(vectors: TermEmbeddings) -> Terms:
    """Term embeddings of texts as tensors, padded with weights of zero; the inverse of :func:`term_rows`."""
    weights = vectors.weights
    counts = np.diff(weights.indptr)
    width = max(1, int(counts.max(initial=0)))
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], counts)
    padded = Terms(
        torch.zeros(len(counts), width, dtype=torch.int64),
        torch.zeros(len(counts), width),
        torch.zeros(len(counts), width, vectors.embeddings.shape[1]),
    )
    for target, values in zip(padded, (weights.indices, weights.data, vectors.embeddings), strict=True):
        target[rows, columns] = torch.from_numpy(np.asarray(values)).to(target.dtype)
    return padded
