"""Long documents, cut into passages: each setting has a name, an identity and a folder of its own."""

import random

import numpy as np
import pytest

from cderetrieval import DocumentContext, evaluate, load
from cderetrieval.cli import main
from cderetrieval.corpora.beir_folder import write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.errors import ConfigError, InputError, MismatchError
from cderetrieval.evaluation.beir_model import BeirSearch
from cderetrieval.evaluation.search import encoder_in
from cderetrieval.evaluation.variants import as_variant, variants_for
from cderetrieval.models.document_context import OfAnother, Units, encode_passages
from cderetrieval.retrieval.names import HybridModel
from cderetrieval.splitting import Span
from cderetrieval.testing import HashEncoder, tiny_dense_directory, tiny_model

QUIET = {"show_progress": False, "context_size": 4}
ANIMALS = ["owl", "bee", "fox", "cat", "dog", "elk", "ant", "cod"]


def text_of(number, sentences):
    draw = random.Random(number)
    return " ".join(f"The {draw.choice(ANIMALS)} saw {draw.choice(ANIMALS)} {i}." for i in range(sentences))


def long_dataset(name="long"):
    documents = [{"id": f"d{i}", "title": f"Tale {i}", "text": text_of(i, 1 + 9 * (i % 3))} for i in range(18)]
    return make_dataset(
        name, documents, {f"q{i}": text_of(i, 20)[-40:] for i in range(9)}, {f"q{i}": [f"d{i}"] for i in range(9)}
    )


@pytest.fixture(scope="module")
def dense():
    return load(tiny_dense_directory())


@pytest.fixture
def dataset():
    return long_dataset()


def test_names_say_what_differs(dense):
    documents = ["none", "auto", DocumentContext(), {"prefix": 16, "lead": 0.3}, OfAnother()]
    variants = variants_for(dense, ["own"], passages=[None, "auto", 20], documents=documents)
    assert [variant.name for variant in variants] == [
        "none",
        *(
            f"none+passages{size}{document}"
            for size in ("", "-20")
            for document in ("", "+document", "+document-lead0.3-prefix16", "+another")
        ),
    ]
    assert variants[0].identity().keys() == variants[1].identity().keys()
    identities = [variant.identity() for variant in variants]
    assert all(one != other for i, one in enumerate(identities) for other in identities[:i])
    hybrid = HybridModel({"a": dense, "b": HashEncoder()})
    assert as_variant(hybrid, passages="auto").document == "auto"
    for passages in (str.split, "sections"):
        with pytest.raises(ConfigError, match="is not evaluated; pass None, 'auto' or a number"):
            as_variant(dense, passages=passages)


def test_folders_never_mix(dense, dataset, tmp_path):
    out = tmp_path / "out"
    model = {"dense": dense}
    before = evaluate(model, dataset, out=out, **QUIET)
    found = evaluate(model, dataset, passages=[None, "auto"], document_context=["none", "auto"], out=out, **QUIET)
    assert found.systems == ["dense/none", "dense/none+passages", "dense/none+passages+document"]
    assert found.cells[0].metrics == before.cells[0].metrics
    assert found.cells[0].audit == {}
    assert found.cells[1].audit == {"cut_documents": 12, "cut_vectors": found.cells[2].audit["cut_vectors"]}
    assert found.cells[1].metrics != found.cells[2].metrics != found.cells[0].metrics
    again = evaluate(model, dataset, passages="auto", out=out, **QUIET)
    assert again.cells[0].seconds == found.cells[2].seconds
    (out / "dense" / "none+passages").rename(tmp_path / "away")
    (tmp_path / "away").rename(out / "dense" / "none+passages-20")
    with pytest.raises(MismatchError, match="passages"):
        evaluate(model, dataset, passages=20, document_context="none", out=out, **QUIET)


def test_candidates_of_cut_documents_are_ranked_as_by_search(dense, dataset):
    options = {"passages": "auto", **QUIET}
    searched = evaluate({"m": dense}, dataset, **options).cells[0]
    reranked = evaluate({"m": dense}, dataset, first_stage=HashEncoder(), depth=18, **options).cells[0]
    assert reranked.metrics["ndcg@10"] == pytest.approx(searched.metrics["ndcg@10"])


def test_adapters_take_the_same_arguments(dense, dataset):
    corpus = {document["id"]: document for document in dataset.corpus}
    cut = [BeirSearch(dense, **given).search(corpus, dataset.queries, 18) for given in ({}, {"passages": "auto"})]
    assert cut[0] != cut[1]
    with pytest.raises(InputError, match="leave out passages"):
        encoder_in(dense, as_variant(dense, passages="auto"), ())


def test_mteb_keeps_cut_documents_apart(dense, tmp_path):
    pytest.importorskip("mteb")
    folder = write_beir(long_dataset(), tmp_path / "SciFact")
    found = evaluate({"m": dense}, folder, passages=[None, "auto"], out=tmp_path / "out", **QUIET)
    direct = evaluate({"m": dense}, f"own={folder}", passages=[None, "auto"], **QUIET)
    for one, other in zip(found.cells, direct.cells, strict=True):
        assert one.metrics["ndcg@10"] == pytest.approx(other.metrics["ndcg@10"])
    assert found.cells[1].audit["cut_documents"] == 12
    assert len({path.parent for path in (tmp_path / "out" / "mteb").rglob("SciFact.json")}) == 2


def test_the_command(tmp_path, capsys):
    folder = write_beir(long_dataset(), tmp_path / "tales")
    arguments = ["eval", "--model", tiny_dense_directory(), "--data", str(folder)]
    document = ["--document-context", "none", "auto", "prefix=16,lead=0"]
    out = ["--ask", "owl", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--passages", "none", "20", *document, *out]) == 0
    printed = capsys.readouterr().out
    for name in ("none+passages-20 ", "none+passages-20+document ", "none+passages-20+document-lead0-prefix16"):
        assert name in printed
    assert main([*arguments, "--document-context", "none"]) == 2
    assert "pass --passages auto too" in capsys.readouterr().err
    for wrong in (["--passages", "own"], ["--passages", "auto", "--document-context", "lead=much"]):
        with pytest.raises(SystemExit):
            main([*arguments, *wrong])
        assert "is not" in capsys.readouterr().err


def test_another_documents_context(dense):
    documents = [(text_of(i, 6), [Span(0, 40, f"Tale {i}"), Span(41, 80, f"Tale {i}")], f"Tale {i}") for i in range(4)]
    documents.insert(2, ("a short one", [], "Short"))
    units = Units.of(documents)
    context = OfAnother(prefix=16)
    assert DocumentContext.parse(context.to_dict()) == context != DocumentContext(prefix=16)
    own, other, none = (
        encode_passages(dense, units, one) for one in (DocumentContext(prefix=16), context, DocumentContext(0, 0))
    )
    np.testing.assert_array_equal(other[4], own[4])  # in one piece
    inside = np.flatnonzero(units.owners >= 0)
    assert all(np.abs(other - own).max(axis=1)[inside] > 1e-4)
    assert all(np.abs(other - none).max(axis=1)[inside] > 1e-4)
    # One alone takes in nothing: there is no other.
    alone = Units.of(documents[:1])
    np.testing.assert_array_equal(
        encode_passages(dense, alone, context), encode_passages(dense, alone, DocumentContext(0, 0))
    )


def test_a_contextual_model_takes_both(dataset):
    found = evaluate({"m": tiny_model()}, dataset, context=["own", "null"], passages="auto", **QUIET)
    assert len(found.systems) == 2
    assert all("+passages" in system for system in found.systems)
