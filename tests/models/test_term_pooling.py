"""Scores by term embeddings against loops over dictionaries, and the attention pooling against its formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.models.mlm import top_terms
from cderetrieval.models.sparse_embed import TermPooling, Terms, all_pairs_scores, pairwise_scores

VOCABULARY = 20


def terms(batch, k, size, seed):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(VOCABULARY, generator=draw)[:k] for _ in range(batch)])
    weights = torch.rand(batch, k, generator=draw)
    weights[weights < 0.3] = 0.0
    embeddings = torch.rand(batch, k, size, generator=draw, dtype=torch.float64).requires_grad_()
    return Terms(ids, weights, embeddings)


def dictionary(one, row):
    rows = zip(one.ids[row].tolist(), one.weights[row].tolist(), one.embeddings[row], strict=True)
    return {term: embedding for term, weight, embedding in rows if weight > 0}


def score(queries, documents, i, j):
    query, document = dictionary(queries, i), dictionary(documents, j)
    shared = [query[term] @ document[term] for term in query if term in document]
    return sum(shared, torch.zeros((), dtype=torch.float64))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_all_pairs_equal_loops_over_dictionaries(n, m, k, other_k, seed):
    queries, documents = terms(n, k, 3, seed), terms(m, other_k, 3, seed + 1)
    expected = torch.stack([torch.stack([score(queries, documents, i, j) for j in range(m)]) for i in range(n)])
    torch.testing.assert_close(all_pairs_scores(queries, documents), expected)
    same = terms(n, other_k, 3, seed + 2)
    torch.testing.assert_close(
        pairwise_scores(queries, same), torch.stack([score(queries, same, i, i) for i in range(n)])
    )


def test_gradients_equal_those_of_loops():
    queries, documents = terms(3, 8, 4, 0), terms(5, 10, 4, 1)
    parameters = [queries.embeddings, documents.embeddings]
    ours = torch.autograd.grad(all_pairs_scores(queries, documents).square().sum(), parameters)
    loops = sum(score(queries, documents, i, j).square() for i in range(3) for j in range(5))
    for found, expected in zip(ours, torch.autograd.grad(loops, parameters), strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected)


def test_terms_without_weight_score_nothing():
    queries, documents = terms(2, 5, 3, 0), terms(2, 5, 3, 1)
    silent = Terms(documents.ids, torch.zeros_like(documents.weights), documents.embeddings)
    assert all_pairs_scores(queries, silent).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert pairwise_scores(queries, silent).tolist() == [0.0, 0.0]


def test_no_texts_give_no_scores():
    none = Terms(torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 3), torch.empty(0, 3, 2).double())
    assert all_pairs_scores(none, terms(2, 3, 2, 0)).shape == (0, 2)
    assert pairwise_scores(none, none).shape == (0,)


def test_attention_is_over_the_positions_of_the_text():
    torch.manual_seed(0)
    pooling = TermPooling(6, 3)
    states, logits = torch.randn(4, 6), torch.randn(4, 5)
    found = pooling(states, logits)
    for term in range(5):
        share = torch.softmax(logits[:, term], dim=0)
        mixed = sum(share[i] * states[i] for i in range(4))
        torch.testing.assert_close(found[term], torch.relu(pooling.linear.weight @ mixed))
    assert (found >= 0).all()
    assert (found > 0).any()
    assert pooling.linear.bias is None


@pytest.mark.parametrize(("k", "expected"), [(2, [3.0, 2.0]), (9, [3.0, 2.0, 1.0, 0.0])])
def test_top_terms_never_ask_for_more_than_there_are(k, expected):
    values, ids = top_terms(torch.tensor([1.0, 3.0, 0.0, 2.0]), k)
    assert values.tolist() == expected
    assert ids.tolist()[:2] == [1, 3]
