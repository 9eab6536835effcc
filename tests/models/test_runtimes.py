"""Vectors of BERT models by ONNX Runtime, by torch alone, and by sentence-transformers; and in eight bits."""

import copy
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from cderetrieval import Retriever, load
from cderetrieval.errors import ConfigError, MismatchError, MissingDependencyError, ModelError
from cderetrieval.models import bert_onnx
from cderetrieval.models.bert import read_bert
from cderetrieval.models.bert_onnx import OnnxBert
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.locate import installed_minilm
from cderetrieval.models.mlm import SpladeModel
from cderetrieval.models.splade import Splade
from cderetrieval.testing import tiny_dense_directory, tiny_splade_directory

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

TEXTS = [
    "owls hunt at night",
    "",
    "naïve café 日本語 🦉",
    "half: \ud83d",
    "a b c " * 100,
    "[MASK] [SEP] x",
    "deer",
    "bees",
]
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "pandas")
needs_minilm = pytest.mark.skipif(installed_minilm() is None, reason="all-MiniLM-L6-v2 is not installed")


@pytest.fixture(scope="module")
def tiny():
    return Path(tiny_dense_directory())


def saved(tiny, path, pooling, similarity, *more):
    modules = [Transformer(str(tiny), max_seq_length=40), Pooling(32, pooling), *more]
    prompts = {"query": "ask: ", "passage": "read: "}
    SentenceTransformer(modules=modules, prompts=prompts, similarity_fn_name=similarity, device="cpu").save(str(path))
    return path


def by_modules(directory):
    """The same encoder, computed by sentence-transformers."""
    return DenseEncoder(SentenceTransformer(str(directory), device="cpu"))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("more", [(), (Normalize(),)])
def test_all_runtimes_give_the_vectors_and_the_fingerprint_of_sentence_transformers(
    tiny, tmp_path, pooling, similarity, more
):
    directory = saved(tiny, tmp_path / "m", pooling, similarity, *more)
    assert read_bert(directory) is not None
    expected = by_modules(directory)
    for runtime, furthest in (("torch", 0), ("onnx", 1e-5)):
        encoder = DenseEncoder(directory, runtime=runtime)
        for name in ("query", "document"):
            ours, theirs = (one.encode(TEXTS, prompt_name=name) for one in (encoder, expected))
            assert np.abs(ours - theirs).max() <= furthest
        assert (encoder.fingerprint, encoder.other_fingerprints) == (expected.fingerprint, expected.other_fingerprints)
        assert encoder.settings == expected.settings
        assert encoder.is_known_by_vectors == expected.is_known_by_vectors
        assert encoder.encode_query([]).shape == (0, 32)


@needs_minilm
def test_the_tokens_of_minilm_are_those_of_transformers():
    light = read_bert(installed_minilm()).tokenizer
    full = light.full
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in TEXTS]
    for settings in (
        {"truncation": True, "max_length": 16},
        {"add_special_tokens": False, "truncation": False, "return_offsets_mapping": True, "verbose": False},
        {"truncation": True, "max_length": 8, "padding": True, "return_tensors": "np"},
    ):
        ours, theirs = light(texts, **settings), full(texts, **settings)
        for name in ours:
            np.testing.assert_array_equal(np.array(ours[name], dtype=object), np.array(theirs[name], dtype=object))
    assert light("owls")["input_ids"] == full("owls")["input_ids"]
    assert len(light) == len(full)
    assert light.convert_ids_to_tokens([101]) == ["[CLS]"]


@needs_minilm
def test_the_default_model_is_the_same_with_and_without_modules():
    light, modules = load("cde-minilm", runtime="onnx"), load("cde-minilm", runtime="torch")
    expected = modules.encoder.model  # from here on sentence-transformers computes
    assert isinstance(expected, SentenceTransformer)
    ours, theirs = (one.in_context(None).encode_document(TEXTS) for one in (light, modules))
    assert np.abs(ours - theirs).max() < 1e-5
    assert light.fingerprint == modules.fingerprint


