"""Dense encoders against `SentenceTransformer.encode` with the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, StaticEmbedding
from transformers import BertConfig, BertModel

from cderetrieval import Retriever, load
from cderetrieval.errors import ConfigError, InputError, ModelError
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.testing import BACKBONES, tiny_tokenizer

TEXTS = ["owls", "bees make honey in summer " * 8, "", "what do deer do at night?", "a b c " * 100, "deer"]


@pytest.fixture(scope="module")
def bert_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(**{k: v for k, v in BACKBONES["bert"].items() if k != "model_type"}))
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.1
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return str(directory)


@pytest.fixture
def build(bert_directory):
    def build(pooling="mean", *more, include_prompt=True, **settings):
        modules = [Transformer(bert_directory, max_seq_length=48), Pooling(32, pooling, include_prompt=include_prompt)]
        return SentenceTransformer(modules=[*modules, *more], device="cpu", **settings)

    return build


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_same(encoder, model, *, similarity):
    for ours, theirs in [
        (encoder.encode_query(TEXTS), model.encode_query(TEXTS, batch_size=2)),
        (encoder.encode_document(TEXTS), model.encode_document(TEXTS, batch_size=2)),
    ]:
        np.testing.assert_allclose(ours, unit(theirs) if similarity == "cosine" else theirs, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_vectors_equal_those_of_sentence_transformers(build, pooling, similarity):
    prompts = {"query": "question: ", "document": "answer: "}
    model = build(pooling, prompts=prompts, similarity_fn_name=similarity)
    assert_same(DenseEncoder(model), model, similarity=similarity)


def test_modules_after_the_pooling_run(build):
    model = build("mean", Normalize(), similarity_fn_name="dot")
    encoder = DenseEncoder(model)
    assert_same(encoder, model, similarity="dot")
    np.testing.assert_allclose(np.linalg.norm(encoder.encode_query(TEXTS), axis=1), 1, atol=1e-6)


def test_a_pooling_that_leaves_out_the_prompt(build):
    model = build(include_prompt=False, prompts={"query": "question: ", "document": "answer: "})
    encoder = DenseEncoder(model)
    assert_same(encoder, model, similarity="cosine")
    with_prompt = DenseEncoder(build(prompts=model.prompts)).encode_query(TEXTS)
    assert np.abs(encoder.encode_query(TEXTS) - with_prompt).max() > 1e-3
    with pytest.raises(InputError, match="prompt_name='poetry'"):
        encoder.encode(TEXTS, prompt_name="poetry")
    assert encoder.encode_query([]).shape == (0, 32)


def test_the_passage_prompt_is_that_of_documents(build):
    # SentenceTransformer.encode_document passes over it: there, an empty "document" prompt always stands before it.
    model = build(prompts={"query": "query: ", "passage": "passage: "})
    encoder = DenseEncoder(model)
    np.testing.assert_allclose(
        encoder.encode_document(TEXTS), unit(model.encode(TEXTS, prompt_name="passage")), atol=1e-5
    )
    replaced = DenseEncoder(model, prompts={"document": "d: "})
    np.testing.assert_allclose(replaced.encode_document(TEXTS), unit(model.encode(TEXTS, prompt="d: ")), atol=1e-5)


def test_only_the_first_dimensions_of_a_model_that_says_so(build):
    whole, short = (build("mean", similarity_fn_name="dot", truncate_dim=size) for size in (None, 12))
    encoder = DenseEncoder(short)
    assert encoder.dimension == 12
    np.testing.assert_allclose(encoder.encode_query(TEXTS), DenseEncoder(whole).encode_query(TEXTS)[:, :12], atol=1e-6)
    assert_same(encoder, short, similarity="dot")
    assert_same(DenseEncoder(build("mean", truncate_dim=12)), build("mean", truncate_dim=12), similarity="cosine")
    assert len({DenseEncoder(build(truncate_dim=size)).fingerprint for size in (None, 12, 13)}) == 3


def test_a_decoder_with_its_last_token(tmp_path):
    from transformers import Qwen2Config, Qwen2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=128,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            max_position_embeddings=128,
            initializer_range=0.2,
        )
        Qwen2Model(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    modules = [Transformer(str(tmp_path), max_seq_length=48), Pooling(32, "lasttoken")]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "ask: "})
    model.tokenizer.padding_side = "left"  # as decoders have it; here padding stands on the right
    assert_same(DenseEncoder(model), model, similarity="cosine")


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_retriever_ranks_by_the_similarity_of_the_model(build, similarity):
    model = build("mean", similarity_fn_name=similarity)
    texts = [f"{'owls ' * (i % 5)}{chr(97 + i)}{i}" for i in range(26)]
    query, vectors = model.encode_query(["owls a"]), model.encode_document(texts)
    product = (query @ vectors.T)[0]
    cosine = product / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    assert np.argsort(-product).tolist() != np.argsort(-cosine).tolist(), "the two must disagree"
    scores = product if similarity == "dot" else cosine
    retriever = Retriever(DenseEncoder(model)).add(texts, show_progress=False)
    hits = retriever("owls a", k=26)[0]
    np.testing.assert_allclose([hit["similarity"] for hit in hits], np.sort(scores)[::-1], rtol=1e-5)
    assert [hit["id"] for hit in hits][:5] == np.argsort(-scores)[:5].tolist()


def test_static_embeddings(build):
    static = StaticEmbedding(
        tiny_tokenizer().backend_tokenizer, embedding_weights=np.random.default_rng(0).normal(size=(128, 16))
    )
    model = SentenceTransformer(modules=[static], device="cpu")
    encoder = DenseEncoder(model)
    texts = ["owls", "bees make honey " * 1000]
    np.testing.assert_allclose(encoder.encode_document(texts), unit(model.encode_document(texts)), atol=1e-5)
    assert encoder.dimension == 16
    static.embedding.weight.data[:] = torch.nan
    with pytest.raises(ModelError, match="not finite for text 0"):
        DenseEncoder(model).encode_query(texts)


def test_bfloat16(build):
    model = build()
    full, half = (DenseEncoder(model, dtype=dtype).encode_document(TEXTS) for dtype in ("float32", "bfloat16"))
    assert half.dtype == np.float32
    assert ((full * half).sum(axis=1) > 0.999).all()
    assert np.abs(full - half).max() > 0


def test_the_fingerprint_names_all_that_determines_a_vector(build):
    encoder = DenseEncoder(build())
    before = encoder.fingerprint
    encoder.encode_document(TEXTS)
    assert DenseEncoder(encoder.model).fingerprint == before
    assert DenseEncoder(build(), dtype="bfloat16").fingerprint == before
    heavier = build()
    next(heavier.parameters()).data += 1
    shorter = build()
    shorter.max_seq_length = 16
    others = [heavier, shorter, build("cls"), build(prompts={"query": "q: "}), build(similarity_fn_name="dot")]
    assert len({before, *(DenseEncoder(model).fingerprint for model in others)}) == 6


class Exported:
    """In place of what the ONNX and OpenVINO backends hold: no tensors, but files of weights that it can write."""

    def __init__(self, files):
        self.files = files

    def save_pretrained(self, folder):
        for name, content in self.files.items():
            (Path(folder) / name).write_bytes(content)


def test_the_fingerprint_of_another_backend_is_that_of_the_weights_it_writes(build):
    def fingerprint(backend, **files):
        model = build()
        model.backend = backend
        del model[0].model
        model[0].model = Exported({name.replace("_", "."): content for name, content in files.items()})
        return DenseEncoder(model).fingerprint

    first = fingerprint("onnx", model_onnx=b"weights", config_json=b"{}")
    assert fingerprint("onnx", model_onnx=b"weights", config_json=b"{1}") == first
    others = [
        DenseEncoder(build()).fingerprint,
        fingerprint("onnx", model_onnx=b"others"),
        fingerprint("openvino", model_bin=b"others", model_xml=b"<>"),
        fingerprint("openvino", model_bin=b"weights"),
    ]
    assert first not in others
    assert len({*others}) == 4
    with pytest.raises(ModelError, match=r"'openvino' wrote no weights"):
        fingerprint("openvino", model_xml=b"<>")


def test_a_directory_of_sentence_transformers_loads(build, tmp_path):
    model = build("cls", prompts={"query": "q: "})
    model.save(str(tmp_path))
    encoder = load(tmp_path, device="cpu")
    assert (encoder.kind, encoder.dimension) == ("dense", 32)
    assert DenseEncoder(tmp_path, device="cpu").fingerprint == encoder.fingerprint
    assert_same(encoder, model, similarity="cosine")


def test_what_cannot_be_used_is_named(build, tmp_path):
    with pytest.raises(ConfigError, match="'euclidean'"):
        DenseEncoder(build(similarity_fn_name="euclidean"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path)
