"""SparseEmbed against its formulas, and its directory, which is also a SPLADE model."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from transformers import AutoModelForMaskedLM, BertConfig, BertModel

from cderetrieval import SparseEmbed, Splade, load
from cderetrieval.errors import ConfigError, ModelError, WeightsError
from cderetrieval.models.sparse_embed import all_pairs_scores, padded_terms, term_rows
from cderetrieval.testing import (
    BACKBONES,
    tiny_masked_lm,
    tiny_sparse_embed,
    tiny_sparse_embed_directory,
    tiny_splade,
    tiny_splade_directory,
    tiny_tokenizer,
)
from cderetrieval.types import Encoder, TermEmbeddings

TEXTS = ["owls", "bees make honey in summer " * 4, "", "what do deer do at night?", "a b c " * 60, "deer"]


@pytest.fixture(scope="module")
def encoder():
    return tiny_sparse_embed()


def test_vectors_follow_the_contract(encoder):
    assert isinstance(encoder, Encoder)
    vectors = encoder.encode_document(TEXTS)
    assert isinstance(vectors, TermEmbeddings)
    assert (encoder.kind, encoder.dimension, encoder.embedding_size) == ("sparse-embed", 1461, 8)
    assert vectors.shape == (6, 1461)
    assert vectors.embeddings.shape == (vectors.weights.nnz, 8)
    assert vectors.embeddings.dtype == vectors.weights.dtype == np.float32
    assert vectors.weights.has_canonical_format
    assert (vectors.weights.data > 0).all()
    assert np.diff(vectors.weights.indptr).max() <= 32
    assert len(encoder.encode_query([])) == 0
    assert encoder.encode_query([]).embeddings.shape == (0, 8)


def test_weights_are_those_of_splade(encoder):
    splade = Splade(model=encoder.model, k_tokens=None)
    every = splade.encode(TEXTS, prompt_name="document", k_tokens=1461)
    heaviest = splade.encode(TEXTS, prompt_name="document", k_tokens=32)
    np.testing.assert_allclose(
        encoder.encode_document(TEXTS).weights.toarray(), heaviest.toarray(), atol=2e-5, err_msg="the heaviest 32"
    )
    wide = encoder.encode(TEXTS, prompt_name="document", k_tokens=1461)
    np.testing.assert_allclose(wide.weights.toarray(), every.toarray(), atol=2e-5)
    assert wide.weights.nnz < 6 * 1461, "terms without weight have no embedding"


def test_embeddings_are_pooled_from_the_final_states(encoder):
    text = "owls hunt at night"
    model = encoder.model.transformers_model
    features = encoder.tokenizer([text], return_tensors="pt")
    with torch.no_grad():
        output = model(**features, output_hidden_states=True)
    states, logits = output.hidden_states[-1][0], output.logits[0]
    vectors = encoder.encode_document([text])
    weight = encoder.model.term_pooling.linear.weight.detach()
    for term, embedding in zip(vectors.weights.indices, vectors.embeddings, strict=True):
        mixed = torch.softmax(logits[:, term], dim=0) @ states
        np.testing.assert_allclose(embedding, torch.relu(weight @ mixed), atol=1e-5)


def test_a_term_has_other_embeddings_in_other_texts(encoder):
    vectors = encoder.encode_document(["owls hunt", "owls sleep"])
    term = encoder.tokenizer.convert_tokens_to_ids("ow")
    first, second = (
        part.embeddings[part.weights.indices.tolist().index(term)] for part in (vectors.take([0]), vectors.take([1]))
    )
    assert np.abs(first - second).max() > 1e-3


def test_the_vector_of_a_text_does_not_depend_on_its_batch(encoder):
    together = encoder.encode_document(TEXTS)
    for row, text in enumerate(TEXTS):
        alone, same = encoder.encode_document([text]), together.take([row])
        np.testing.assert_allclose(alone.weights.toarray(), same.weights.toarray(), atol=2e-5)
        np.testing.assert_allclose(alone.embeddings, same.embeddings, atol=2e-5)


def test_scores_are_those_of_training(encoder):
    texts = TEXTS[:4]
    features = encoder.model.preprocess(texts)
    with torch.no_grad():
        terms = encoder.model(features, k_tokens=32)["terms"]
    expected = all_pairs_scores(terms, terms)
    np.testing.assert_allclose(encoder.scores(texts, texts), expected.diagonal(), rtol=1e-4)
    rows = term_rows(terms, 1461)
    back = padded_terms(rows)
    np.testing.assert_allclose(all_pairs_scores(back, back), expected, rtol=1e-4, atol=1e-5)


def test_queries_may_have_fewer_terms():
    encoder = tiny_sparse_embed(k_tokens=20, query_k_tokens=6)
    assert np.diff(encoder.encode_query(["owls hunt at night"]).weights.indptr).tolist() == [6]
    assert np.diff(encoder.encode_document(["owls hunt at night"]).weights.indptr).tolist() == [20]
    model = encoder.model
    assert model(model.preprocess(["owls hunt at night"]), task="query")["terms"].ids.shape == (1, 6)
    assert model(model.preprocess(["owls hunt at night"]), task="document")["terms"].ids.shape == (1, 20)
    assert model(model.preprocess(["owls hunt at night"]), k_tokens=3)["terms"].ids.shape == (1, 3)


def test_gradients_reach_every_parameter():
    model = tiny_sparse_embed().model.train()
    features = model(model.preprocess(["owls hunt", "bees make honey"]))
    terms = features["terms"]
    (all_pairs_scores(terms, terms).sum() + features["sentence_embedding"].sum()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    assert model.term_pooling.linear.weight.grad.abs().max() > 0


def test_the_directory(encoder, tmp_path, caplog):
    encoder.save_pretrained(tmp_path)
    assert "Error" not in caplog.text
    assert sorted(path.name for path in (tmp_path / "2_SparseEmbed").iterdir()) == ["config.json", "model.safetensors"]
    assert [module["idx"] for module in json.loads((tmp_path / "modules.json").read_text())] == [0, 1]
    assert list(tmp_path.glob("**/*.pt")) == list(tmp_path.glob("**/*.bin")) == []
    again = load(tmp_path, device="cpu")
    assert isinstance(again, SparseEmbed)
    assert again.fingerprint == encoder.fingerprint
    assert (again.k_tokens, again.query_k_tokens, again.embedding_size) == (32, 32, 8)
    np.testing.assert_array_equal(again.encode_query(TEXTS).embeddings, encoder.encode_query(TEXTS).embeddings)
    plain, splade = SparseEncoder(str(tmp_path), device="cpu"), tiny_splade()
    np.testing.assert_allclose(
        plain.encode(TEXTS).to_dense().numpy(), splade.encode_document(TEXTS).toarray(), atol=2e-5
    )
    assert AutoModelForMaskedLM.from_pretrained(tmp_path).config.vocab_size == 1461
    assert load(f"splade:{tmp_path}", device="cpu").kind == "sparse"


def test_the_fingerprint_names_all_that_determines_a_vector():
    before = tiny_sparse_embed().fingerprint
    moved = tiny_sparse_embed()
    with torch.no_grad():
        moved.model.term_pooling.linear.weight += 1
    others = [moved, tiny_sparse_embed(k_tokens=5), tiny_sparse_embed(query_k_tokens=5), tiny_sparse_embed(seed=1)]
    assert len({before, *(other.fingerprint for other in others), tiny_splade().fingerprint}) == 6
    assert tiny_sparse_embed().fingerprint == before, "new weights are the same in every process"


def test_saving_splade_over_it_leaves_no_embeddings_behind(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    assert load(tmp_path, device="cpu").kind == "sparse-embed"
    tiny_splade().save_pretrained(tmp_path)
    assert load(tmp_path, device="cpu").kind == "sparse"


def test_a_splade_directory_starts_one(tmp_path):
    encoder = SparseEmbed(tiny_splade_directory(), embedding_size=4, k_tokens=10, device="cpu")
    assert encoder.encode_document(["owls"]).embeddings.shape == (10, 4)
    assert load(f"sparse-embed:{tiny_splade_directory()}").embedding_size == 64


class TestBadInput:
    @pytest.mark.parametrize("name", ["k_tokens", "query_k_tokens"])
    @pytest.mark.parametrize("k", [0, -1, 1462])
    def test_a_number_of_terms_that_no_text_can_have(self, name, k):
        with pytest.raises(ConfigError, match=rf"{name}={k} must be a whole number from 1 to 1461"):
            tiny_sparse_embed(**{name: k})

    @pytest.mark.parametrize("size", [0, -8, "8", 2.5])
    def test_a_size_of_embeddings_that_is_none(self, size):
        with pytest.raises(ConfigError, match=f"embedding_size={size!r} must be a whole number"):
            tiny_sparse_embed(embedding_size=size)

    def test_a_model_without_a_head(self, tmp_path):
        config = BertConfig(**{k: v for k, v in BACKBONES["bert"].items() if k != "model_type"})
        BertModel(config).save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        with pytest.raises(ModelError, match=r"SparseEmbed needs a masked language model .*load this one as a dense"):
            SparseEmbed(tmp_path)

    def test_queries_without_inference(self, encoder):
        with pytest.raises(ConfigError, match="need embeddings"):
            encoder.inference_free()
        assert Splade(model=encoder.model).inference_free().encode_query(["owls"]).nnz == 2
        with pytest.raises(ModelError, match=r"SparseEmbed needs a masked language model .*Router"):
            SparseEmbed(model=tiny_splade().inference_free().model)

    def test_a_model_that_is_saved_with_another_size(self):
        with pytest.raises(ConfigError, match="embedding_size=4, but this model was saved with 8: leave it out"):
            SparseEmbed(tiny_sparse_embed_directory(), embedding_size=4)
        with pytest.raises(ConfigError, match="embedding_size=4, but this model has 8"):
            SparseEmbed(model=tiny_sparse_embed().model, embedding_size=4)

    def test_weights_of_another_shape(self, tmp_path):
        shutil.copytree(tiny_sparse_embed_directory(), tmp_path / "model")
        path = tmp_path / "model" / "2_SparseEmbed" / "model.safetensors"
        save_file({"linear.weight": torch.zeros(8, 31)}, path)
        with pytest.raises(WeightsError, match=r"linear.weight is \(8, 31\), the model has \(8, 32\)"):
            load(tmp_path / "model")
        save_file({"weight": torch.zeros(8, 32)}, path)
        with pytest.raises(WeightsError, match=r"no tensor 'linear\.weight'; it has weight"):
            load(tmp_path / "model")
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(WeightsError, match=r"model.safetensors is damaged .*Save or fetch the model again"):
            load(tmp_path / "model")
        path.unlink()
        with pytest.raises(WeightsError, match=r"model.safetensors does not exist.*Save or fetch the model again"):
            load(tmp_path / "model")

    def test_a_newer_format(self, tmp_path):
        shutil.copytree(tiny_sparse_embed_directory(), tmp_path / "model")
        path = tmp_path / "model" / "2_SparseEmbed" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
        with pytest.raises(ModelError, match=r"format 99.*upgrade"):
            load(tmp_path / "model")

    def test_pickled_weights_are_not_read_but_can_be_converted(self, tmp_path):
        model, tokenizer = tiny_masked_lm()
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        weight = torch.randn(8, 32)
        torch.save({"weight": weight}, tmp_path / "linear.pt")
        with pytest.raises(ModelError, match=r"linear.pt is a pickle.*not read.*linear.safetensors"):
            load(tmp_path)
        old = torch.load(tmp_path / "linear.pt", weights_only=True)["weight"]
        save_file({"weight": old}, tmp_path / "linear.safetensors")
        converted = load(tmp_path, device="cpu")
        assert converted.embedding_size == 8
        assert torch.equal(converted.model.term_pooling.linear.weight, weight)
        converted.save_pretrained(tmp_path / "new")
        assert torch.equal(load_file(tmp_path / "new" / "2_SparseEmbed" / "model.safetensors")["linear.weight"], weight)

    def test_weights_that_are_not_finite(self):
        model, tokenizer = tiny_masked_lm()
        with torch.no_grad():
            model.cls.predictions.bias[7] = torch.nan
        with pytest.raises(ModelError, match="a weight that is not finite for text 0"):
            SparseEmbed(model=model, tokenizer=tokenizer, device="cpu").encode_document(["owls", "bees"])

    def test_a_collapsed_model(self):
        model, tokenizer = tiny_masked_lm()
        with torch.no_grad():
            model.cls.predictions.bias.fill_(-1000)
        with pytest.raises(ModelError, match="no term for any of 40 texts"):
            SparseEmbed(model=model, tokenizer=tokenizer, device="cpu").encode_document(["owls"] * 40)
