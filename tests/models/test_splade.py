"""SPLADE against sentence-transformers' SparseEncoder with the same weights, and its directories in both directions."""

import logging

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoModelForMaskedLM, BertConfig, BertForSequenceClassification, BertModel

from cderetrieval import Retriever, Splade, load
from cderetrieval.errors import ConfigError, InputError, ModelError, WeightsError
from cderetrieval.models.mlm import SpladeModel
from cderetrieval.testing import BACKBONES, tiny_masked_lm, tiny_splade, tiny_splade_directory, tiny_tokenizer
from cderetrieval.types import Encoder

TEXTS = ["owls", "bees make honey in summer " * 4, "", "what do deer do at night?", "a b c " * 60, "deer"]


def dense(vectors):
    return vectors.toarray() if isinstance(vectors, csr_array) else vectors.to_dense().numpy()


def assert_equal(splade, model, texts=TEXTS):
    for ours, theirs in [
        (splade.encode_query(texts), model.encode_query(texts, batch_size=2)),
        (splade.encode_document(texts), model.encode_document(texts, batch_size=4)),
    ]:
        np.testing.assert_allclose(dense(ours), dense(theirs), atol=2e-5)


@pytest.fixture(scope="module")
def splade():
    return tiny_splade()


@pytest.fixture(scope="module")
def plain_directory(tmp_path_factory):
    """A masked language model as transformers saves it."""
    directory = tmp_path_factory.mktemp("masked-lm")
    model, tokenizer = tiny_masked_lm()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def test_vectors_follow_the_contract(splade):
    assert isinstance(splade, Encoder)
    vectors = splade.encode_document(TEXTS)
    assert isinstance(vectors, csr_array)
    assert (splade.kind, vectors.shape, vectors.dtype) == ("sparse", (6, 1461), np.float32)
    assert vectors.has_canonical_format
    assert (vectors.data > 0).all()
    assert np.diff(vectors.indptr).min() > 0
    assert splade.encode_query([]).shape == (0, 1461)


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_vectors_equal_those_of_sentence_transformers(plain_directory, pooling, activation):
    modules = [Transformer(plain_directory, transformer_task="fill-mask"), SpladePooling(pooling, activation)]
    model = SparseEncoder(modules=modules, device="cpu", prompts={"query": "ask ", "document": "tell "})
    assert_equal(Splade(model=model), model)


def test_the_formula(plain_directory):
    model, tokenizer = tiny_masked_lm()
    features = tokenizer(["owls hunt"], return_tensors="pt")
    with torch.no_grad():
        activated = torch.log1p(torch.relu(model(**features).logits[0]))
    for pooling, expected in [("max", activated.amax(0)), ("sum", activated.sum(0))]:
        splade = Splade(model=model, tokenizer=tokenizer, pooling=pooling, device="cpu")
        np.testing.assert_allclose(splade.encode_query(["owls hunt"]).toarray()[0], expected, atol=1e-6)


def test_the_vector_of_a_text_does_not_depend_on_its_batch(splade):
    together = splade.encode_document(TEXTS).toarray()
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(splade.encode_document([text]).toarray()[0], together[row], atol=2e-5)


def test_our_directory_loads_elsewhere(splade, tmp_path):
    splade = tiny_splade(max_length=32, k_tokens=20, prompts={"query": "ask "})
    splade.save_pretrained(tmp_path)
    model = SparseEncoder(str(tmp_path), device="cpu")
    assert type(model) is SparseEncoder
    assert (model.max_seq_length, model.max_active_dims) == (32, 20)
    np.testing.assert_allclose(dense(splade.encode_document(TEXTS)), dense(model.encode_document(TEXTS)), atol=2e-5)
    masked, tokenizer = AutoModelForMaskedLM.from_pretrained(tmp_path), splade.tokenizer
    features = tokenizer(["deer"], return_tensors="pt")
    with torch.no_grad():
        weights = torch.log1p(torch.relu(masked(**features).logits)).amax(1)[0].numpy()
    kept = splade.encode_document(["deer"])
    np.testing.assert_allclose(kept.data, weights[kept.indices], atol=1e-6)
    again = load(tmp_path, device="cpu")
    assert (again.k_tokens, again.settings.max_length) == (20, 32)
    assert again.fingerprint == splade.fingerprint


