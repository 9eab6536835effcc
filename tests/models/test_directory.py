"""Good directories of every kind of module load through the view, as sentence-transformers loads them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    BoW,
    Dropout,
    LayerNorm,
    Pooling,
    StaticEmbedding,
    WeightedLayerPooling,
    WordEmbeddings,
    WordWeights,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from cderetrieval import load
from cderetrieval.models.directory import opened
from cderetrieval.testing import tiny_dense_directory, tiny_tokenizer

TEXTS = ["owls hunt at night", "bees make honey"]
WORDS = [word for text in TEXTS for word in text.split()]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def assert_loads(path, *, similar=1e-6):
    theirs = SentenceTransformer(str(path), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(load(path, device="cpu").encode_document(TEXTS), theirs, atol=similar)


def words():
    return WordEmbeddings(WhitespaceTokenizer(WORDS, stop_words=set()), torch.randn(len(WORDS), 8))


def transformer():
    return Transformer(tiny_dense_directory(), max_seq_length=48)


CHAINS = {
    "dense": lambda: [transformer(), Pooling(32), Dense(32, 8, activation_function=torch.nn.GELU()), Normalize()],
    "identity": lambda: [transformer(), Pooling(32), Dense(32, 8, activation_function=torch.nn.Identity())],
    "layer norm": lambda: [transformer(), Pooling(32), LayerNorm(32), Dropout(0.1)],
    "layers": lambda: [transformer(), WeightedLayerPooling(32, num_hidden_layers=2, layer_start=1), Pooling(32)],
    "dense on tokens": lambda: [transformer(), Dense(32, 32, module_input_name="token_embeddings"), Pooling(32)],
    "words": lambda: [words(), WordWeights(WORDS, dict.fromkeys(WORDS, 2.0)), Pooling(8)],
    "words and cnn": lambda: [words(), CNN(8, 4), Pooling(12)],
    "words and lstm": lambda: [words(), LSTM(8, 4), Pooling(8)],
    "bag": lambda: [BoW(WORDS, word_weights={"owls": 3.0})],
    "static": lambda: [StaticEmbedding(tiny_tokenizer(), embedding_dim=8)],
    "routed": lambda: [Router.for_query_document([transformer(), Pooling(32)], [transformer(), Pooling(32, "max")])],
}


@pytest.mark.parametrize("name", CHAINS)
def test_every_kind_of_module(name, tmp_path):
    torch.manual_seed(0)
    model = SentenceTransformer(modules=CHAINS[name](), device="cpu", similarity_fn_name="cosine")
    model.save_pretrained(str(tmp_path / "m"))
    ours = load(tmp_path / "m", device="cpu").encode_document(TEXTS)
    theirs = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode_document(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


BACKBONES = {
    "roberta": (RobertaModel, RobertaConfig(vocab_size=128, max_position_embeddings=66, **SHAPE)),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig(vocab_size=128, max_position_embeddings=66, **SHAPE)),
    "mpnet": (MPNetModel, MPNetConfig(vocab_size=128, max_position_embeddings=66, **SHAPE)),
    "distilbert": (DistilBertModel, DistilBertConfig(vocab_size=128, dim=32, n_layers=2, n_heads=4, hidden_dim=48)),
    "bert without pooler": (BertModel, BertConfig(vocab_size=128, **SHAPE)),
}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("listed", [True, False], ids=["modules", "bare"])
def test_backbones_of_the_field(name, listed, tmp_path):
    torch.manual_seed(0)
    kind, config = BACKBONES[name]
    more = {"add_pooling_layer": False} if name.endswith("pooler") else {}
    kind(config, **more).save_pretrained(tmp_path / "b")
    tiny_tokenizer().save_pretrained(tmp_path / "b")
    if listed:
        modules = [Transformer(str(tmp_path / "b"), max_seq_length=32), Pooling(32)]
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "m"))
    assert_loads(tmp_path / ("m" if listed else "b"))


@pytest.mark.parametrize("shards", [1, 3])
def test_weights_in_shards(shards, tmp_path):
    torch.manual_seed(0)
    size = "1MB" if shards == 1 else "10KB"
    BertModel(BertConfig(vocab_size=128, **SHAPE)).save_pretrained(tmp_path, max_shard_size=size)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) >= shards
    assert_loads(tmp_path)


def test_names_of_older_releases(tmp_path):
    shutil.copytree(tiny_dense_directory(), tmp_path / "m")
    listed = json.loads((tmp_path / "m" / "modules.json").read_text())
    for entry in listed:
        entry["type"] = f"sentence_transformers.models.{entry['type'].rpartition('.')[2]}"
    (tmp_path / "m" / "modules.json").write_text(json.dumps(listed))
    old = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text(json.dumps(old))
    assert load(tmp_path / "m", device="cpu").fingerprint == load(tiny_dense_directory(), device="cpu").fingerprint


def test_a_snapshot_of_the_hub_is_made_of_links(tmp_path):
    """Files of a snapshot link into a folder of blobs beside it; folders do not."""
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "abc"
    blobs = tmp_path / "hub" / "models--a--b" / "blobs"
    shutil.copytree(tiny_dense_directory(), snapshot)
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert load(snapshot, device="cpu").fingerprint == load(tiny_dense_directory(), device="cpu").fingerprint


def test_the_view_holds_nothing_but_what_was_checked(tmp_path):
    shutil.copytree(tiny_dense_directory(), tmp_path / "m")
    for name in ("model.py", "pytorch_model.bin", "generation_config.json", "1_Pooling/model.py", "x.safetensors"):
        (tmp_path / "m" / name).write_text("x")
    with opened(tmp_path / "m") as view:
        held = {path.relative_to(view).as_posix() for path in view.rglob("*") if path.is_file()}
    assert not view.exists()
    assert held == {
        *("config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "1_Pooling/config.json"),
    }


def test_a_relative_path(tmp_path, monkeypatch):
    shutil.copytree(tiny_dense_directory(), tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    assert load(Path(), device="cpu").dimension == 32
    monkeypatch.chdir(tmp_path)
    assert load("m", device="cpu").dimension == 32
