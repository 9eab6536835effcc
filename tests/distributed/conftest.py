"""A small corpus, and models of every family by name."""

import json
import random

import pytest

from cderetrieval.testing import tiny_model_directory, tiny_sparse_embed_directory, tiny_splade_directory

WORDS = ["owl", "bee", "ant", "river", "moon", "tide", "frame", "column", "join", "table", "night", "honey"]


@pytest.fixture
def documents():
    rng = random.Random(0)
    return [{"id": f"d{i}", "text": " ".join(rng.choices(WORDS, k=rng.randint(1, 9))) + f" {i}"} for i in range(100)]


@pytest.fixture
def write_corpus():
    def write(path, documents):
        path.write_text("\n".join(map(json.dumps, documents)))
        return path

    return write


@pytest.fixture
def corpus(tmp_path, documents, write_corpus):
    return write_corpus(tmp_path / "corpus.jsonl", documents)


@pytest.fixture(scope="session")
def dense_directory(tmp_path_factory):
    """A sentence-transformers model of one BERT."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoConfig, AutoModel

    from cderetrieval.testing import BACKBONES, tiny_tokenizer

    backbone, path = tmp_path_factory.mktemp("backbone"), tmp_path_factory.mktemp("dense")
    values = dict(BACKBONES["bert"])
    AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values)).save_pretrained(backbone)
    tiny_tokenizer().save_pretrained(backbone)
    first = Transformer(str(backbone))
    SentenceTransformer(modules=[first, Pooling(first.get_embedding_dimension())]).save(str(path))
    return str(path)


@pytest.fixture(params=["contextual", "dense", "centre", "sparse", "sparse-embed"])
def model_name(request):
    if request.param in ("dense", "centre"):
        name = request.getfixturevalue("dense_directory")
        return name if request.param == "dense" else f"centre:{name}"
    names = {
        "contextual": tiny_model_directory,
        "sparse": tiny_splade_directory,
        "sparse-embed": tiny_sparse_embed_directory,
    }
    return names[request.param]()
