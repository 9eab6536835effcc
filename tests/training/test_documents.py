"""Whole documents as training data of a document context, and a context that is trained on them."""

import json
import shutil

import numpy as np
import pytest
import torch

from cderetrieval.errors import ConfigError, InputError, MismatchError, StoreError
from cderetrieval.models.trained_context import FILE, TrainedContext, TrainedContextConfig
from cderetrieval.testing import tiny_dense_directory, tiny_model_directory
from cderetrieval.training.documents import load_documents, passages_of
from cderetrieval.training.families.document import ContextModule, DocumentCollator, DocumentContextLoss
from cderetrieval.training.recipes import load_recipe
from cderetrieval.training.run import prepare, train

BIRDS = ("Ural owl", "Alpine swift", "Corn bunting", "Great bustard")
TEXT = "hunts at night and hears a mouse under the snow from a great distance, as others of the north do."


def bird(number):
    name = f"{BIRDS[number % 4]} {number}"
    sections = [("", "is a bird of the forests."), ("Hunting", TEXT), ("Life > Nest", "breeds in a hollow tree.")]
    texts = [{"heading": heading, "text": f"The {name} {text} {TEXT} {number}"} for heading, text in sections]
    return {"title": name, "sections": texts}


def asked(number):
    sections = [{"text": f"fact {number} {k}", "queries": [f"which fact {number} {k}?"]} for k in range(5)]
    return {"sections": sections}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("documents")
    for name, make in (("birds", bird), ("facts", asked)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(make(number)) + "\n" for number in range(16)))
    return path


@pytest.fixture
def recipe(folder):
    small = {"batch_size": 4, "cluster_size": 4, "cluster_dimensions": None, "context_size": 4, "warmup_steps": 1}
    steps = {"max_steps": 6, "save_steps": 3, "log_steps": 1, "evaluate_steps": None, "learning_rate": 1e-2}
    shape = {"model": {"heads": 4, "hidden": 16}, "base": tiny_dense_directory(), "data": (str(folder),)}
    return load_recipe("cde-doc-minilm").replace(**small, **steps, **shape)


def test_most_documents_withhold_their_names_and_all_are_the_same_again(folder, tmp_path):
    data = load_documents([folder], tmp_path)
    assert (len(data), len(data.section)) == (32, 16 * 3 + 16 * 5)
    passages, queries, leads = (data.columns[name] for name in ("document", "query", "lead"))
    named = [BIRDS[row % 4] in passages[number] for row in range(16) for number in list(data.passages_of(row))[1:]]
    assert 0.15 < np.mean(named) < 0.6
    titled = [leads[row] == f"{BIRDS[row % 4]} {row}" for row in range(16)]
    assert 2 < sum(titled) < 14
    assert all(leads[row].startswith(("fact", BIRDS[row % 4].split()[0], "The")) for row in range(32))
    assert all(len(data.queries_of(number)) == 3 for number in data.passages_of(0))
    by_heading = [queries[int(number)] for number in np.flatnonzero(data.by_heading)]
    assert len(by_heading) == 32
    assert all("unting" in query or "est" in query for query in by_heading)
    (number,) = data.queries_of(data.passages_of(16)[2])
    assert queries[number] == "which fact 0 2?"
    assert data.where(17) == "facts, line 2"
    again = load_documents([folder], tmp_path / "other")
    assert [passages[row] for row in range(128)] == [again.columns["document"][row] for row in range(128)]


