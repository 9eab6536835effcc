"""A trained document context: its file, what it refuses, and a retriever that uses it."""

import json
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cderetrieval import DocumentContext, Retriever, load
from cderetrieval.errors import ConfigError, MismatchError, ModelError, WeightsError
from cderetrieval.models.document_context import OfAnother, Units, in_context
from cderetrieval.models.trained_context import FILE, PROBE, TrainedContext, TrainedContextConfig, probe_of
from cderetrieval.testing import tiny_dense_directory, tiny_splade_directory
from cderetrieval.vectors import unit

WIDTH = 32
LONG = [
    {"id": str(number), "title": f"Bird {number}", "text": "\n\n".join(f"# Part {k}\n\n{word} " * 12 for k in range(4))}
    for number, word in enumerate(("owl hoots", "bee hums", "fox barks"))
]


def made(base, seed=0, **shape):
    config = TrainedContextConfig("tiny", WIDTH, **{"heads": 4, "hidden": 16, **shape})
    rng = np.random.default_rng(seed)
    tensors = {name: 0.3 * rng.standard_normal(size).astype(np.float32) for name, size in config.shapes().items()}
    return TrainedContext(config, tensors, probe_of(base))


@pytest.fixture(scope="module")
def base():
    return load(tiny_dense_directory(), device="cpu")


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained")
    made(base).save_pretrained(path)
    return path


def units(*shape):
    return unit(np.random.default_rng(1).standard_normal((*shape, WIDTH)).astype(np.float32))


def vectors_of(base, document_context, documents=LONG, **more):
    retriever = Retriever(base, on=["title", "text"], document_context=document_context, **more)
    retriever.add(documents, show_progress=False)
    return retriever, np.concatenate([matrix for _, matrix in retriever.collection.iter_vectors()])


def test_a_file_holds_all_of_it(base, folder, tmp_path):
    module, loaded = made(base), TrainedContext.from_pretrained(folder)
    assert loaded.fingerprint == module.fingerprint == TrainedContext.from_pretrained(folder / FILE).fingerprint
    passages, lead = units(5), units(1)[0]
    assert (loaded(passages, lead) == module(passages, lead)).all()
    module.save_pretrained(tmp_path / "half.safetensors", half=True)
    half = TrainedContext.from_pretrained(tmp_path / "half.safetensors")
    assert half.fingerprint != module.fingerprint
    assert np.abs(half(passages, lead) - module(passages, lead)).max() < 2e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, meta: tensors["kind"].__setitem__((0, 0), 9), "is damaged"),
        (lambda tensors, meta: tensors["kind"].__setitem__((0, 0), np.inf), "no finite numbers: kind"),
        (lambda tensors, meta: tensors.pop("out.weight"), "missing: out.weight"),
        (lambda tensors, meta: tensors.pop("probe"), "wrong shape: probe"),
        (lambda tensors, meta: tensors.update(more=tensors["kind"]), "unexpected: more"),
        (lambda tensors, meta: tensors.update(kind=tensors["kind"].astype(np.int64)), "no finite numbers: kind"),
        (lambda tensors, meta: tensors.update(kind=tensors["kind"][:1]), "wrong shape: kind"),
        (lambda tensors, meta: meta.pop("config"), "does not say its shape"),
        (lambda tensors, meta: meta.update(config="[" * 5000), "does not say its shape"),
        (lambda tensors, meta: meta.update(config=json.dumps({**json.loads(meta["config"]), "heads": 5})), "multiple"),
        (lambda tensors, meta: meta.update(config=json.dumps({**json.loads(meta["config"]), "hidden": 1})), "shape"),
        (lambda tensors, meta: meta.update(config=json.dumps({**json.loads(meta["config"]), "base": "other"})), "dam"),
        (lambda tensors, meta: meta.update(format="2"), "upgrade"),
    ],
)
def test_a_file_that_is_not_what_was_written_is_refused(folder, tmp_path, change, message):
    from cderetrieval.files import read_tensors

    tensors, meta = read_tensors(folder / FILE)
    tensors = {name: tensor.copy() for name, tensor in tensors.items()}
    change(tensors, meta)
    save_file(tensors, tmp_path / FILE, metadata=meta)
    with pytest.raises((ModelError, WeightsError, ConfigError), match=message):
        TrainedContext.from_pretrained(tmp_path)


