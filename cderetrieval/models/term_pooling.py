"""SparseEmbed's contextual embeddings of terms, and the score of two texts by them.

    a_ij = softmax over positions i of logit_ij        how much token i speaks for term j
    e_j  = ReLU(W sum_i a_ij s_i)                      s_i: final hidden state of token i; W: no bias
    score(q, d) = sum over terms j of both of e_j(q) . e_j(d)

W is applied to the states before they are mixed, which is equal and, from 384 down to 64 dimensions, six times less to
mix. Scores are differentiable. The pairs of equal terms are found by sorting: no dictionaries, and no products of terms
that do not match.

Kong et al. 2023, "SparseEmbed: Learning Sparse Lexical Representations with Contextual Embeddings for Retrieval",
SIGIR.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Terms(NamedTuple):
    """Activated terms of a batch of texts, padded to the same number for each.

    Attributes
    ----------
    ids
        Vocabulary ids, shape (b, k), int64, by falling weight.
    weights
        Shape (b, k), float32; zero where a text has fewer than k terms of positive weight.
    embeddings
        Shape (b, k, d), float32.
    """

    ids: Tensor
    weights: Tensor
    embeddings: Tensor


class TermPooling(nn.Module):
    """Embeddings of activated terms: attention over the states of a text, a linear map without bias, ReLU.

    Parameters
    ----------
    hidden_size
        Of the token states.
    embedding_size
        Of a term's embedding.
    """

    def __init__(self, hidden_size: int, embedding_size: int = 64) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, embedding_size, bias=False)

    def forward(self, states: Tensor, logits: Tensor) -> Tensor:
        """Embeddings of the terms of one text.

        Parameters
        ----------
        states
            Final hidden states of its tokens, shape (n, hidden_size).
        logits
            Logits of the chosen terms at these tokens, shape (n, k).

        Returns
        -------
        Tensor
            Shape (k, embedding_size), float32.
        """
        attention = torch.softmax(logits.float(), dim=0)
        return torch.relu(attention.T @ self.linear(states).float())


def top_terms(weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Weights and ids of the k heaviest terms, each shape (..., k), by falling weight."""
    best = torch.topk(weights, min(k, weights.shape[-1]), dim=-1)
    return best.values, best.indices


def pairwise_scores(queries: Terms, documents: Terms) -> Tensor:
    """Score of the i-th query with the i-th document, shape (b,)."""
    batch = queries.ids.shape[0]
    rows = torch.arange(batch, device=queries.ids.device)[:, None]
    # A number for each (row, term): only terms of the same row are then equal.
    stride = int(max(queries.ids.max(), documents.ids.max())) + 1 if batch else 1
    left, right = _matches(
        queries.ids + rows * stride, queries.weights, documents.ids + rows * stride, documents.weights
    )
    scores = queries.embeddings.new_zeros(batch)
    return scores.index_add(0, left // queries.ids.shape[1], _products(queries, documents, left, right))


def all_pairs_scores(queries: Terms, documents: Terms) -> Tensor:
    """Score of every query with every document, shape (queries, documents)."""
    n, m = len(queries.ids), len(documents.ids)
    left, right = _matches(queries.ids, queries.weights, documents.ids, documents.weights)
    cells = left // queries.ids.shape[1] * m + right // documents.ids.shape[1]
    scores = queries.embeddings.new_zeros(n * m)
    return scores.index_add(0, cells, _products(queries, documents, left, right)).view(n, m)


def _products(queries: Terms, documents: Terms, left: Tensor, right: Tensor) -> Tensor:
    """Inner products of the embeddings at flat positions of both sides."""
    return (queries.embeddings.flatten(0, 1)[left] * documents.embeddings.flatten(0, 1)[right]).sum(dim=-1)


def _matches(query_keys: Tensor, query_weights: Tensor, keys: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Flat positions of every pair of active terms with equal keys."""
    left = query_weights.flatten().nonzero().squeeze(1)
    right = weights.flatten().nonzero().squeeze(1)
    wanted = query_keys.flatten()[left]
    ordered, order = keys.flatten()[right].sort()
    first = torch.searchsorted(ordered, wanted)
    counts = torch.searchsorted(ordered, wanted, right=True) - first
    ends = counts.cumsum(0)
    # The pairs of one query term stand together; within them a running number counts up from `first`.
    steps = torch.arange(int(ends[-1]) if len(ends) else 0, device=keys.device)
    offsets = (first - ends + counts).repeat_interleave(counts) + steps
    return left.repeat_interleave(counts), right[order[offsets]]
