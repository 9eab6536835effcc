import os
import sys
import traceback

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from cderetrieval.errors import ConfigError
from cderetrieval.models.sentence_transformer import ContextualModule
from cderetrieval.testing import tiny_model
from cderetrieval.training.false_negatives import FalseNegativeFilter
from cderetrieval.training.gradcache import Caching
from cderetrieval.training.losses import ContextualLoss, text_keys
from cderetrieval.training.surrogate import SurrogateVectors

QUERIES = ["owl", "bee", "heath", "pine", "kelp", "jade", "lichen", "marsh"]
DOCUMENTS = [f"all about the {query} and where it is found" for query in QUERIES]
NEGATIVES = [f"nothing about {query}" for query in QUERIES]
WHOLE = Caching(None, None, "float32")


def trained(**settings):
    model = tiny_model(**{"context_size": 64, **settings}).double()
    return SentenceTransformer(modules=[ContextualModule(model)], device="cpu").train()


def features(model, queries, documents, negatives=None):
    columns = [model.preprocess(list(queries)), model.preprocess(list(documents))]
    if negatives is not None:
        columns.append(model.preprocess(list(negatives)))
    return columns


def run(loss, columns, labels=None, seed=0):
    loss.model.zero_grad()
    torch.manual_seed(seed)
    value = loss(columns, labels)
    value.backward()
    return float(value.detach()), {n: p.grad.clone() for n, p in loss.model.named_parameters() if p.grad is not None}


def by_hand(model, columns, mask=None, scale=50.0, context=None):
    """InfoNCE without the cache, in the context of all documents and negatives, and its scores."""
    contextual = model[0].model
    texts = [{key: column[key] for key in ("input_ids", "attention_mask")} for column in columns]
    shared = [contextual.first_stage_model(**column) for column in texts[1:]]
    vectors = [contextual.second_stage_model(**column, dataset_embeddings=torch.cat(shared)) for column in texts]
    queries, *candidates = (torch.nn.functional.normalize(matrix, dim=1) for matrix in vectors)
    scores = queries @ torch.cat(candidates).T * scale
    if mask is not None:
        scores = scores.masked_fill(mask, -1e10)
    return scores


def test_the_loss_is_infonce_over_documents_and_negatives():
    model = trained()
    columns = features(model, QUERIES, DOCUMENTS, NEGATIVES)
    loss = ContextualLoss(model, caching=WHOLE)
    scores = by_hand(model, columns)
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(8))
    assert run(loss, columns)[0] == pytest.approx(float(expected.detach()), rel=1e-9)
    counts = loss.drain()
    assert counts["accuracy"] == pytest.approx(float((scores.argmax(dim=1) == torch.arange(8)).double().mean()))
    assert counts["loss"] == pytest.approx(float(expected.detach()))
    assert loss.drain() == {}


def test_symmetric_adds_documents_to_queries():
    model = trained()
    columns = features(model, QUERIES, DOCUMENTS)
    scores = by_hand(model, columns)
    target = torch.arange(8)
    expected = (
        torch.nn.functional.cross_entropy(scores, target) + torch.nn.functional.cross_entropy(scores.T, target)
    ) / 2
    value, _ = run(ContextualLoss(model, caching=WHOLE, symmetric=True), columns)
    assert value == pytest.approx(float(expected.detach()), rel=1e-9)


def test_known_positives_of_the_same_query_are_no_negatives():
    model = trained()
    queries = ["owl", "owl", *QUERIES[2:]]
    documents = [*DOCUMENTS[:3], DOCUMENTS[2], *DOCUMENTS[4:]]
    negatives = [NEGATIVES[0], NEGATIVES[1], DOCUMENTS[2], *NEGATIVES[3:-1], DOCUMENTS[0]]
    mask = torch.zeros(8, 16, dtype=torch.bool)
    mask[0, 1] = mask[1, 0] = True  # each a positive of "owl"
    mask[2, 3] = mask[3, 2] = True  # one text, two rows
    mask[2, 10] = mask[3, 10] = True  # a mined negative that is the positive
    mask[0, 15] = mask[1, 15] = True  # another row's negative that is a positive
    columns = features(model, queries, documents, negatives)
    loss = ContextualLoss(model, caching=WHOLE)
    distinct = by_hand(model, columns).shape
    assert distinct == (8, 16)
    run(loss, columns)
    assert loss.drain()["masked_duplicates"] == mask.sum() / 8


