"""sparsembed's losses and training steps: its names and arguments, without its defects."""

import math

import pytest
import torch

from cderetrieval.errors import ConfigError, TrainingError
from cderetrieval.sparsembed import losses, model, train, utils
from cderetrieval.testing import tiny_sparse_embed, tiny_splade

TRIPLES = [("owl", "an owl hoots", "a car"), ("bee", "a bee hums", "the sea"), ("pine", "tall pines", "a lamp")]


@pytest.fixture
def splade():
    return model.Splade(model=tiny_splade().model)


@pytest.fixture
def sparsembed():
    return model.SparsEmbed(model=tiny_sparse_embed().model)


def sgd(module, rate=0.05):
    return torch.optim.SGD(module.parameters(), lr=rate)


def test_the_flops_weight_rises_with_the_square_of_the_step():
    scheduler, weights = losses.FlopsScheduler(weight=1e-4, steps=10), []
    for _ in range(12):
        weights.append(scheduler.get())
        scheduler.step()
    assert weights == pytest.approx([1e-6 * k**2 for k in range(11)] + [1e-4])
    assert (losses.FlopsScheduler().weight, losses.FlopsScheduler().steps) == (3e-5, 10_000)
    with pytest.raises(ConfigError, match="steps=0"):
        losses.FlopsScheduler(steps=0)


def test_ranking_is_cross_entropy():
    ranking = losses.Ranking()
    assert float(ranking(torch.zeros(3), torch.zeros(3))) == pytest.approx(math.log(2))
    assert float(ranking(torch.zeros(1), torch.full((1,), 5.0))) == pytest.approx(math.log(1 + math.exp(5)), abs=1e-3)
    scores = torch.zeros(2, requires_grad=True)
    ranking(scores, torch.tensor([[50.0, 40.0], [1.0, 2.0]])).backward()
    assert (scores.grad < -0.4).all(), "a batch far from right has a gradient"


def test_flops_are_of_queries_and_documents_apart():
    generator = torch.Generator().manual_seed(0)
    anchor, positive, negative = (torch.rand(4, 9, generator=generator) for _ in range(3))
    reference = sum(anchor[:, j].mean() ** 2 for j in range(9))
    documents = torch.cat([positive, negative])
    reference += sum(documents[:, j].mean() ** 2 for j in range(9))
    assert float(losses.Flops()(anchor, positive, negative, threshold=0.0)) == pytest.approx(float(reference), rel=1e-5)


def test_sparse_texts_are_not_rewarded_for_growing_dense():
    weights = torch.full((2, 5), 0.3, requires_grad=True)
    losses.Flops()(weights, weights, weights).backward()
    assert weights.grad is not None
    assert (weights.grad == 0).all()
    dense = torch.full((2, 50), 3.0, requires_grad=True)
    losses.Flops()(dense, dense, dense).backward()
    assert (dense.grad > 0).all()


def splade_reference(module, batch, in_batch):
    anchors, positives, negatives = (module(list(texts))["sparse_activations"] for texts in zip(*batch, strict=True))
    rows = []
    for i in range(len(batch)):
        candidates = [positives[i], negatives[i]] + [positives[j] for j in range(len(batch)) if in_batch and j != i]
        scores = torch.stack([anchors[i] @ candidate for candidate in candidates])
        rows.append(-torch.log_softmax(scores, dim=0)[0])
    documents = torch.cat([positives, negatives])
    sides = [(weights.mean(dim=0) ** 2).sum() for weights in (anchors, documents)]
    return torch.stack(rows).mean(), sum(torch.relu(side - 2.0) for side in sides)


@pytest.mark.parametrize("in_batch", [False, True])
def test_a_splade_step_follows_the_gradient_of_its_losses(splade, in_batch):
    twin = model.Splade(model=tiny_splade().model)
    sparse, flops = splade_reference(twin, TRIPLES, in_batch)
    (2.0 * sparse + 0.1 * flops).backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter -= 0.05 * parameter.grad if parameter.grad is not None else 0.0
    found = train.train_splade(
        splade,
        sgd(splade),
        *(list(texts) for texts in zip(*TRIPLES, strict=True)),
        flops_loss_weight=0.1,
        sparse_loss_weight=2.0,
        in_batch_negatives=in_batch,
        threshold_flops=2.0,
    )
    assert float(found["sparse"]) == pytest.approx(float(sparse.detach()), rel=1e-4)
    assert float(found["flops"]) == pytest.approx(float(flops.detach()), rel=1e-4)
    assert not found["sparse"].requires_grad
    for own, expected in zip(splade.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)
        assert own.grad is None or not own.grad.any()


def dense_reference(queries, documents):
    """Sum over common terms of the products of their embeddings, with dictionaries."""
    scores = torch.zeros(len(queries["activations"]), len(documents["activations"]))
    for i, left in enumerate(per_text(queries)):
        for j, right in enumerate(per_text(documents)):
            scores[i, j] = sum((left[term] * right[term]).sum() for term in left.keys() & right.keys())
    return scores


def per_text(output):
    weights = output["sparse_activations"].gather(1, output["activations"])
    return [
        {int(term): vector for term, weight, vector in zip(ids, row, vectors, strict=True) if weight > 0}
        for ids, row, vectors in zip(output["activations"], weights, output["embeddings"], strict=True)
    ]


@pytest.mark.parametrize("in_batch", [False, True])
def test_a_sparsembed_step_counts_common_terms(sparsembed, in_batch):
    batch = [list(texts) for texts in zip(*TRIPLES, strict=True)]
    with torch.no_grad():
        anchor, positive, negative = (sparsembed(texts, k_tokens=10) for texts in batch)
    scores, hard = dense_reference(anchor, positive), dense_reference(anchor, negative).diagonal()
    columns = [scores.diagonal(), hard]
    if in_batch:
        columns += [scores[range(3), [(i + shift) % 3 for i in range(3)]] for shift in (1, 2)]
    expected = -torch.log_softmax(torch.stack(columns, dim=1), dim=1)[:, 0].mean()
    found = train.train_sparsembed(sparsembed, sgd(sparsembed), *batch, k_tokens=10, in_batch_negatives=in_batch)
    assert set(found) == {"dense", "sparse", "flops"}
    assert float(found["dense"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["splade", "sparsembed"])
def test_a_loop_learns(name, request):
    module = request.getfixturevalue(name)
    step = train.train_splade if name == "splade" else train.train_sparsembed
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    scheduler = losses.FlopsScheduler(weight=1e-4, steps=20)
    seen = []
    for anchor, positive, negative in utils.iter(TRIPLES, epochs=25, batch_size=3):
        found = step(module, optimizer, anchor, positive, negative, flops_loss_weight=scheduler.get())
        scheduler.step()
        seen.append(sum(float(found[key]) for key in found if key != "flops"))
    assert seen[-1] < 0.7 * seen[0]


def test_what_cannot_be_learned_from_is_named(splade):
    before = [parameter.clone() for parameter in splade.parameters()]
    arguments = [["owl"], ["an owl"], ["a car"]]
    with pytest.raises(TrainingError, match="a loss is not finite"):
        train.train_splade(splade, sgd(splade), *arguments, sparse_loss_weight=float("inf"))
    assert all(torch.equal(old, new) for old, new in zip(before, splade.parameters(), strict=True))
    with torch.no_grad():
        splade.model[0].model.get_output_embeddings().bias.fill_(-1e3)
    with pytest.raises(TrainingError, match=r"collapsed: no anchor .* smaller flops_loss_weight"):
        train.train_splade(splade, sgd(splade), *arguments)
