"""Reranking by a cross-encoder: the order, what it reads, and what it refuses."""

import json
import shutil

import pytest

from cderetrieval import Retriever, evaluate
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.errors import ConfigError, InputError, ModelError
from cderetrieval.retrieval.rerank import Reranker, load_cross_encoder
from cderetrieval.testing import HashEncoder, tiny_cross_encoder_directory

DOCUMENTS = [{"id": n, "text": f"owls {'hoot ' * n}at night"} for n in range(1, 9)]


class Longest:
    """Prefers long passages, and remembers what it read."""

    def __init__(self):
        self.pairs = []

    def predict(self, pairs):
        self.pairs += pairs
        return [len(passage) for _, passage in pairs]


@pytest.fixture
def plain():
    return Retriever(HashEncoder()).add(DOCUMENTS)


def reranking(model, **options):
    return Retriever(HashEncoder(), rerank=model, **options).add(DOCUMENTS)


def test_hits_are_ordered_by_the_cross_encoder_and_scored_by_it():
    hits = reranking(Longest())("owls", k=3)[0]
    assert [hit["id"] for hit in hits] == [8, 7, 6]
    assert hits[0] == {"id": 8, "similarity": float(len(DOCUMENTS[7]["text"]))}


def test_it_reads_depth_candidates_and_the_rest_keeps_its_order_below_them(plain):
    model = Longest()
    found, hits = plain("owls", k=8)[0], reranking(model, depth=3)("owls", k=8)[0]
    assert len(model.pairs) == 3
    assert [hit["id"] for hit in hits[3:]] == [hit["id"] for hit in found[3:]]
    assert {hit["id"] for hit in hits[:3]} == {hit["id"] for hit in found[:3]}
    scores = [hit["similarity"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert scores[3] < scores[2]


def test_it_reads_the_best_passage_under_its_heading_and_returns_it_where_it_was_asked_for():
    model = Longest()
    text = "# Birds\n\n" + "Owls hunt at night. " * 20 + "\n\n# Insects\n\n" + "Bees make honey. " * 19 + "Bees hum."
    retriever = Retriever(HashEncoder(), passages=lambda _: [(0, 400), (400, len(text))], rerank=model)
    retriever.add([{"id": "a", "text": text}])
    (hit,) = retriever("bees", passages=True)[0]
    assert model.pairs == [("bees", f"{hit['passage']['heading']}\n{hit['passage']['text']}")]
    assert hit["passage"]["heading"]
    assert "passage" not in retriever("bees")[0][0]


def test_a_hybrid_is_reranked_and_an_opened_index_only_where_it_is_told_so(tmp_path):
    with Retriever({"a": HashEncoder(), "b": HashEncoder()}, rerank=Longest(), path=tmp_path) as retriever:
        assert retriever.add(DOCUMENTS)("owls", k=1)[0][0]["id"] == 8
        assert retriever.parts["a"].reranker is None
    models = {"a": HashEncoder(), "b": HashEncoder()}
    with Retriever.load(tmp_path, model=models) as again:
        assert again.reranker is None
    with Retriever.load(tmp_path, model=models, rerank=Longest()) as again:
        assert again("owls", k=1)[0][0]["id"] == 8


def test_a_cross_encoder_is_loaded_from_a_directory_and_its_scores_are_logits(tmp_path):
    directory = tiny_cross_encoder_directory()
    hits = reranking(directory, device="cpu")("owls", k=8)[0]
    scores = load_cross_encoder(directory, "cpu").predict([("owls", document["text"]) for document in DOCUMENTS])
    assert [hit["id"] for hit in hits] == [DOCUMENTS[n]["id"] for n in (-scores).argsort(kind="stable")]
    assert hits[0]["similarity"] == pytest.approx(float(scores.max()), abs=1e-5)


def test_nothing_that_a_directory_says_runs_code(tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(tiny_cross_encoder_directory(), directory)
    settings = directory / "config_sentence_transformers.json"
    values = json.loads(settings.read_text())
    settings.write_text(json.dumps({**values, "activation_fn": "os.system"}))
    load_cross_encoder(directory, "cpu")  # the setting is not followed
    (directory / "modules.json").write_text(json.dumps([{"name": "0", "path": "", "type": "os.path"}]))
    with pytest.raises(ModelError, match=r"module 'os\.path'"):
        load_cross_encoder(directory, "cpu")


@pytest.mark.parametrize(
    ("model", "depth", "message"),
    [(3, 50, "no cross-encoder"), (HashEncoder(), 50, "no cross-encoder"), (Longest(), 0, "depth=0")],
)
def test_bad_settings_are_named(model, depth, message):
    with pytest.raises(ConfigError, match=message):
        Reranker(model, depth)


@pytest.mark.parametrize("scores", [[[1.0, 2.0]] * 8, [1.0], [float("nan")] * 8])
def test_bad_scores_are_named(scores):
    model = Longest()
    model.predict = lambda _: scores
    with pytest.raises(ModelError, match="the cross-encoder gave"):
        reranking(model)("owls", k=8)


def test_vectors_cannot_be_reranked(plain):
    with pytest.raises(InputError, match="reads texts"):
        reranking(Longest())(plain.encoder.encode_query(["owls"]))


def test_an_evaluation_names_what_reranked():
    corpus = [{"id": str(row["id"]), "text": row["text"]} for row in DOCUMENTS]
    dataset = make_dataset("owls", corpus, {"q": "owls"}, {"q": ["8"]})
    results = evaluate({"hash": HashEncoder()}, dataset, rerank=Longest(), rerank_depth=8, show_progress=False)
    assert [(cell.system, cell.metrics["ndcg@10"]) for cell in results.cells] == [("hash/none+Longest@8", 1.0)]
    with pytest.raises(InputError, match="pass one"):
        evaluate({"hash": HashEncoder()}, dataset, rerank=Longest(), first_stage=HashEncoder())