def test_duplicates_with_other_padding_are_found():
    model = trained()
    short, long = model.preprocess(["owl"]), model.preprocess(["owl", "a much longer text than that"])
    assert text_keys(short)[0] == text_keys(long)[0] != text_keys(long)[1]


def filter_of(pairs, **settings):
    """A surrogate for which the listed (query row, document row) pairs are as like as a pair of its own."""
    queries, documents = np.eye(8, 16), np.eye(8, 16)
    for query, document in pairs:
        documents[document, query] = 1.0
    return FalseNegativeFilter(SurrogateVectors(queries, documents, np.eye(16)[:8], "by hand"), **settings)


def test_false_negatives_are_masked_and_counted():
    model = trained()
    columns = features(model, QUERIES, DOCUMENTS)
    loss = ContextualLoss(model, caching=WHOLE, false_negatives=filter_of([(0, 3), (5, 6)]))
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, 3] = mask[5, 6] = True
    expected = torch.nn.functional.cross_entropy(by_hand(model, columns, mask), torch.arange(8))
    value, _ = run(loss, columns, torch.arange(8))
    assert value == pytest.approx(float(expected.detach()), rel=1e-9)
    assert loss.drain()["masked_false_negatives"] == 2 / 8


def test_own_mined_negatives_stay_and_those_of_others_go():
    model = trained()
    columns = features(model, QUERIES, DOCUMENTS, NEGATIVES)
    columns[2]["owner"], columns[2]["position"] = torch.tensor([1, 0, *range(2, 8)]), torch.arange(8)
    # Negative k looks exactly like query k; 0 and 1 belong to each other's rows.
    loss = ContextualLoss(model, caching=WHOLE, false_negatives=filter_of([]))
    run(loss, columns, torch.arange(8))
    assert loss.drain()["masked_false_negatives"] == 2 / 8


def test_the_filter_says_what_it_lacks():
    model = trained()
    loss = ContextualLoss(model, caching=WHOLE, false_negatives=filter_of([]))
    with pytest.raises(ConfigError, match="a column 'label'"):
        loss(features(model, QUERIES, DOCUMENTS))
    with pytest.raises(ConfigError, match="'position' of each mined negative"):
        loss(features(model, QUERIES, DOCUMENTS, NEGATIVES), torch.arange(8))


def test_the_context_is_sampled_from_the_batch():
    model = trained(attention="joint", context_positions="separate")
    columns = features(model, QUERIES, DOCUMENTS)
    loss = ContextualLoss(model, caching=WHOLE, context_size=3)
    assert run(loss, columns, seed=1)[0] != run(loss, columns, seed=2)[0]
    assert run(loss, columns, seed=1)[0] == run(loss, columns, seed=1)[0]


def test_null_contexts_come_as_often_as_asked():
    model = trained()
    columns = features(model, QUERIES, DOCUMENTS)
    always = ContextualLoss(model, caching=WHOLE, null_probability=1.0)
    _, found = run(always, columns)
    assert not any("first_stage" in name and gradient.abs().max() > 0 for name, gradient in found.items())
    assert found["0.model.second_stage_model.sequence_dropout_null_embedding"].abs().max() > 0
    assert always.drain()["context_null"] == 1.0
    plain = ContextualLoss(model, caching=WHOLE, context_size=0)
    _, found = run(plain, columns)
    assert not any("first_stage" in name or "null" in name for name, g in found.items() if g.abs().max() > 0)