CHANGES = {
    "config.json": [
        {"hidden_act": "relu"},
        {"num_attention_heads": 3},
        {"layer_norm_eps": 0},
        {"is_decoder": True},
        {"dtype": "float16"},
        {"position_embedding_type": "relative_key"},
        {"vocab_size": 64},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "2"},
        {"note": "mine"},
        {"quantization_config": {"quant_method": "x"}},
    ],
    "sentence_bert_config.json": [{"max_seq_length": 1000}, {"model_args": {"dtype": "auto"}}],
    "config_sentence_transformers.json": [
        {"truncate_dim": 8},
        {"default_prompt_name": "query"},
        {"similarity_fn_name": "euclidean"},
    ],
    "1_Pooling/config.json": [{"pooling_mode": "max"}, {"include_prompt": False}, {"embedding_dimension": 16}],
    "tokenizer_config.json": [
        {"do_lower_case": False},
        {"strip_accents": True},
        {"tokenizer_class": "RobertaTokenizer"},
        {"unk_token": "[PAD]"},
        {"extra_special_tokens": ["x"]},
    ],
    "tokenizer.json": [{"post_processor": None}, {"normalizer": None}, {"model": {"type": "BPE"}}],
}


@pytest.mark.parametrize(
    ("file", "change"), [(file, change) for file, changes in CHANGES.items() for change in changes], ids=str
)
def test_what_is_unusual_is_left_to_the_libraries(tiny, tmp_path, file, change):
    shutil.copytree(tiny, tmp_path / "m")
    path = tmp_path / "m" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert read_bert(tmp_path / "m") is None


def test_damaged_files_are_left_to_the_checks(tiny, tmp_path):
    for number, file in enumerate(sorted(path.relative_to(tiny) for path in tiny.rglob("*") if path.is_file())):
        if file.name == "README.md":
            continue
        for content in (b"", b"{", b"\xff" * 50, b"[]", None):
            directory = tmp_path / f"{number}"
            shutil.rmtree(directory, ignore_errors=True)
            shutil.copytree(tiny, directory)
            (directory / file).unlink() if content is None else (directory / file).write_bytes(content)
            assert read_bert(directory) is None, (file, content)


