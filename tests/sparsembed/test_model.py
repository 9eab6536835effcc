"""The torch modules of sparsembed: equal to the encoders underneath, with gradients, and their errors."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from cderetrieval import load
from cderetrieval.errors import ConfigError, InputError, ModelError
from cderetrieval.sparsembed import model, retrieve
from cderetrieval.testing import tiny_masked_lm, tiny_sparse_embed_directory, tiny_splade_directory

TEXTS = ["owls hunt at night", "bees make honey in summer and sleep in winter", "deer"]


@pytest.fixture(scope="module")
def splade():
    return model.Splade(tiny_splade_directory(), device="cpu")


@pytest.fixture(scope="module")
def sparsembed():
    return model.SparsEmbed(tiny_sparse_embed_directory(), device="cpu")


def test_activations_are_those_of_the_encoder(splade):
    expected = splade.encoder().encode(TEXTS, prompt_name="document", k_tokens=12).toarray()
    np.testing.assert_allclose(splade.encode(TEXTS, k_tokens=12)["sparse_activations"], expected, atol=2e-5)
    with_gradient = splade(TEXTS)["sparse_activations"]
    assert with_gradient.requires_grad
    assert ((with_gradient > 0).sum(dim=1) > 12).all()
    assert not splade.encode(TEXTS)["sparse_activations"].requires_grad


def test_embeddings_are_those_of_the_encoder(sparsembed):
    vectors = sparsembed.encoder().encode(TEXTS, prompt_name="document", k_tokens=9)
    output = sparsembed.encode(TEXTS, k_tokens=9)
    assert (output["embeddings"].shape, output["activations"].shape) == ((3, 9, 8), (3, 9))
    np.testing.assert_allclose(output["sparse_activations"], vectors.weights.toarray(), atol=2e-5)
    for row in range(3):
        one = vectors.take([row])
        order = output["activations"][row].argsort()
        np.testing.assert_array_equal(output["activations"][row][order], one.weights.indices)
        np.testing.assert_allclose(output["embeddings"][row][order], one.embeddings, atol=2e-5)
    np.testing.assert_allclose(
        sparsembed.scores(TEXTS, TEXTS, batch_size=2), sparsembed.encoder().scores(TEXTS, TEXTS), rtol=1e-4
    )


def test_a_model_that_is_saved_here_loads_everywhere(sparsembed, tmp_path):
    sparsembed.save_pretrained(tmp_path)
    again, encoder = model.SparsEmbed(tmp_path, device="cpu"), load(tmp_path, device="cpu")
    assert torch.equal(again.scores(TEXTS, TEXTS), sparsembed.scores(TEXTS, TEXTS))
    assert encoder.fingerprint == sparsembed.encoder().fingerprint
    assert model.Splade(tmp_path, device="cpu").encode(TEXTS)["sparse_activations"].shape == (3, 1461)


def test_texts_are_cut_at_256_tokens_and_the_saved_model_too(tmp_path):
    masked, tokenizer = tiny_masked_lm()
    tokenizer.model_max_length = 512
    longer = BertForMaskedLM(BertConfig.from_dict({**masked.config.to_dict(), "max_position_embeddings": 512}))
    built = model.Splade(model=longer, tokenizer=tokenizer, device="cpu")
    built.save_pretrained(tmp_path)
    assert built.max_length == load(tmp_path, device="cpu").settings.max_length == 256


def test_training_does_not_leave_its_mode(splade):
    splade.train()
    first, second = (splade.encode(TEXTS)["sparse_activations"] for _ in range(2))
    assert torch.equal(first, second), "no dropout"
    assert splade.training
    splade.eval()


def test_decode_names_the_heaviest_terms_first(splade):
    activations = torch.zeros(2, splade.dimension)
    for token, weight in [("ow", 1.0), ("##ls", 0.9), (",", 0.8), ("be", 3.0), ("[SEP]", 5.0)]:
        activations[0, splade.tokenizer.convert_tokens_to_ids(token)] = weight
    assert splade.decode(activations) == ["be owls", ""]
    assert splade.decode(activations, k_tokens=2, anything="else") == ["be", ""]


def test_search_replaces_and_leaves_out_what_has_no_text(splade):
    retriever = retrieve.SpladeRetriever(key="name", on="text", model=splade)
    documents = [{"name": "a", "text": "owls"}, {"name": "b", "text": " "}, {"name": "c", "text": "bees"}]
    assert len(retriever.add(documents)) == 2
    retriever.add([{"name": "a", "text": "deer in the woods"}])
    assert len(retriever) == 2
    [hits] = retriever("deer", k=1)
    assert hits[0]["name"] == "a"
    assert set(hits[0]) == {"name", "similarity"}


def test_the_retriever_underneath_saves_and_loads(sparsembed, tmp_path):
    retriever = retrieve.SparsEmbedRetriever(key="id", on=["text"], model=sparsembed)
    retriever.add([{"id": i, "text": text} for i, text in enumerate(TEXTS)], k_tokens=20)
    before = retriever("honey", k_tokens=20)
    retriever.retriever.save(tmp_path / "index")
    again = type(retriever.retriever).load(tmp_path / "index", model=sparsembed.encoder())
    vectors = sparsembed.encoder().encode(["honey"], prompt_name="query", k_tokens=20)
    assert again(vectors, k=100)[0] == before[0]


class TestBadInput:
    @pytest.mark.parametrize("k", [0, -1, 1462])
    def test_a_number_of_terms_that_no_text_can_have(self, splade, sparsembed, k):
        calls = [
            lambda: splade(TEXTS, k_tokens=k),
            lambda: splade.encode(TEXTS, k_tokens=k),
            lambda: splade.decode(torch.zeros(1, 1461), k_tokens=k),
            lambda: splade.scores(TEXTS, TEXTS, k_tokens=k),
            lambda: sparsembed(TEXTS, k_tokens=k),
            lambda: model.SparsEmbed(tiny_sparse_embed_directory(), k_tokens=k, device="cpu"),
            lambda: retrieve.SpladeRetriever("id", "text", splade).add([{"id": 1, "text": "owls"}], k_tokens=k),
        ]
        for call in calls:
            with pytest.raises(ConfigError, match="from 1 to 1461"):
                call()

    def test_other_mistakes(self, splade, tmp_path):
        with pytest.raises(InputError, match="3 queries and 1 documents"):
            splade.scores(TEXTS, ["one"])
        with pytest.raises(InputError, match="text 1 is NoneType"):
            splade.encode(["owls", None])
        with pytest.raises(ModelError, match="there is no directory"):
            model.Splade(model_name_or_path=str(tmp_path / "nowhere"))
        with pytest.raises(ConfigError, match="one of the two"):
            model.SparsEmbed()