def test_files_of_other_kinds_are_refused(tmp_path):
    save_file({"weight": np.zeros(3, dtype=np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name, message in (("other.safetensors", "no trained document context"), ("text.safetensors", "text.safetens")):
        with pytest.raises(ModelError, match=message):
            DocumentContext(trained=str(tmp_path / name))
    with pytest.raises(ModelError, match=r"trained='nothing' is neither"):
        DocumentContext(trained="nothing")
    with pytest.raises(ConfigError, match="trained=3 must be the name"):
        DocumentContext(trained=3)
    with pytest.raises(ConfigError, match=r"share=1\.5"):
        DocumentContext(share=1.5)
    assert load_file(tmp_path / "other.safetensors")


def test_settings_are_checked():
    for wrong in ({"width": 0}, {"heads": True}, {"heads": 5}, {"hidden": 2.0}):
        with pytest.raises(ConfigError):
            TrainedContextConfig("base", **wrong)
    with pytest.raises(ConfigError):
        TrainedContextConfig(None)


def test_the_order_of_passages_does_not_matter_and_their_document_does(base):
    module, passages, lead = made(base), units(2, 9), units(2)
    own = module(passages[0], lead[0])
    assert np.allclose(np.linalg.norm(own, axis=1), 1, atol=1e-5)
    assert module.weights(passages[0], lead[0]).shape == (9, 3)
    order = np.random.default_rng(2).permutation(9)
    assert np.allclose(own, module(passages[0], lead[0], passages[0][order]), atol=1e-5)
    assert np.abs(own - module(passages[0], lead[1], passages[1])).max() > 0.05


def test_a_long_document_is_computed_in_blocks(base):
    module, passages, lead = made(base), units(10_000), units(1)[0]
    module(passages[:10], lead)
    tracemalloc.start()
    found = module(passages, lead)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * 2**20  # all scores at once would take 1.6 GB
    assert np.allclose(found[-5:], module(passages[-5:], lead, passages), atol=1e-6)


def test_documents_in_one_piece_keep_their_vectors_and_passages_change(base, folder):
    short = {"id": "short", "title": "A", "text": "wren sings"}
    documents = [*LONG, short]
    retriever, plain = vectors_of(base, "auto", documents)
    _, learned = vectors_of(base, DocumentContext(trained=folder), documents)
    assert plain.shape == learned.shape
    assert (plain[-1] == learned[-1]).all()
    heads = (plain == learned).all(axis=1)
    assert 1 <= heads.sum() < len(plain) / 2
    _, none = vectors_of(base, DocumentContext(trained=folder, share=0.0), documents)
    assert np.allclose(none, plain, atol=1e-6)
    _, another = vectors_of(base, OfAnother(trained=folder), documents)
    assert np.abs(another - learned).max() > 0.01
    assert len(retriever) == 4


def test_terms_stay_what_they_are(folder):
    model = load(f"centre:{tiny_dense_directory()}", device="cpu")
    _, plain = vectors_of(model, "auto")
    _, learned = vectors_of(model, DocumentContext(trained=folder))
    assert plain.shape == learned.shape
    assert np.allclose(np.linalg.norm(plain, axis=1), np.linalg.norm(learned, axis=1), atol=1e-5)


def test_an_index_keeps_what_it_was_made_with(base, folder, tmp_path):
    path, where = tmp_path / "index", tmp_path / "mine.safetensors"
    made(base).save_pretrained(where)
    retriever, _ = vectors_of(base, {"trained": str(where)}, path=path)
    retriever.close()
    again = Retriever.load(path, model=base)
    assert again("owl hoots", k=1)[0][0]["id"] == "0"
    made(base, seed=1).save_pretrained(where)
    with pytest.raises(MismatchError, match="another document context"):
        again.add([{**LONG[0], "id": "new"}], show_progress=False)
    where.unlink()
    assert again("owl hoots", k=1)
    with pytest.raises(ModelError, match="neither"):
        again.add([{**LONG[0], "id": "new"}], show_progress=False)


def test_another_model_and_sparse_vectors_are_refused(base, tmp_path):
    module = made(base)
    other = TrainedContext(module.config, module.tensors, units(len(PROBE)))
    other.save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match="trained on vectors of 'tiny'"):
        vectors_of(base, DocumentContext(trained=tmp_path))
    sparse = load(f"splade:{tiny_splade_directory()}", device="cpu")
    with pytest.raises(ConfigError, match="no dense vectors"):
        vectors_of(sparse, DocumentContext(trained=tmp_path))


def test_the_one_that_comes_with_the_package_is_for_the_default_model():
    context = DocumentContext(trained="cde-doc-minilm")
    assert repr(context).startswith("DocumentContext(lead=0.2, mean=0.2, lead_size=32, prefix=0, trained='cde-doc-mini")
    module = context.module(load("cde-minilm", device="cpu").in_context(None))
    assert module.config.base == "cde-minilm"
    assert DocumentContext.parse(context.to_dict()) == context
    with pytest.raises(ModelError, match="neither one of cde-doc-minilm nor"):
        DocumentContext(trained="cde-doc-maxi")


def test_another_document_is_read_as_a_whole():
    """The control takes lead and mean of one and the same other document."""
    rows = np.eye(6, dtype=np.float32)
    units = Units(["a", "b", "c", "d"], [""] * 4, np.array([0, 0, 1, 1]), np.zeros(4, dtype=bool), ["x", "y"])
    made = in_context(rows[:4].copy(), units, OfAnother(lead=0.5, mean=0.5), rows[4:])
    other = (rows[2] + rows[3]) / np.sqrt(2)
    np.testing.assert_allclose(unit(made[:1])[0], unit(rows[0] + 0.5 * rows[5] + 0.5 * other), atol=1e-6)


def test_a_base_is_checked_once(base, folder, monkeypatch):
    module, asked = TrainedContext.from_pretrained(folder), []
    encode = base.encode_document
    monkeypatch.setattr(base, "encode_document", lambda texts, **more: asked.append(texts) or encode(texts, **more))
    for _ in range(2):
        module.check_base(base)
    assert asked == [list(PROBE)]