def test_their_directories_load_here(plain_directory, tmp_path):
    plain = Splade(plain_directory, device="cpu")
    model = SparseEncoder(plain_directory, device="cpu", prompts={"query": "ask "}, max_active_dims=15)
    model.max_seq_length = 24
    model.save_pretrained(str(tmp_path))
    saved = load(tmp_path, device="cpu")
    assert isinstance(saved, Splade)
    assert (saved.k_tokens, saved.settings.max_length, saved.prompt("query")) == (15, 24, "ask ")
    assert_equal(saved, model)
    assert_equal(plain, SparseEncoder(plain_directory, device="cpu"))
    assert load(f"splade:{plain_directory}", device="cpu").fingerprint == plain.fingerprint
    assert load(plain_directory, device="cpu").kind == "dense", "its files do not say that it is to be a SPLADE model"


def test_a_given_model_is_used_and_not_copied():
    model, tokenizer = tiny_masked_lm()
    splade = Splade(model=model, tokenizer=tokenizer)
    assert splade.model.transformers_model is model
    before = splade.encode_query(["owls"])
    with torch.no_grad():
        model.cls.predictions.bias += 1
    assert splade.encode_query(["owls"]).sum() > before.sum()


def test_it_says_what_it_is(splade):
    assert repr(splade) == "Splade(dimension=1461, max_length=64, k_tokens=None)"


def test_k_tokens_keeps_the_heaviest(splade):
    every = splade.encode_document(TEXTS)
    few = tiny_splade(k_tokens=7)
    cut = few.encode_document(TEXTS)
    assert np.diff(cut.indptr).tolist() == [7] * 6
    for row in range(6):
        kept, whole = cut[[row]], every[[row]]
        assert kept.data.min() >= np.sort(whole.data)[-7] - 1e-6
    assert np.diff(few.encode(TEXTS, prompt_name="query", k_tokens=2).indptr).tolist() == [2] * 6


def test_decode_and_scores(splade):
    vectors = splade.encode_document(["owls hunt at night", "deer"])
    decoded = splade.decode(vectors, k_tokens=5)
    weights = [weight for _, weight in decoded[0]]
    assert [len(terms) for terms in decoded] == [5, 5]
    assert weights == sorted(weights, reverse=True)
    assert {"ow", "##ls"} <= {term for term, _ in splade.decode(vectors)[0]}
    queries = splade.encode_query(["owls", "trees"])
    expected = (queries.toarray() * vectors.toarray()).sum(axis=1)
    np.testing.assert_allclose(splade.scores(["owls", "trees"], ["owls hunt at night", "deer"]), expected, rtol=1e-5)


def test_queries_without_inference(splade, tmp_path, monkeypatch):
    looked_up = splade.inference_free()
    vectors = looked_up.encode_query(["owls owls", "bees"])
    assert [sorted(row) for row in looked_up.decode(vectors)] == [
        [("##ls", 1.0), ("ow", 1.0)],
        [("##es", 1.0), ("be", 1.0)],
    ]
    weighed = splade.inference_free({"ow": 2.5, "be": 0.5})
    assert weighed.decode(weighed.encode_query(["owls", "bees"])) == [[("ow", 2.5)], [("be", 0.5)]]
    np.testing.assert_array_equal(dense(weighed.encode_document(TEXTS)), dense(splade.encode_document(TEXTS)))
    weighed.save_pretrained(tmp_path)
    model, again = SparseEncoder(str(tmp_path), device="cpu"), load(tmp_path, device="cpu")
    assert_equal(again, model)
    assert again.fingerprint == weighed.fingerprint != splade.fingerprint
    monkeypatch.setattr(type(again), "embed", None)
    assert again.encode_query(["owls and bees"]).nnz > 0


def test_queries_without_inference_are_cut_at_the_saved_length(splade, tmp_path):
    looked_up = tiny_splade(max_length=4).inference_free()
    assert [len(row) for row in looked_up.decode(looked_up.encode_query(["ab cd ef gh ij kl"]))] == [4]
    looked_up.save_pretrained(tmp_path)
    again = load(tmp_path, device="cpu")
    assert [len(row) for row in again.decode(again.encode_query(["ab cd ef gh ij kl"]))] == [4]


