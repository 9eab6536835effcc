"""mteb's evaluator, beir's and ours: the same numbers for the same vectors."""

import numpy as np
import pytest

from cderetrieval.corpora.beir_folder import read_beir, write_beir
from cderetrieval.evaluation import evaluate
from cderetrieval.evaluation.beir_model import BeirModel
from cderetrieval.evaluation.runner import evaluate_retrieval
from cderetrieval.testing import tiny_model

METRICS = {"ndcg@10": ("NDCG@10", "ndcg_at_10"), "map@100": ("MAP@100", "map_at_100")}
METRICS["recall@100"] = ("Recall@100", "recall_at_100")


def by_beir(model, folder, **options):
    pytest.importorskip("beir")
    from beir.datasets.data_loader import GenericDataLoader
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    corpus, queries, qrels = GenericDataLoader(str(folder)).load(split="test")
    retriever = EvaluateRetrieval(
        DenseRetrievalExactSearch(BeirModel(model, corpus, **options), batch_size=64), score_function="dot"
    )
    ndcg, average, recall, _ = retriever.evaluate(qrels, retriever.retrieve(corpus, queries), [10, 100])
    return {**ndcg, **average, **recall}


def check(model, folder, tmp_path, **options):
    """As mteb's SciFact, as a dataset of one's own, and by beir."""
    import json

    pytest.importorskip("mteb")
    ours = evaluate({"m": model}, f"own={folder}", **options).cells[0]
    [theirs] = evaluate({"m": model}, f"SciFact={folder}", out=tmp_path / "out", **options).cells
    assert theirs.dataset == "SciFact"
    [path] = (tmp_path / "out" / "mteb").rglob("SciFact.json")
    native = json.loads(path.read_text())
    assert native["dataset_revision"] == read_beir(folder).revision
    beir = by_beir(model, folder, **options)
    for metric, (beir_name, mteb_name) in METRICS.items():
        value = ours.metrics[metric]
        assert native["scores"]["test"][0][mteb_name] == pytest.approx(value, abs=1e-5), metric
        assert beir[beir_name] == pytest.approx(value, abs=1e-5), metric
        assert theirs.metrics[metric] == pytest.approx(value, abs=1e-9), metric
    assert 0 < ours.metrics["ndcg@10"] < 1
    np.testing.assert_array_equal(ours.scores["ndcg@10"], theirs.scores["ndcg@10"])


def test_on_synthetic_data(words, make_toy, tmp_path):
    check(words, write_beir(make_toy(n_documents=300, n_queries=80), tmp_path / "toy"), tmp_path)


def test_contextual_on_synthetic_data(toy_folder, tmp_path):
    check(tiny_model(), toy_folder, tmp_path, context_size=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scifact", "cranfield", "feedbackqa"])
def test_on_real_data(words, shared_data, tmp_path, name):
    folder = shared_data / "eval" / name
    if name == "cranfield":  # beir's loader gives documents without title as they are, and its search needs text
        folder = write_beir(read_beir(folder), tmp_path / name)
    check(words, folder, tmp_path)


NAMES = ("med", "cisi", "cranfield", "feedbackqa", "nfcorpus-preprocessed", "scifact", "squad-dev")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_real_folder_scores_as_pytrec_eval(words, shared_data, name):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    dataset = read_beir(shared_data / "eval" / name)
    found = evaluate_retrieval(words, dataset, show_progress=False)
    measures = {"ndcg_cut.10": "ndcg@10", "map_cut.100": "map@100", "recall.100": "recall@100", "P.10": "p@10"}
    measures["recip_rank"] = "mrr@100"
    expected = pytrec_eval.RelevanceEvaluator(dataset.qrels, set(measures)).evaluate(found.run)
    for theirs, ours in measures.items():
        column = theirs.replace(".", "_")
        values = [expected.get(query, {}).get(column, 0.0) for query in found.scores.query_ids]
        np.testing.assert_allclose(found.scores[ours], values, atol=1e-5, err_msg=ours)
