import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.errors import InputError
from cderetrieval.evaluation.metrics import evaluate_run

KS = (1, 3, 5, 10)
IDS = [f"d{i}" for i in range(12)] + ["é", "z", "D1", "日"]
# -2 and less write outside of trec_eval's arrays: pytrec_eval 0.5.11 ends with a segmentation fault after a few hundred
GRADES = st.dictionaries(st.sampled_from(IDS), st.integers(-1, 4), min_size=1)
# few distinct scores, so that ties are common; 1 + 1e-8 equals 1 in float32
SCORES = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1.0 + 1e-8, -1.0, 1e300, -1e300]), st.floats(-10, 10))
QRELS = st.dictionaries(st.sampled_from(["q1", "q2", "q3", "q4"]), GRADES, min_size=1)
RUNS = st.dictionaries(st.sampled_from(["q1", "q2", "q3", "q5"]), st.dictionaries(st.sampled_from(IDS), SCORES))


def trec_eval(qrels, run):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    cuts = ",".join(map(str, KS))
    measures = {f"ndcg_cut.{cuts}", f"map_cut.{cuts}", f"recall.{cuts}", f"P.{cuts}", "recip_rank"}
    return pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(
        {query: hits for query, hits in run.items() if hits}
    )


@settings(max_examples=300, deadline=None)
@given(QRELS, RUNS)
def test_equals_trec_eval(qrels, run):
    expected = trec_eval(qrels, run)
    scores = evaluate_run(qrels, run, k_values=KS)
    for i, query in enumerate(scores.query_ids):
        reference = expected.get(query, {})
        for k in KS:
            for ours, theirs in (("ndcg", "ndcg_cut"), ("map", "map_cut"), ("recall", "recall"), ("p", "P")):
                assert scores[f"{ours}@{k}"][i] == pytest.approx(reference.get(f"{theirs}_{k}", 0.0), abs=1e-5)
        assert evaluate_run(qrels, run, k_values=[100])["mrr@100"][i] == pytest.approx(
            reference.get("recip_rank", 0.0), abs=1e-5
        )


def test_equals_trec_eval_on_a_long_run():
    rng = np.random.default_rng(0)
    qrels = {f"q{i}": {f"d{j}": int(rng.integers(-1, 4)) for j in rng.integers(0, 3000, 40)} for i in range(20)}
    run = {f"q{i}": {f"d{j}": round(float(rng.normal()), 2) for j in rng.integers(0, 3000, 1500)} for i in range(20)}
    expected = trec_eval(qrels, run)
    scores = evaluate_run(qrels, run, k_values=KS)
    for name, theirs in (
        ("ndcg@10", "ndcg_cut_10"),
        ("map@10", "map_cut_10"),
        ("recall@5", "recall_5"),
        ("p@3", "P_3"),
    ):
        assert scores[name] == pytest.approx([expected[query][theirs] for query in scores.query_ids], abs=1e-5)


def test_by_hand():
    # ranking: d3 (0.9), d1 (0.8), d2 (0.7); grades d1 = 3, d2 = 1, and d4 = 2 is not found
    scores = evaluate_run({"q": {"d1": 3, "d2": 1, "d4": 2}}, {"q": {"d1": 0.8, "d2": 0.7, "d3": 0.9}}, k_values=[1, 3])
    dcg = 3 / math.log2(3) + 1 / math.log2(4)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    expected = {"ndcg@3": dcg / ideal, "map@3": (1 / 2 + 2 / 3) / 3, "recall@3": 2 / 3, "mrr@3": 1 / 2, "p@3": 2 / 3}
    assert {name: scores[name][0] for name in expected} == pytest.approx(expected)
    assert [scores[f"{name}@1"][0] for name in ("ndcg", "map", "recall", "mrr", "p")] == [0, 0, 0, 0, 0]


def test_ties_go_to_the_greater_id():
    run = {"q": {"a": 1.0, "b": 1.0 + 1e-9, "c": 1.0}}
    assert [evaluate_run({"q": {document: 1}}, run)["mrr@10"][0] for document in "cba"] == [
        1,
        1 / 2,
        pytest.approx(1 / 3),
    ]


def test_precision_divides_by_k_even_where_the_run_is_shorter():
    assert evaluate_run({"q": {"a": 1}}, {"q": {"a": 1.0}})["p@10"][0] == pytest.approx(0.1)


def test_queries_without_hits_or_relevant_documents_count_zero():
    qrels = {"found": {"a": 1}, "absent": {"a": 1}, "empty": {"a": 1}, "irrelevant": {"a": 0, "b": -1}}
    run = {"found": {"a": 1.0}, "empty": {}, "irrelevant": {"a": 1.0}, "unjudged": {"a": 1.0}}
    scores = evaluate_run(qrels, run)
    assert scores.query_ids == ("found", "absent", "empty", "irrelevant")
    assert scores["ndcg@10"].tolist() == [1, 0, 0, 0]
    assert scores.mean()["ndcg@10"] == 0.25
    assert scores.missing == ("absent", "empty")


def test_very_negative_grades_have_no_gain():
    run = {"q": {"a": 2.0, "b": 1.0}}
    expected = evaluate_run({"q": {"a": 0, "b": 2}}, run).mean()
    assert evaluate_run({"q": {"a": -7, "b": 2}}, run).mean() == expected


def test_identical_ids_can_be_left_out():
    qrels, run = {"x": {"a": 1}}, {"x": {"x": 2.0, "a": 1.0}}
    assert evaluate_run(qrels, run)["mrr@10"].tolist() == [0.5]
    assert evaluate_run(qrels, run, ignore_identical_ids=True)["mrr@10"].tolist() == [1.0]


def test_frame_and_names():
    scores = evaluate_run({"q1": {"a": 1}, "q2": {"a": 1}}, {"q1": {"a": 1.0}}, k_values=[10, 1, 10])
    frame = scores.to_frame()
    assert list(frame.columns) == [f"{m}@{k}" for m in ("ndcg", "map", "recall", "mrr", "p") for k in (1, 10)]
    assert frame.loc["q1", "ndcg@10"] == 1
    assert frame.index.name == "query_id"
    assert scores["nDCG@10"] is scores["ndcg@10"]
    with pytest.raises(InputError, match="No metric 'ndcg@7'; there are ndcg@1, ndcg@10"):
        scores["ndcg@7"]


def test_bad_arguments():
    with pytest.raises(InputError, match="no judgements"):
        evaluate_run({}, {})
    for k_values in ([0, 10], []):
        with pytest.raises(InputError, match="at least 1"):
            evaluate_run({"q": {"a": 1}}, {}, k_values=k_values)
    with pytest.raises(InputError, match="query 'q', document 'a' is not a number: nan"):
        evaluate_run({"q": {"a": 1}}, {"q": {"a": math.nan}})
