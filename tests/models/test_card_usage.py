"""The two ways in which the card of multi-qa-distilbert-cos-v1 uses that model, and ours, give the same answers.

A tiny model of the same parts (DistilBERT, mean pooling, unit length) in a local folder stands in for the hub's name.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from transformers import AutoModel, AutoTokenizer, DistilBertConfig, DistilBertModel

from cderetrieval import Retriever, load
from cderetrieval.testing import tiny_tokenizer

QUERY = "When do owls hunt?"
DOCUMENTS = ["Most owls hunt at night", "A forest is home to many birds of prey, owls among them", "Honey is sweet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    backbone, folder = (tmp_path_factory.mktemp(name) for name in ("backbone", "multi-qa"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = DistilBertConfig(vocab_size=128, dim=32, n_layers=2, n_heads=4, hidden_dim=48, initializer_range=0.3)
        DistilBertModel(config).save_pretrained(backbone)
    tiny_tokenizer().save_pretrained(backbone)
    modules = [Transformer(str(backbone), max_seq_length=64), Pooling(32, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return str(folder)


def with_sentence_transformers(folder):
    model = SentenceTransformer(folder, device="cpu")
    return util.dot_score(model.encode(QUERY), model.encode(DOCUMENTS))[0].cpu().tolist()


def with_transformers(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)

    def encode(texts):
        features = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**features, return_dict=True).last_hidden_state
        mask = features["attention_mask"].unsqueeze(-1).expand(states.size()).float()
        return F.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9), p=2, dim=1)

    return torch.mm(encode(QUERY), encode(DOCUMENTS).transpose(0, 1))[0].cpu().tolist()


def test_both_usages_and_ours_agree(folder):
    expected = with_sentence_transformers(folder)
    np.testing.assert_allclose(with_transformers(folder), expected, atol=1e-5)
    encoder = load(folder, device="cpu")
    ours = encoder.encode_query([QUERY]) @ encoder.encode_document(DOCUMENTS).T
    np.testing.assert_allclose(ours[0], expected, atol=1e-5)
    ranked = sorted(zip(DOCUMENTS, expected, strict=True), key=lambda pair: pair[1], reverse=True)
    hits = Retriever(folder, device="cpu").add(DOCUMENTS, show_progress=False)(QUERY, k=3, documents=True)[0]
    assert [hit["document"]["text"] for hit in hits] == [text for text, _ in ranked]
    np.testing.assert_allclose([hit["similarity"] for hit in hits], [score for _, score in ranked], atol=1e-5)


def test_the_name_of_the_model_is_known():
    from cderetrieval.models.locate import ALIASES

    assert ALIASES["multi-qa-distilbert-cos-v1"] == "sentence-transformers/multi-qa-distilbert-cos-v1"