def test_a_link_out_of_the_directory_is_left_to_the_checks(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "m")
    shutil.move(tmp_path / "m" / "1_Pooling", tmp_path / "elsewhere")
    (tmp_path / "m" / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    assert read_bert(tmp_path / "m") is None
    with pytest.raises(ModelError, match="leads out"):
        load(tmp_path / "m")


def test_modules_that_were_asked_for_compute(tiny):
    encoder = DenseEncoder(tiny)
    before = encoder.encode_query(TEXTS)
    encoder.model[0].auto_model.embeddings.word_embeddings.weight.data *= -1
    assert np.abs(encoder.encode_query(TEXTS) - before).max() > 0.1
    assert encoder.fingerprint != DenseEncoder(tiny).fingerprint
    eight = DenseEncoder(tiny, precision="int8")
    before, _ = eight.encode_query(TEXTS), eight.model
    np.testing.assert_array_equal(eight.encode_query(TEXTS), before)


def test_copies_pickles_and_forks(tiny):
    encoder = DenseEncoder(tiny, runtime="onnx")
    expected = encoder.encode_query(TEXTS)
    for other in (copy.copy(encoder), copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):  # noqa: S301
        np.testing.assert_array_equal(other.encode_query(TEXTS), expected)
    child = os.fork()
    if child == 0:
        same = np.allclose(encoder.encode_query(TEXTS), expected, atol=1e-6)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_eight_bits(tiny):
    encoder, whole = DenseEncoder(tiny, precision="int8"), DenseEncoder(tiny)
    assert encoder.fingerprint != whole.fingerprint
    assert encoder.fingerprint == DenseEncoder(tiny, precision="int8", runtime="onnx").fingerprint
    vectors = encoder.encode_document(TEXTS)
    cosines = (vectors * whole.encode_document(TEXTS)).sum(axis=1)
    assert 0.999 < cosines.min() <= cosines.max() < 1 - 1e-7
    alone = np.concatenate([encoder.encode_document([text]) for text in TEXTS])
    assert np.abs(alone - vectors).max() < 1e-5, "a text's neighbours decide about its vector"


def test_an_index_keeps_its_precision(tiny, tmp_path, monkeypatch):
    with Retriever(str(tiny), precision="int8", path=tmp_path / "i") as retriever:
        retriever.add(TEXTS[:1] + TEXTS[-2:])
        expected = retriever("owls", k=3)
    with Retriever.load(tmp_path / "i") as retriever:
        assert retriever("owls", k=3) == expected
    with pytest.raises(MismatchError, match="fingerprint"):
        Retriever.load(tmp_path / "i", model=load(tiny))
    Retriever.load(tmp_path / "i", model=load(tiny, precision="int8")).close()
    monkeypatch.setattr(bert_onnx, "is_installed", lambda: False)
    with (
        Retriever.load(tmp_path / "i") as retriever,
        pytest.raises(MissingDependencyError, match=r"pip install \"cderetrieval\[onnx\]\""),
    ):
        retriever("owls")


def test_an_index_is_not_tied_to_a_runtime(tiny, tmp_path):
    with Retriever(f"centre:{tiny}", runtime="torch", path=tmp_path / "i") as retriever:
        retriever.add(TEXTS[:1] + TEXTS[-2:])
        expected = retriever("owls", k=3)[0]
    with Retriever.load(tmp_path / "i", runtime="onnx") as retriever:
        found = retriever("owls", k=3)[0]
    assert [hit["id"] for hit in found] == [hit["id"] for hit in expected]
    np.testing.assert_allclose([hit["similarity"] for hit in found], [hit["similarity"] for hit in expected], atol=2e-5)


def test_without_the_extra_torch_computes(tiny, monkeypatch):
    expected = DenseEncoder(tiny, runtime="torch").encode_query(TEXTS)
    monkeypatch.setattr(bert_onnx, "is_installed", lambda: False)
    np.testing.assert_array_equal(load(tiny).encode_query(TEXTS), expected)
    for settings in ({"runtime": "onnx"}, {"precision": "int8"}):
        with pytest.raises(MissingDependencyError, match="onnxruntime is not installed"):
            load(tiny, **settings)


def test_what_onnx_does_not_compute_is_said_once(tiny, tmp_path, caplog):
    shutil.copytree(tiny, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": "relu"}))
    caplog.set_level(logging.INFO, logger="cderetrieval")
    for _ in range(2):
        assert load(tmp_path / "m", runtime="onnx").encode_query(["owls"]).shape == (1, 32)
    said = [record for record in caplog.records if "torch computes it" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING"]
    with pytest.raises(ModelError, match="precision='int8' is for BERT"):
        load(tmp_path / "m", precision="int8")
    with pytest.raises(ModelError, match="precision='int8' is for BERT"):
        load(f"sparse-embed:{tiny_splade_directory()}", precision="int8")


def test_a_small_corpus_is_embedded_once(tiny, tmp_path, monkeypatch):
    rows, computed = [f"document {i} on owls" for i in range(30)], []
    compute = OnnxBert.__call__
    monkeypatch.setattr(
        OnnxBert, "__call__", lambda self, ids, mask: computed.append(len(ids)) or compute(self, ids, mask)
    )
    retriever = Retriever(f"centre:{tiny}", runtime="onnx").add(rows)
    assert sum(computed) <= 2 * len(rows) + 2, "the documents, and a pseudo-query of each"
    del computed[:]
    model = load(f"centre:{tiny}", runtime="onnx")
    context = retriever.context
    again = context.encoder(model)  # which has sampled nothing
    before = again.encode_document([*rows, "new", rows[3]])
    model.embed_context(rows)
    del computed[:]
    np.testing.assert_array_equal(again.encode_document([*rows, "new", rows[3]]), before)
    assert sum(computed) == 1
    assert again.encode_document([]).shape == (0, 32)
    assert isinstance(model.encoder.model, SentenceTransformer)  # which may be trained
    del computed[:]
    again.encode_document(rows)
    assert model.encoder._held.sampled == (None, {})


def test_settings_are_checked(tiny):
    for settings, message in (
        ({"runtime": "tpu"}, "runtime='tpu' is unknown; use 'auto', 'onnx' or 'torch'"),
        ({"precision": "int4"}, "precision='int4' is unknown; use 'float32' or 'int8'"),
        ({"precision": "int8", "runtime": "torch"}, "leave out runtime='torch'"),
        ({"precision": "int8", "dtype": "bfloat16"}, "leave out dtype='bfloat16'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(tiny, **settings)
        with pytest.raises(ConfigError, match=message):
            Retriever(str(tiny), **settings)
    with pytest.raises(ConfigError, match="for models that are named"):
        Retriever(load(tiny), precision="int8")


def masked(path, change):
    """A tiny SPLADE directory as a file of settings or weights of another release has it."""
    shutil.copytree(tiny_splade_directory(), path)
    change(path)
    return path


def legacy(path):
    """As sentence-transformers 5.0 wrote it."""
    modules = json.loads((path / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))
    settings = json.loads((path / "config_sentence_transformers.json").read_text())
    settings = {**settings, "max_active_dims": 9, "prompts": {"query": "ask: ", "document": "read: "}}
    (path / "config_sentence_transformers.json").write_text(json.dumps(settings))


def checkpoint(path):
    """As transformers writes it."""
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (path / name).unlink()
    shutil.rmtree(path / "1_SpladePooling")


@pytest.mark.parametrize("change", [lambda path: None, legacy, checkpoint])
def test_splade_is_the_same_in_both_runtimes(tmp_path, change):
    directory = masked(tmp_path / "m", change)
    light, modules = (load(f"splade:{directory}", runtime=runtime) for runtime in ("onnx", "torch"))
    assert light._plain is not None
    assert modules._plain is None
    for settings in ({}, {"k_tokens": 5}, {"prompt_name": "query"}):
        ours, theirs = (one.encode(TEXTS, **settings) for one in (light, modules))
        assert np.abs((ours - theirs).toarray()).max() < 1e-5
        np.testing.assert_array_equal(np.diff(ours.indptr), np.diff(theirs.indptr))
    alone = np.concatenate([light.encode([text]).toarray() for text in TEXTS])
    np.testing.assert_array_equal(alone, light.encode(TEXTS).toarray())
    assert light.encode([]).shape == (0, light.dimension)
    assert (light.fingerprint, light.k_tokens, light.settings) == (
        modules.fingerprint,
        modules.k_tokens,
        modules.settings,
    )
    assert load(f"splade:{directory}", precision="int8").fingerprint != light.fingerprint
    assert isinstance(light.model, SpladeModel)  # from here on torch computes
    np.testing.assert_array_equal(light.encode(TEXTS).toarray(), modules.encode(TEXTS).toarray())
    assert light.fingerprint == modules.fingerprint


def test_unusual_splade_models_are_left_to_torch(tmp_path, caplog):
    def sums(path):
        file = path / "1_SpladePooling" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "pooling_strategy": "sum"}))

    caplog.set_level(logging.WARNING, logger="cderetrieval")
    assert load(masked(tmp_path / "m", sums), runtime="onnx")._plain is None
    assert "no model that ONNX Runtime computes here" in caplog.text
    assert Splade(tiny_splade_directory(), max_length=9)._plain is None
    light = Splade(tiny_splade_directory(), k_tokens=3)
    assert light.k_tokens == light.model.max_active_dims == 3


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", ["dense", "splade"])
def test_a_vector_does_not_depend_on_the_others(tiny, name, precision):
    directory = tiny if name == "dense" else tiny_splade_directory()
    encoder = load(f"{name}:{directory}", runtime="onnx", precision=precision)
    texts = [" ".join([word] * size) for size in (*range(1, 24), 40) for word in ("owls", "bees", "night")] * 3
    texts += TEXTS
    together = encoder.encode(texts)
    for row in range(0, len(texts), 7):
        alone = encoder.encode([texts[row]])
        difference = together[[row]] - alone
        assert not abs(difference).sum(), texts[row]


def test_asking_a_splade_index_imports_no_framework(tmp_path):
    check_light(tmp_path / "i", f"splade:{tiny_splade_directory()}")


def test_opening_an_index_and_asking_imports_no_framework(tiny, tmp_path):
    check_light(tmp_path / "i", f"centre:{tiny}")


def check_light(path, model):
    with Retriever(model, path=path) as retriever:
        retriever.add([{"id": f"{i}", "text": text} for i, text in enumerate(TEXTS) if text])
    program = (
        "import sys; from cderetrieval.cli import main; status = main(['search', sys.argv[1], 'owls']); "
        f"print([name for name in {HEAVY} if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_onnx_runtime_reports_nothing(tiny, monkeypatch):
    import onnxruntime

    called = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: called.append(True))
    load(tiny, runtime="onnx").encode_query(["owls"])
    assert called


def test_a_retriever_loads_no_modules(tiny):
    retriever = Retriever(str(tiny)).add([{"id": text, "text": text} for text in ("owls", "bees")])
    retriever("owls")
    assert retriever.encoder._held.model is None
