"""The published layout: full-size key maps, directories, and what is said of a checkpoint that does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cderetrieval import load
from cderetrieval.errors import ConfigError, ModelError, WeightsError
from cderetrieval.models.contextual import ContextualTransformer
from cderetrieval.models.published import KNOWN_BACKBONES, backbone_settings, native_names, published_config
from cderetrieval.testing import tiny_tokenizer

GOLDEN = Path(__file__).parent.parent / "golden"

V1 = {
    "architecture": "transductive",
    "architectures": ["DatasetTransformer"],
    "embedder": "nomic-ai/nomic-bert-2048",
    "disable_dropout": True,
    "disable_transductive_rotary_embedding": True,
    "logit_scale": 50,
    "max_seq_length": 512,
    "transductive_corpus_size": 512,
    "transductive_sequence_dropout_prob": 0.0,
    "transductive_tie_token_embeddings": False,
    "transductive_tokens_per_document": 1,
}
V2 = {
    **V1,
    "architectures": ["ContextualDocumentEmbeddingTransformer"],
    "embedder": "answerdotai/ModernBERT-base",
    "pool_ignore_contextual_tokens": True,
    "pool_ignore_instruction_tokens": True,
    "pooling_strategy": "mean",
}
NULL = "second_stage_model.sequence_dropout_null_embedding"


@pytest.mark.parametrize(("config", "keys", "parameters"), [(V1, "v1", 281_140_992), (V2, "v2", 305_705_472)])
def test_full_size_key_maps_fit_full_size_models(config, keys, parameters):
    shapes = json.loads((GOLDEN / f"keys_full_{keys}.json").read_text())
    shapes.pop(NULL, None)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    settings = published_config(config, backbone_settings(config["embedder"]), instruction_end_id=27)
    with torch.device("meta"):
        model = ContextualTransformer(settings)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in native_names(tensors).items()} == expected
    assert abs(sum(parameter.numel() for parameter in model.parameters()) - parameters) < 10_000


def test_published_configurations_are_translated():
    v1 = published_config(V1, {"model_type": "nomic_bert", "hidden_size": 768})
    assert (v1.head, v1.context_positions, v1.text_embedding, v1.skip_instruction) == (
        "mlp",
        "unrotated",
        "once",
        False,
    )
    v2 = published_config(V2, {"model_type": "modernbert", "hidden_size": 768}, instruction_end_id=5)
    assert (v2.head, v2.context_positions, v2.text_embedding) == ("residual", "sequential", "twice")
    assert v2.skip_instruction
    assert v2.transductive_corpus_size == 512
    assert not v2.null_token
    assert v2.exact_context_size


@pytest.mark.parametrize(
    "change", [{"autoregressive_backbone": True}, {"architecture": "biencoder"}, {"pooling_strategy": "max"}]
)
def test_configurations_without_published_weights_are_refused(change):
    with pytest.raises(ConfigError):
        published_config({**V1, **change}, {"model_type": "nomic_bert", "hidden_size": 768})


@pytest.fixture
def published_directory(tmp_path, monkeypatch):
    """A directory in the layout of the published models, with the tiny reference weights."""
    case = json.loads((GOLDEN / "v2_modernbert_published_cfg" / "config.json").read_text())
    tensors = load_file(GOLDEN / "v2_modernbert" / "model.safetensors")
    tensors.pop(NULL)
    config = {**case["cde"], "embedder": "tiny/modernbert"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors")
    tiny_tokenizer().save_pretrained(tmp_path)
    backbone = {key: value for key, value in case["backbone"].items() if key != "model_type"}
    monkeypatch.setitem(KNOWN_BACKBONES, "tiny/modernbert", {"model_type": "modernbert", **backbone})
    return tmp_path


def test_a_published_directory_loads_and_encodes(published_directory):
    model = load(published_directory)
    assert model.config.instruction_end_id == tiny_tokenizer().encode(": ", add_special_tokens=False)[0]
    context = model.embed_context(["owls", "bees"])
    vectors = model.in_context(context).encode_query(["who hunts at night?", "who makes honey?"])
    assert vectors.shape == (2, 64)
    assert abs(vectors[0] @ vectors[1]) < 0.9999


def test_usage_of_the_published_models_in_transformers_style(published_directory):
    model = load(published_directory)
    tokenizer = model.tokenizer
    texts = [f"document number {i}" for i in range(model.config.transductive_corpus_size)]
    batch = tokenizer(texts, truncation=True, padding=True, max_length=64, return_tensors="pt").to(model.device)
    with torch.no_grad():
        dataset_embeddings = torch.cat(
            [model.first_stage_model(**{k: v[i : i + 2] for k, v in batch.items()}) for i in range(0, len(texts), 2)]
        )
        documents = model.second_stage_model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], dataset_embeddings=dataset_embeddings
        )
    assert dataset_embeddings.shape == documents.shape == (6, 64)


def test_every_tensor_that_does_not_fit_is_listed(published_directory):
    path = published_directory / "model.safetensors"
    tensors = load_file(path)
    tensors["second_stage_model.surprise"] = torch.zeros(3)
    del tensors["first_stage_model.mlp.0.bias"]
    tensors["second_stage_model.output_projection.2.weight"] = torch.zeros(64, 32)
    save_file(tensors, path)
    with pytest.raises(WeightsError) as caught:
        load(published_directory)
    message = str(caught.value)
    assert "3 tensors" in message
    assert "unexpected: second_stage_model.surprise (3,)" in message
    assert "missing: first_stage_model.mlp.0.bias (64,)" in message
    assert "wrong shape: second_stage_model.output_projection.2.weight is (64, 32), the model has (64, 64)" in message


def test_a_damaged_checkpoint_is_named(published_directory):
    path = published_directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        load(published_directory)


def test_pickled_weights_are_not_read(published_directory):
    (published_directory / "model.safetensors").rename(published_directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Pickled weights"):
        load(published_directory)
