"""Losses of sparse models against the same sums written as loops."""

import math

import pytest
import torch
from torch import nn

from cderetrieval.errors import TrainingError
from cderetrieval.models.sparse_embed import Terms
from cderetrieval.testing import tiny_sparse_embed
from cderetrieval.training.recipes import Recipe
from cderetrieval.training.sparse_losses import (
    PackedTerms,
    SparseEmbedRanking,
    contrast,
    own_scores,
    ramp,
    regularised,
    splade_ranking,
    unpack,
)

V, D, B = 20, 3, 4


def recipe(**changes):
    values = {"name": "tiny", "base": "none", "architecture": "splade", "filter": "off", "scale": 0.5}
    return Recipe.from_dict({**values, "query_flops": 0.3, "document_flops": 0.1, "chunk_tokens": None, **changes})


class Bag(nn.Module):
    """Term weights as the sum of word vectors, cut at 0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(11, V)

    def forward(self, features):
        found = (self.words(features["input_ids"]) * features["attention_mask"][..., None]).sum(dim=1)
        return {"sentence_embedding": torch.relu(found)}


def column(seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 11, (B, 5), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def flops(weights):
    return sum((sum(row[j] for row in weights) / len(weights)) ** 2 for j in range(weights.shape[1]))


def ranked(scores, distillation, teacher, symmetric=False, temperature=2.0):
    """Loss of scores (b, documents of the step), b of them in each column."""
    b = len(scores)
    own = [[scores[i, i + b * k] for k in range(scores.shape[1] // b)] for i in range(b)]
    if distillation == "margin-mse":
        margins = [
            (row[0] - row[k]) - (wanted[0] - wanted[k])
            for row, wanted in zip(own, teacher, strict=True)
            for k in range(1, len(row))
        ]
        return sum(m**2 for m in margins) / len(margins)
    if distillation == "kl":
        total = 0.0
        for i in range(b):
            p = torch.softmax(teacher[i] / temperature, dim=0)
            q = torch.softmax(torch.stack(own[i]) / temperature, dim=0)
            total += (p * (p / q).log()).sum()
        return temperature**2 * total / b
    forward = sum(torch.logsumexp(scores[i], dim=0) - scores[i, i] for i in range(b)) / b
    if not symmetric:
        return forward
    return (forward + sum(torch.logsumexp(scores[:b, i], dim=0) - scores[i, i] for i in range(b)) / b) / 2


TEACHER = torch.tensor([[3.0, 1.0, 0.5], [2.0, 2.5, 0.0], [5.0, 1.0, 1.0], [0.0, -1.0, 4.0]])


@pytest.mark.parametrize("chunk_tokens", [None, 6])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"symmetric": True},
        {"distillation": "margin-mse", "negatives": 2},
        {"distillation": "kl", "negatives": 2, "distillation_temperature": 2.0},
    ],
)
def test_the_splade_loss_is_its_formula(settings, chunk_tokens):
    chosen = recipe(chunk_tokens=chunk_tokens, **settings)
    distillation, features = chosen.distillation, [column(seed) for seed in range(4)]
    model, twin = Bag(), Bag()
    loss = regularised(chosen, model, splade_ranking(chosen, model))
    total = sum(loss(features, TEACHER if distillation != "none" else None).values())
    total.backward()

    queries, *documents = (twin(part)["sentence_embedding"] for part in features)
    scores = queries @ torch.cat(documents).T * (chosen.scale if distillation == "none" else 1.0)
    expected = ranked(scores, distillation, TEACHER, chosen.symmetric)
    expected = expected + 0.3 * flops(queries) + 0.1 * flops(torch.cat(documents))
    expected.backward()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(model.words.weight.grad, twin.words.weight.grad, rtol=1e-4, atol=1e-5)
    counted = loss.drain()
    assert counted["query_active"] == pytest.approx(float((queries > 0).sum() / B))
    assert counted["document_active"] == pytest.approx(float((torch.cat(documents) > 0).sum() / (3 * B)))
    share = (queries > 0).float().mean(0) @ (torch.cat(documents) > 0).float().mean(0)
    assert counted["flops"] == pytest.approx(float(share), rel=1e-5)
    assert loss.drain() == {}


def packed(seed, k):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.relu(torch.randn(B, V, generator=generator))
    weights[1, 2:] = 0.0  # fewer than k terms
    return torch.cat([weights, torch.rand(B, k * D, generator=generator)], dim=1).requires_grad_()


def term_products(queries, documents):
    scores = []
    for left_weights, left_ids, left in zip(queries.weights, queries.ids, queries.embeddings, strict=True):
        for right_weights, right_ids, right in zip(documents.weights, documents.ids, documents.embeddings, strict=True):
            score = left.new_zeros(())
            for i, term in enumerate(left_ids.tolist()):
                for j, other in enumerate(right_ids.tolist()):
                    if term == other and left_weights[i] > 0 and right_weights[j] > 0:
                        score = score + left[i] @ right[j]
            scores.append(score)
    return torch.stack(scores).view(B, B)


def by_term(terms):
    rows = []
    for ids, weights in zip(terms.ids.tolist(), terms.weights, strict=True):
        found = dict(zip(ids, weights, strict=True))
        rows.append(torch.stack([found.get(term, torch.zeros(())) for term in range(V)]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"symmetric": True},
        {"distillation": "margin-mse", "negatives": 2},
        {"distillation": "kl", "negatives": 2, "distillation_temperature": 2.0},
    ],
)
def test_the_sparse_embed_loss_is_its_formula(settings):
    chosen = recipe(architecture="sparse-embed", scale=0.7, sparse_weight=0.2, **settings)
    ranking = SparseEmbedRanking(chosen, V, D)
    columns = [packed(0, 4), *(packed(seed, 6) for seed in (1, 2, 3))]
    found = ranking.compute_loss_from_embeddings(columns, TEACHER)
    gradients = torch.autograd.grad(sum(found.values()), columns)

    queries, *documents = (unpack(part, V, D) for part in columns)
    assert queries.ids.shape == (B, 4)
    assert documents[0].embeddings.shape == (B, 6, D)
    distillation = settings.get("distillation", "none")
    scale = 0.7 if distillation == "none" else 1.0
    dense = torch.cat([term_products(queries, part) for part in documents], dim=1) * scale
    known = by_term(queries)
    sparse = torch.cat([known @ by_term(part).T for part in documents], dim=1) * scale
    arguments = (distillation, TEACHER, settings.get("symmetric", False))
    expected = {"dense_loss": ranked(dense, *arguments), "sparse_loss": 0.2 * ranked(sparse, *arguments)}
    for name, value in expected.items():
        assert float(found[name].detach()) == pytest.approx(float(value.detach()), rel=1e-4), name
    for own, reference in zip(gradients, torch.autograd.grad(sum(expected.values()), columns), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-3, atol=1e-5)


def test_packed_terms_are_the_models():
    model = tiny_sparse_embed(k_tokens=7).model
    features = model.preprocess(["owls hunt", "a bee"])
    with torch.no_grad():
        output = model(dict(features))
        row = PackedTerms(model)(dict(features))["sentence_embedding"]
    terms = unpack(row, output["sentence_embedding"].shape[1], model.embedding_size)
    assert isinstance(terms, Terms)
    for own, expected in zip(terms, output["terms"], strict=True):
        torch.testing.assert_close(own, expected)


def test_contrast_of_equal_scores_is_a_guess():
    assert float(contrast(torch.zeros(4, 12))) == pytest.approx(math.log(12))
    assert own_scores(torch.arange(12.0).view(2, 6)).tolist() == [[0, 2, 4], [7, 9, 11]]


def test_the_ramp_is_quadratic_and_goes_on_after_a_break():
    from types import SimpleNamespace

    chosen = recipe(flops_ramp=0.5)
    model = Bag()
    loss = regularised(chosen, model, splade_ranking(chosen, model))
    callback = ramp(chosen, loss)
    callback.on_train_begin(None, SimpleNamespace(max_steps=20, global_step=3), None)
    seen = []
    for step in range(3, 20):
        callback.on_step_begin(None, SimpleNamespace(global_step=step), None)
        seen.append((loss.query_regularizer_weight, loss.document_regularizer_weight))
    assert seen == [
        (pytest.approx(0.3 * w), pytest.approx(0.1 * w)) for w in [min(1, s / 10) ** 2 for s in range(3, 20)]
    ]


def test_a_collapse_is_named():
    chosen = recipe()
    loss = regularised(chosen, Bag(), splade_ranking(chosen, Bag()))
    loss.check(step=6)
    loss.query_regularizer.compute_loss_from_embeddings(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    with pytest.raises(TrainingError, match=r"at step 7 a query has 0\.50 active terms .* a smaller query_flops"):
        loss.check(step=7)
