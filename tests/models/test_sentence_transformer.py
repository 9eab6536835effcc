"""A contextual model inside `SentenceTransformer`: the usage of the published models, and saving in both directions."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from cderetrieval import load
from cderetrieval.models.sentence_transformer import ContextualModule, sentence_transformer
from cderetrieval.testing import BACKBONES, tiny_model

CONTEXT = ["on birds of prey", "on insects", "on trees", "on the weather of mountains"]
TEXTS = ["owls hunt at night", "bees make honey", "half a pair: \ud83d", "a long text " * 40]


@pytest.fixture
def directory(tmp_path):
    tiny_model().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("attention", ["cached", "joint"])
def test_both_stages_as_in_the_usage_of_the_published_models(family, attention, tmp_path):
    ours = tiny_model(family, attention=attention)
    ours.save_pretrained(tmp_path)
    model = sentence_transformer(tmp_path, device="cpu")
    assert model[0].config.transductive_corpus_size == len(CONTEXT)
    context = model.encode(CONTEXT, prompt_name="document", convert_to_tensor=True)
    documents = model.encode(TEXTS, prompt_name="document", dataset_embeddings=context, convert_to_tensor=True)
    queries = model.encode(TEXTS[:2], prompt_name="query", dataset_embeddings=context, convert_to_tensor=True)
    similarities = model.similarity(queries, documents)
    values, indices = similarities.topk(3)
    assert similarities.shape == (2, 4)
    assert (values[:, :-1] >= values[:, 1:]).all()

    ours_context = ours.embed_context(CONTEXT)
    encoder = ours.in_context(ours_context)
    np.testing.assert_allclose(context.numpy(), ours_context, atol=1e-5)
    expected = encoder.encode_query(TEXTS[:2]) @ encoder.encode_document(TEXTS).T
    np.testing.assert_allclose(similarities.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(indices.numpy(), np.argsort(-expected, axis=1)[:, :3])
    null = model.encode(TEXTS, prompt_name="query", null_dataset_embedding=True, normalize_embeddings=True)
    np.testing.assert_allclose(null, ours.in_context(None).encode_query(TEXTS), atol=1e-5)


def test_what_sentence_transformers_saves_is_what_we_save(directory, tmp_path):
    model = sentence_transformer(directory, device="cpu")
    model.save(str(tmp_path / "theirs"))
    again = load(tmp_path / "theirs")
    assert again.fingerprint == tiny_model().fingerprint
    for name in ("modules.json", "config_sentence_transformers.json"):
        ours, theirs = (json.loads((path / name).read_text()) for path in (directory, tmp_path / "theirs"))
        if name == "modules.json":
            assert ours == theirs
        else:
            assert {key: theirs[key] for key in ours} == ours


def test_the_loader_of_sentence_transformers_finds_the_installed_class(directory):
    # Its flag lets it import a class of an installed package; the directory holds no code.
    allowed = {"_".join(["trust", "remote", "code"]): True}
    assert not list(directory.glob("*.py"))
    model = SentenceTransformer(str(directory), device="cpu", **allowed)
    assert isinstance(model[0], ContextualModule)
    assert model.prompts["query"] == "search_query: "
    ours = sentence_transformer(directory, device="cpu")
    np.testing.assert_array_equal(model.encode(TEXTS, prompt_name="query"), ours.encode(TEXTS, prompt_name="query"))


def test_the_length_limit_can_be_changed_and_is_saved(directory, tmp_path):
    model = sentence_transformer(directory, device="cpu")
    assert model.max_seq_length == 64
    assert model.get_embedding_dimension() == 32
    model.max_seq_length = 8
    assert model.tokenize(TEXTS)["input_ids"].shape[1] == 8
    model.save(str(tmp_path / "shorter"))
    assert load(tmp_path / "shorter").config.max_length == 8


@pytest.mark.parametrize("with_context", [False, True])
def test_one_step_of_training(directory, with_context):
    model = sentence_transformer(directory, device="cpu")
    model.train()
    context = torch.randn(4, 32) if with_context else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss():
        features = model(model.preprocess(TEXTS), dataset_embeddings=context)
        vectors = torch.nn.functional.normalize(features["sentence_embedding"], dim=1)
        return torch.nn.functional.cross_entropy(vectors @ vectors.T.detach().roll(1, 0) * 5, torch.arange(4))

    before = loss()
    before.backward()
    optimizer.step()
    assert loss() < before
    stage = "second_stage_model" if with_context else "first_stage_model"
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved
    assert all(name.split(".")[2] == stage for name in moved)
    assert ("0.model.second_stage_model.gates" in moved) is with_context


def test_the_trainer_of_sentence_transformers_takes_the_module(directory, tmp_path):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("accelerate")
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = sentence_transformer(directory, device="cpu")
    pairs = datasets.Dataset.from_dict(
        {"anchor": ["owls", "bees"] * 4, "positive": ["hunt at night", "make honey"] * 4}
    )
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to="none", save_strategy="no", use_cpu=True
    )
    trained = SentenceTransformerTrainer(
        model, arguments, train_dataset=pairs, loss=MultipleNegativesRankingLoss(model)
    )
    assert trained.train().global_step == 2