@pytest.mark.parametrize("settings", [{"null_probability": 1.5}, {"scale": 0.0}])
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ContextualLoss(trained(), **settings)


def test_another_kind_of_model_is_refused():
    from sentence_transformers.sentence_transformer.modules import Normalize

    with pytest.raises(ConfigError, match="not Normalize"):
        ContextualLoss(SentenceTransformer(modules=[Normalize()], device="cpu"))


def of_rank(rank, share):
    """One rank's loss and averaged gradients, on every other row."""
    model = trained(context_size=3)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    loss = ContextualLoss(
        model, caching=Caching(40, 20, "float32"), share_negatives=share, false_negatives=filter_of([(0, 1), (2, 3)])
    )
    loss.model = wrapped
    rows = torch.arange(8)[rank::2]
    # As many negatives as fit: the ranks have different numbers of them.
    mined = rows[: 4 - rank]
    columns = features(model, [QUERIES[k] for k in rows], [DOCUMENTS[k] for k in rows], [NEGATIVES[k] for k in mined])
    columns[2]["owner"], columns[2]["position"] = torch.arange(len(mined)), mined
    return run(loss, columns, rows, seed=rank)


def worker(rank, folder):
    os.environ.update(GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.save([of_rank(rank, share) for share in (False, True)], f"{folder}/{rank}.pt")
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        raise
    finally:
        torch.distributed.destroy_process_group()


def in_one_graph(share):
    """What the two ranks should find: the mean of their losses in one graph, candidates shared or not."""
    model = trained(context_size=3)
    contextual = model[0].model
    sides = []
    for rank in range(2):
        rows = torch.arange(8)[rank::2]
        mined = rows[: 4 - rank]
        columns = features(
            model, [QUERIES[k] for k in rows], [DOCUMENTS[k] for k in rows], [NEGATIVES[k] for k in mined]
        )
        texts = [{key: column[key] for key in ("input_ids", "attention_mask")} for column in columns]
        torch.manual_seed(rank)
        chosen = torch.randperm(8 - rank)[:3]
        documents = torch.cat([contextual.first_stage_model(**column) for column in texts[1:]])[chosen]
        vectors = [contextual.second_stage_model(**column, dataset_embeddings=documents) for column in texts]
        sides.append([torch.nn.functional.normalize(matrix, dim=1) for matrix in vectors])
    total = 0.0
    losses = []
    for rank, (queries, documents, negatives) in enumerate(sides):
        candidates = torch.cat([documents, negatives])
        rows = torch.arange(8)[rank::2].tolist()
        names = [("d", k) for k in rows] + [("n", k) for k in rows[: 4 - rank]]
        if share:
            candidates = torch.cat([torch.cat(side[1:]) for side in sides])
            names = [
                (kind, k) for r in range(2) for kind, count in (("d", 4), ("n", 4 - r)) for k in range(r, 8, 2)[:count]
            ]
        scores = queries @ candidates.T * 50
        for place, row in enumerate(rows):
            for column, name in enumerate(names):
                if name in {0: [("d", 1)], 2: [("d", 3)]}.get(row, []):
                    scores = scores.index_put((torch.tensor(place), torch.tensor(column)), torch.tensor(-1e10).double())
        target = torch.tensor([names.index(("d", row)) for row in rows])
        losses.append(torch.nn.functional.cross_entropy(scores, target))
        total = total + losses[-1] / 2
    total.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return [float(loss.detach()) for loss in losses], gradients


@pytest.mark.slow
def test_two_processes_find_the_gradients_of_one(tmp_path):
    torch.multiprocessing.start_processes(worker, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for share in (False, True):
        losses, gradients = in_one_graph(share)
        for rank in range(2):
            loss, found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[share]
            assert loss == pytest.approx(losses[rank], rel=1e-6)
            for name, gradient in found.items():
                expected = gradients.get(name.removeprefix("module."), torch.zeros_like(gradient))
                torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
