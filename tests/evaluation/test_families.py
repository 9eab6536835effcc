"""Models of every family through every way of evaluation."""

import copy
import json

import numpy as np
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from cderetrieval import evaluate
from cderetrieval.cli import main
from cderetrieval.errors import ConfigError, InputError, ModelError, StoreError
from cderetrieval.evaluation.beir_model import BeirModel, BeirSearch
from cderetrieval.evaluation.candidates import CandidateStage, rerank
from cderetrieval.evaluation.runner import evaluate_retrieval
from cderetrieval.evaluation.variants import variants_for
from cderetrieval.models.bm25 import BM25
from cderetrieval.retrieval.fusion import Fusion
from cderetrieval.retrieval.hybrid import Hybrid
from cderetrieval.retrieval.names import HybridModel, is_hybrid, load_model, takes_context
from cderetrieval.testing import HashEncoder, tiny_model, tiny_model_directory, tiny_sparse_embed, tiny_splade

FAMILIES = {
    "bm25": BM25,
    "hybrid": lambda: HybridModel({"hash": HashEncoder(), "words": BM25(None)}, Fusion("weighted", (0.1, 0.9))),
    "contextual hybrid": lambda: HybridModel({"tiny": tiny_model(), "words": BM25()}),
    "splade": tiny_splade,
    "sparse-embed": tiny_sparse_embed,
}


@pytest.fixture(params=FAMILIES)
def model(request):
    return FAMILIES[request.param]()


def test_a_dataset_of_ones_own(model, toy, tmp_path):
    options = {"context_size": 4, "show_progress": False}
    results = evaluate({"m": model}, toy, context=["own", "null"], out=tmp_path / "out", **options)
    assert [cell.context for cell in results.cells] == (["own", "null"] if takes_context(model) else ["none"])
    for cell in results.cells:
        assert 0 < cell.metrics["ndcg@10"] <= 1
        assert bool(cell.audit) == takes_context(model)
        assert len(cell.scores.query_ids) == 20
    again = evaluate({"m": model}, toy, context=["own", "null"], out=tmp_path / "out", **options)
    assert again.table().equals(results.table())


def test_candidates_are_reranked(model, toy):
    [variant] = variants_for(model, ["own"], 4)
    full = evaluate_retrieval(model, toy, context=variant, show_progress=False)
    candidates = {query: [*list(hits)[1:6], "d59"] for query, hits in full.run.items()}
    blocks, context = rerank(model, variant, toy.corpus, toy.queries, candidates)
    found = {query: hits for block in blocks for query, hits in block.items()}
    assert (context is not None) == takes_context(model)
    for query, hits in found.items():
        assert set(hits) == set(candidates[query])
        kept = [document for document in full.run[query] if document in hits]
        ranked = sorted((document for document in hits if document in kept), key=lambda document: -hits[document])
        assert [hits[document] for document in ranked] == pytest.approx([hits[document] for document in kept], abs=1e-5)
        assert min(hits.values()) == min(hits[document] for document in set(hits) - set(kept) or set(hits))
    with pytest.raises(InputError, match="1 candidates are not in the corpus, the first is 'nowhere'"):
        rerank(model, variant, toy.corpus, toy.queries, {"q0": ["nowhere"]})


def test_words_choose_candidates(toy):
    found = CandidateStage("bm25", BM25(), 7).candidates(toy)
    assert max(map(len, found.values())) == 7
    with pytest.raises(InputError, match="must be a model without context"):
        CandidateStage("both", FAMILIES["contextual hybrid"](), 7).candidates(toy)


def test_beirs_own_evaluation_agrees(model, toy):
    pytest.importorskip("beir")
    from beir.retrieval.evaluation import EvaluateRetrieval

    corpus = {row["id"]: {"title": row["title"], "text": row["text"]} for row in toy.corpus}
    retriever = EvaluateRetrieval(BeirSearch(model, context_size=4))
    ndcg, _, recall, _ = retriever.evaluate(toy.qrels, retriever.retrieve(corpus, toy.queries), [10, 100])
    ours = evaluate_retrieval(model, toy, context_size=4, show_progress=False).scores.mean()
    assert ndcg["NDCG@10"] == pytest.approx(ours["ndcg@10"], abs=1e-5)
    assert recall["Recall@100"] == pytest.approx(ours["recall@100"], abs=1e-5)
    with pytest.raises(InputError, match="takes dense vectors, and this model is"):
        BeirModel(model, corpus)


def mock(*types):
    from mteb.mocks import MOCK_TASK_TEST_GRID

    tasks = {task.metadata.name: task for task in MOCK_TASK_TEST_GRID if not types or task.metadata.type in types}
    return [copy.deepcopy(task) for task in tasks.values()]