def test_a_very_long_document_gives_its_beginning_and_some_in_a_row():
    text = " ".join(f"Sentence number {n} says a little of something that is long." for n in range(2_000))
    lead, found = passages_of({"title": "Long", "sections": [{"heading": "All", "text": text}]}, "here")
    assert len(found) == 40
    assert found[0].text.startswith("Sentence number 0 ") or found[0].text.startswith("All\n")
    assert lead


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"query": "a", "document": "b"}, r"line 1: no whole document.*'sections'"),
        ({"title": 3, "sections": [{"text": "a"}]}, "line 1: 'title' is 3"),
        ({"title": "a", "sections": []}, "must be a list of sections"),
        ({"title": "a", "sections": [{"text": 1}]}, "line 1: section 0"),
        ({"title": "a", "sections": [{"text": "a b", "queries": [""]}]}, "section 0: 'queries'"),
        ({"title": "a", "sections": [{"text": "one passage " * 20}]}, "no document of two passages or more"),
    ],
)
def test_data_without_documents_is_refused_by_name(line, message, tmp_path, recipe):
    (tmp_path / "data.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=message):
        prepare(recipe.replace(data=(str(tmp_path / "data.jsonl"),)), tmp_path / "cache")


def test_recipes_that_cannot_be_are_refused(recipe, tmp_path):
    for change, message in (
        ({"in_sequence": 1.5}, "in_sequence=1.5"),
        ({"negatives": 1}, "no negatives"),
        ({"symmetric": True}, "no symmetric"),
        ({"statistics": {"centre": 0.5}}, "no statistics"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe.replace(**change)
    with pytest.raises(ConfigError, match="no in_sequence"):
        load_recipe("minilm").replace(in_sequence=0.5)
    with pytest.raises(ConfigError, match="no batch of 64"):
        prepare(recipe.replace(batch_size=64), tmp_path)
    with pytest.raises(ConfigError, match="unknown settings layers"):
        train(recipe.replace(model={"layers": 2}), tmp_path / "run")
    with pytest.raises(ConfigError, match="multiple of heads=5"):
        train(recipe.replace(model={"heads": 5}), tmp_path / "run")


def test_what_is_trained_in_torch_is_what_is_used():
    shape = TrainedContextConfig("tiny", 32, 4, 16)
    module = ContextModule(shape, np.eye(3, 32, dtype=np.float32))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    passages = torch.nn.functional.normalize(torch.randn(2, 6, 32), dim=-1)
    lead = torch.nn.functional.normalize(torch.randn(2, 32), dim=-1)
    present = torch.ones(2, 6, dtype=torch.bool)
    present[1, 4:] = False
    passages[1, 4:] = 0
    source = torch.tensor([0, 0])
    own = module(passages, present, lead, torch.arange(2)).detach().numpy()
    swapped = module(passages, present, lead, source).detach().numpy()
    used, p, r = module.trained(), passages.numpy(), lead.numpy()
    assert np.allclose(own[0], used(p[0], r[0]), atol=1e-5)
    assert np.allclose(own[1, :4], used(p[1, :4], r[1]), atol=1e-5)
    assert np.allclose(swapped[1, :4], used(p[1, :4], r[0], p[0]), atol=1e-5)


def test_a_batch_follows_from_its_rows_and_the_loss_masks_what_answers_as_well(recipe, tmp_path):
    prepared = prepare(recipe, tmp_path)
    collate = DocumentCollator(recipe.replace(null_probability=0.4, other_probability=0.4), prepared.documents)
    batch, again = (collate([{"label": row} for row in (0, 3, 20)]) for _ in range(2))
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert batch["document_present"].sum(1).tolist() == [3, 3, 4]
    drawn = [collate([{"label": row}, {"label": row + 1}]) for row in range(15)]
    assert any(one["lead_null"].any() for one in drawn)
    assert any((one["lead_source"] != torch.arange(2)).any() for one in drawn)
    module = ContextModule(TrainedContextConfig("tiny", 32, 4, 16), np.eye(3, 32, dtype=np.float32))
    columns = [
        {name.removeprefix(f"{part}_"): value for name, value in batch.items() if name.startswith(f"{part}_")}
        for part in ("query", "document", "lead")
    ]
    losses = {}
    for name in ("off", "stored"):
        loss = DocumentContextLoss(module, recipe.replace(filter=name))
        losses[name] = float(loss(columns).detach())
        counted = loss.drain()
    assert losses["stored"] <= losses["off"]
    assert counted["masked_false_negatives"] > 0
    assert counted["passages"] == 10


def test_a_run_is_resumed_to_the_bit_and_makes_a_document_context(recipe, tmp_path):
    cache, output = tmp_path / "cache", tmp_path / "run"
    scores = []

    def evaluate(model, step):
        scores.append(step)
        return {"width": float(model.config.width)}

    made = train(recipe.replace(evaluate_steps=3), output, cache=cache, evaluate=evaluate)
    assert scores == [3, 6]
    assert made.fingerprint == TrainedContext.from_pretrained(output / "model").fingerprint
    card = (output / "model" / "README.md").read_text()
    assert "birds.jsonl" in card
    assert "document_context={" in card
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert {"loss", "accuracy", "accuracy_in_sequence", "grad_norm"} <= set(lines[0])
    before = ContextModule(made.config, made.probe).trained()
    assert np.abs(made.tensors["query.weight"] - before.tensors["query.weight"]).max() > 0
    shutil.copytree(output, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-6")
    resumed = train(recipe, tmp_path / "cut", cache=cache, resume=True)
    assert resumed.fingerprint == made.fingerprint
    with pytest.raises(MismatchError, match="architecture"):
        train(recipe.replace(model={"heads": 2, "hidden": 16}), output, cache=cache, resume=True)
    (output / "checkpoint-6" / FILE).write_bytes(b"damaged")
    with pytest.raises((StoreError, MismatchError), match="checkpoint-6"):
        train(recipe, output, cache=cache, resume=True)
    with pytest.raises(ConfigError, match="trained document context"):
        train(recipe.replace(base=str(output / "model")), tmp_path / "next")


def test_a_base_in_a_context_and_one_that_is_no_dense_model(recipe, tmp_path):
    prepared = prepare(recipe.replace(base=f"centre:{tiny_dense_directory()}"), tmp_path)
    vectors = np.asarray(prepared.documents.vectors.document, dtype=np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    with pytest.raises(ConfigError, match="makes no dense vectors"):
        train(recipe.replace(base="bm25"), tmp_path / "run")
    assert tiny_model_directory()