def test_the_fingerprint_names_all_that_determines_a_vector():
    before = tiny_splade().fingerprint
    assert tiny_splade(dtype="bfloat16").fingerprint == before
    others = [
        tiny_splade(seed=1),
        tiny_splade(pooling="sum"),
        tiny_splade(k_tokens=5),
        tiny_splade(max_length=12),
        tiny_splade(prompts={"query": "q: "}),
    ]
    assert len({before, *(other.fingerprint for other in others)}) == 6


def test_bfloat16():
    full, half = (tiny_splade(dtype=dtype).encode_document(TEXTS).toarray() for dtype in ("float32", "bfloat16"))
    assert 0 < np.abs(full - half).max() < 0.2


def test_training_gives_the_gradients_of_sentence_transformers(plain_directory):
    ours, theirs = SpladeModel(plain_directory, device="cpu"), SparseEncoder(plain_directory, device="cpu")
    ours.train()
    theirs.train()
    for model in (ours, theirs):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    gradients = []
    for model in (ours, theirs):
        features = model.preprocess(TEXTS[:4])
        weights = model(features)["sentence_embedding"]
        (weights @ weights.T).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], expected, atol=1e-3 * expected.abs().max().item(), rtol=1e-3)


def test_a_training_step_keeps_no_logits():
    model = tiny_splade().model.train()
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    features = model.preprocess(["owls hunt at night"] * 6)
    tokens = int(features["attention_mask"].sum())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(features)
    weights = 1461 * 32
    assert max(kept) <= max(weights, tokens * 48)
    assert tokens * 1461 > weights, "logits would have been larger"