def test_mtebs_retrieval_and_reranking_tasks(model, tmp_path):
    pytest.importorskip("mteb")
    from cderetrieval.evaluation.mteb_data import is_retrieval

    wanted = {"MockRetrievalTask", "MockRerankingTask", "MockInstructionReranking"}
    tasks = [task for task in mock() if task.metadata.name in wanted]
    assert len(tasks) == 3
    assert all(map(is_retrieval, tasks))
    results = evaluate({"org/m+x": model}, tasks, context_size=2, out=tmp_path / "out", show_progress=False)
    assert {cell.dataset for cell in results.cells} == wanted
    assert all(np.isfinite(cell.metrics["main_score"]) for cell in results.cells)


@pytest.mark.parametrize("family", ["bm25", "hybrid", "sparse-embed"])
def test_tasks_that_need_vectors_are_refused_by_name(family, toy):
    pytest.importorskip("mteb")
    from cderetrieval.evaluation.mteb_model import MTEBModel

    model = FAMILIES[family]()
    kind = model.kind
    tasks = [toy, *(task for task in mock("STS") if task.metadata.name == "MockSTSTask")]
    with pytest.raises(InputError, match=rf"MockSTSTask is a task of type STS, which needs one vector.*'{kind}' model"):
        evaluate({"m": model}, tasks, show_progress=False)
    adapter = MTEBModel(model, name="m")
    with pytest.raises(InputError, match=f"MockSTSTask compares vectors, and a '{kind}' model has no single vector"):
        adapter.encode([{"text": ["a"]}], task_metadata=tasks[1].metadata, hf_split="test", hf_subset="default")


@pytest.mark.slow
def test_splade_on_every_text_task_of_mtebs_mock_grid(tmp_path):
    pytest.importorskip("mteb")
    tasks = mock()
    assert len(tasks) >= 28
    results = evaluate({"splade": tiny_splade()}, tasks, out=tmp_path / "out", show_progress=False)
    assert {cell.dataset for cell in results.cells} == {task.metadata.name for task in tasks}
    assert all(np.isfinite(cell.metrics["main_score"]) for cell in results.cells)
    [meta] = (tmp_path / "out" / "mteb").rglob("model_meta.json")
    assert json.loads(meta.read_text())["model_type"] == ["sparse"]


def test_names_of_hybrids(tmp_path):
    model = load_model("hybrid:bm25+bm25:german+bm25")
    assert list(model.parts) == ["bm25", "bm25:german", "bm25-2"]
    assert model.fusion == Fusion()
    tuned = {
        "parts": ["bm25", {"name": "de", "model": "bm25:german"}],
        "fusion": {"method": "weighted", "weights": [3, 1]},
    }
    (tmp_path / "tuned.json").write_text(json.dumps(tuned))
    model = load_model(tmp_path / "tuned.json")
    assert (list(model.parts), model.fusion) == (["bm25", "de"], Fusion("weighted", (3, 1)))
    Hybrid(["bm25", "bm25:none"], fusion="weighted", weights=(0.4, 0.6)).add(["owl"]).save(tmp_path / "saved")
    saved = load_model(tmp_path / "saved")
    assert (list(saved.parts), saved.fusion.weights) == (["bm25", "bm25:none"], (0.4, 0.6))
    assert saved.fingerprint != HybridModel(saved.parts).fingerprint
    assert not is_hybrid("bm25")
    assert load_model("bm25").kind == "lexical"
    with pytest.raises(ModelError, match="names no part, or an empty one; write it as hybrid:cde-minilm"):
        load_model("hybrid:bm25+")
    with pytest.raises(ConfigError, match="language='klingon' is unknown"):
        load_model("hybrid:bm25+bm25:klingon")
    with pytest.raises(ConfigError, match="2 weights were given for 1 parts"):
        HybridModel({"a": BM25()}, Fusion(weights=(1, 2)))
    (tmp_path / "broken.json").write_text('{"fusion": {}}')
    with pytest.raises(StoreError, match=r"broken.json is no hybrid of this version"):
        load_model(tmp_path / "broken.json")


def test_the_command_takes_every_family(toy_folder, tmp_path, capsys):
    out = tmp_path / "out"
    names = ["bm25", "hybrid:bm25+bm25:none", f"both=hybrid:bm25+{tiny_model_directory()}"]
    arguments = ["eval", "--model", *names, "--data", str(toy_folder), "--context", "own", "--context-size", "4"]
    assert main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("bm25", "hybrid:bm25+bm25:none", "both"))
    assert main(["eval", "--out", str(out), "--compare", "bm25", "both"]) == 0
    assert "win/tie/loss" in capsys.readouterr().out
    assert main([*arguments, "--truncated", "bm25", "--depth", "5", "--ask", "owl number 3"]) == 0
    printed = capsys.readouterr().out
    assert "toy@5" in printed
    assert "toy: owl number 3" in printed
    assert main(["eval", "--model", "hybrid:", "--data", str(toy_folder)]) == 2
    assert "names no part" in capsys.readouterr().err