class TestBadInput:
    @pytest.mark.parametrize("k", [0, -3, 1462, 2.5, True])
    def test_a_number_of_terms_that_no_text_can_have(self, splade, k):
        with pytest.raises(ConfigError, match=r"from 1 to 1461, the size of the vocabulary"):
            tiny_splade(k_tokens=k)
        with pytest.raises(ConfigError, match="k_tokens"):
            splade.decode(splade.encode_query(["owls"]), k_tokens=k)

    def test_a_model_without_a_head(self, tmp_path):
        config = BertConfig(**{k: v for k, v in BACKBONES["bert"].items() if k != "model_type"})
        backbone, tokenizer = BertModel(config), tiny_tokenizer()
        with pytest.raises(ModelError, match=r"needs a masked language model with its head .* has BertModel"):
            Splade(model=backbone, tokenizer=tokenizer)
        with pytest.raises(ModelError, match=r"has BertForSequenceClassification"):
            Splade(model=BertForSequenceClassification(config), tokenizer=tokenizer)
        backbone.save_pretrained(tmp_path / "backbone")
        tokenizer.save_pretrained(tmp_path / "backbone")
        with pytest.raises(ModelError, match="needs a masked language model with its head"):
            Splade(tmp_path / "backbone")
        with pytest.raises(ModelError, match="needs a masked language model with its head"):
            load(f"splade:{tmp_path / 'backbone'}")
        modules = [Transformer(str(tmp_path / "backbone")), Pooling(32, "mean")]
        SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "dense"))
        with pytest.raises(ModelError, match="needs a masked language model with its head"):
            Splade(tmp_path / "dense")

    def test_a_checkpoint_whose_head_is_missing(self, plain_directory, tmp_path):
        from safetensors.torch import load_file, save_file

        model, tokenizer = tiny_masked_lm()
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        without = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls.")}
        save_file(without, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"no weights of the masked-language-model head .*cls"):
            Splade(tmp_path)

    def test_a_collapsed_model(self, caplog):
        model, tokenizer = tiny_masked_lm()
        with torch.no_grad():
            model.cls.predictions.bias.fill_(-1000)
        splade = Splade(model=model, tokenizer=tokenizer)
        with pytest.raises(ModelError, match=r"no term for any of 32 texts: it has collapsed"):
            splade.encode_document(["owls", "bees"] * 16)
        assert splade.encode_query(["owls"]).nnz == 0
        assert not caplog.text
        assert splade.encode_document(["...", "--"]).nnz == 0, "two lines of dashes are no collapse"
        assert "no term for any of 2 texts" in caplog.text
        with pytest.raises(InputError, match="vectors of documents 0 to 1 are all zero"):
            Retriever(splade).add(["...", "--"])

    def test_weights_that_are_not_finite(self):
        model, tokenizer = tiny_masked_lm()
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("zz")] = torch.nan
        model.cls.predictions.decoder.weight = torch.nn.Parameter(torch.ones(1461, 32))
        with pytest.raises(ModelError, match="not finite for text 1"):
            Splade(model=model, tokenizer=tokenizer).encode_document(["owls", "zz", "bees"])

    def test_a_tokenizer_of_another_model(self):
        model, _ = tiny_masked_lm()
        model.resize_token_embeddings(500)
        with pytest.raises(ModelError, match=r"tokenizer has 1461 tokens, the model's vocabulary 500"):
            Splade(model=model, tokenizer=tiny_tokenizer(pairs=True))

    def test_queries_without_inference_need_one_vocabulary(self):
        model, tokenizer = tiny_masked_lm()
        model.resize_token_embeddings(1500)
        with pytest.raises(ModelError, match=r"1461 tokens, the model's vocabulary 1500.*resize_token_embeddings"):
            Splade(model=model, tokenizer=tokenizer).inference_free()
        with pytest.raises(InputError, match="token 'owls', which is not in the vocabulary"):
            tiny_splade().inference_free({"owls": 1.0})

    def test_vectors_of_another_vocabulary(self, splade):
        with pytest.raises(InputError, match="5 columns, this model's vocabulary 1461"):
            splade.decode(csr_array(np.eye(5, dtype=np.float32)))

    def test_weights_of_another_shape(self, plain_directory, tmp_path):
        import json
        import shutil

        shutil.copytree(plain_directory, tmp_path / "wrong")
        path = tmp_path / "wrong" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 1500}))
        with pytest.raises(WeightsError, match="do not fit its configuration"):
            Splade(tmp_path / "wrong")

    def test_arguments_that_contradict_each_other(self, plain_directory):
        model, tokenizer = tiny_masked_lm()
        for arguments, message in [
            ({}, "one of the two"),
            ({"model_name_or_path": plain_directory, "model": model}, "one of the two"),
            ({"model": model}, "give tokenizer="),
            ({"model": plain_directory, "tokenizer": tokenizer}, "is not a model. .* as model_name_or_path="),
            ({"model": model, "tokenizer": tokenizer, "pooling": "mean"}, "use 'max' or 'sum'"),
            ({"model": model, "tokenizer": tokenizer, "max_length": 0}, "at least 1"),
        ]:
            with pytest.raises(ConfigError, match=message):
                Splade(**arguments)
        cosine = SparseEncoder(plain_directory, device="cpu", similarity_fn_name="cosine")
        with pytest.raises(ConfigError, match="compares vectors by 'cosine'"):
            Splade(model=cosine)

    def test_texts_that_are_none(self, splade):
        with pytest.raises(InputError, match="text 1 is int"):
            splade.encode_document(["owls", 5])
        with pytest.raises(InputError, match="2 queries and 1 documents"):
            splade.scores(["a", "b"], ["c"])
        with pytest.raises(InputError, match="prompt_name='poetry'"):
            splade.encode(["a"], prompt_name="poetry")


def test_a_masked_language_model_without_a_family_is_dense_with_a_word_on_it(tmp_path, caplog):
    model, tokenizer = tiny_masked_lm()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    kinds = [load(f"{family}{tmp_path}", device="cpu").kind for family in ("", "splade:", "dense:")]
    assert kinds == ["dense", "sparse", "dense"]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("cderetrieval")]
    assert len(said) == 1
    assert f"'splade:{tmp_path}' loads it as SPLADE" in said[0]


@pytest.mark.parametrize("family", ["dense", "centre"])
def test_a_saved_splade_model_is_not_loaded_as_a_dense_one(family):
    with pytest.raises(ModelError, match=f"holds a splade model.*leave out '{family}:'"):
        load(f"{family}:{tiny_splade_directory()}", device="cpu")


def test_loading_and_saving_are_quiet(plain_directory, tmp_path, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        Splade(plain_directory, device="cpu").save_pretrained(tmp_path)
        load(tmp_path, device="cpu")
    assert "it/s" not in capfd.readouterr().err


def test_the_same_directory_for_the_life_of_the_process():
    assert tiny_splade_directory() == tiny_splade_directory()
    assert load(tiny_splade_directory()).fingerprint == tiny_splade().fingerprint
