import json
import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.corpora import read_spans
from cderetrieval.errors import InputError
from cderetrieval.evaluation import passage_metrics, precision_omega
from cderetrieval.evaluation.stats import paired_tests

TEXTS = {"a": "x" * 20, "b": "x" * 7, "c": "x" * 30}
KS = (1, 2, 3, 5)


@st.composite
def ranges(draw, **size):
    def one(document):
        n = len(TEXTS[document])
        return st.integers(0, n - 1).flatmap(lambda i: st.tuples(st.just(document), st.just(i), st.integers(i + 1, n)))

    return draw(st.lists(st.sampled_from(sorted(TEXTS)).flatmap(one), **size))


SPANS = st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), ranges(min_size=1, max_size=4), min_size=1)
RUNS = st.dictionaries(st.sampled_from(["q1", "q2", "q4"]), ranges(max_size=7))


def characters(listed):
    return {(document, i) for document, start, end in listed for i in range(start, end)}


def by_brute_force(passages, gold, k):
    """All metrics of one query, character by character."""
    passages, wanted = passages[:k], characters(gold)
    reached, places = 0, []
    left = list(gold)
    for rank, passage in enumerate(passages, 1):
        for span in [span for span in left if characters([span]) & characters([passage])]:
            left.remove(span)
            places.append(max([rank, *(place + 1 for place in places)]))
            reached += 1
    gain = sum(1 / math.log2(place + 1) for place in places if place <= k)
    found = characters(passages) & wanted
    length = sum(end - start for _, start, end in passages)
    return {
        "ndcg": gain / sum(1 / math.log2(place + 1) for place in range(1, min(k, len(gold)) + 1)),
        "recall": reached / len(gold),
        "hit": float(reached > 0),
        "char_recall": len(found) / len(wanted),
        "char_precision": len(found) / length if length else 0.0,
        "char_iou": len(found) / (length + len(wanted - found)),
    }


@settings(max_examples=300, deadline=None)
@given(RUNS, SPANS)
def test_equals_brute_force(run, spans):
    scores = passage_metrics(run, spans, TEXTS, KS)
    assert scores.query_ids == tuple(spans)
    assert scores.missing == tuple(query for query in spans if not run.get(query))
    for row, query in enumerate(spans):
        for k in KS:
            expected = by_brute_force(run.get(query, []), spans[query], k)
            assert {name: scores[f"{name}@{k}"][row] for name in expected} == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(RUNS, SPANS)
def test_bounds_and_order(run, spans):
    scores = passage_metrics(run, spans, TEXTS, KS)
    assert all(((values >= 0) & (values <= 1 + 1e-12)).all() for values in scores.values.values())
    for name in ("recall", "hit", "char_recall"):
        columns = np.stack([scores[f"{name}@{k}"] for k in KS])
        assert (np.diff(columns, axis=0) >= 0).all()
    for k in KS:
        assert (
            scores[f"char_iou@{k}"] <= np.minimum(scores[f"char_recall@{k}"], scores[f"char_precision@{k}"]) + 1e-12
        ).all()
        assert ((scores[f"recall@{k}"] > 0) == (scores[f"hit@{k}"] == 1)).all()


@settings(max_examples=200, deadline=None)
@given(ranges(), SPANS)
def test_precision_omega_equals_brute_force(passages, spans):
    expected = []
    for gold in spans.values():
        wanted = characters(gold)
        near = characters(passage for passage in passages if characters([passage]) & wanted)
        expected.append(len(near & wanted) / len(near | wanted))
    assert precision_omega(passages, spans, TEXTS)["precision_omega"] == pytest.approx(expected)


@given(SPANS)
def test_a_perfect_ranking(spans):
    disjoint = {
        query: [(name, 0, len(TEXTS[name])) for name in sorted({d for d, _, _ in gold})]
        for query, gold in spans.items()
    }
    scores = passage_metrics(disjoint, disjoint, TEXTS, [10])
    assert all((values == pytest.approx(1.0)) for values in scores.values.values())


def test_by_hand():
    # spans: characters 0-10 and 12-16 of a; ranking: b, a 8-14, a 0-4, a 13-20
    gold, passages = [("a", 0, 10), ("a", 12, 16)], [("b", 0, 7), ("a", 8, 14), ("a", 0, 4), ("a", 13, 20)]
    scores = passage_metrics({"q": passages}, {"q": gold}, TEXTS, [1, 2, 4])
    ideal = 1 + 1 / math.log2(3)
    expected = {
        "ndcg@1": 0,
        "ndcg@2": (1 / math.log2(3)) / ideal,  # both spans at rank 2: one of them counts at rank 3
        "ndcg@4": (1 / math.log2(3) + 1 / math.log2(4)) / ideal,
        "recall@1": 0,
        "recall@2": 1,
        "hit@2": 1,
        "char_recall@2": (2 + 2) / 14,
        "char_precision@2": 4 / 13,
        "char_iou@2": 4 / (13 + 10),
        "char_recall@4": (2 + 2 + 4 + 2) / 14,  # characters 13-14 are in two passages
        "char_precision@4": 10 / 24,
        "char_iou@4": 10 / (24 + 4),
    }
    assert {name: scores[name][0] for name in expected} == pytest.approx(expected)


def test_one_passage_with_all_spans_and_many_passages_in_one_span():
    gold = {"q": [("c", 0, 5), ("c", 20, 25)]}
    assert passage_metrics({"q": [("c", 0, 30)]}, gold, TEXTS, [1, 10]).mean()["ndcg@10"] == 1
    repeated = {"q": [("c", 0, 2), ("c", 1, 3), ("c", 2, 5)]}
    scores = passage_metrics(repeated, gold, TEXTS, [3])
    assert scores["ndcg@3"][0] == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert scores["recall@3"].tolist() == [0.5]


def test_touching_is_no_overlap():
    gold = {"q": [("a", 5, 10)]}
    assert passage_metrics({"q": [("a", 0, 5), ("a", 10, 20)]}, gold, TEXTS).mean()["hit@10"] == 0
    assert precision_omega([("a", 0, 5), ("a", 5, 10), ("a", 10, 20)], gold, TEXTS).mean() == {"precision_omega": 1.0}


def test_precision_omega_by_hand():
    gold = {"q1": [("a", 5, 10), ("b", 0, 2)], "q2": [("c", 0, 30)], "q3": [("a", 19, 20)]}
    passages = [("a", 0, 8), ("a", 4, 12), ("a", 12, 20), ("b", 0, 7)]
    found = precision_omega(passages, gold, TEXTS)
    assert found.query_ids == ("q1", "q2", "q3")
    assert found["precision_omega"] == pytest.approx([(5 + 2) / (12 + 7), 0, 1 / 8])


def test_ids_are_compared_as_text():
    scores = passage_metrics({1: [(7, np.int64(0), np.int32(2))]}, {"1": [("7", 0, 2)]}, {7.0: "owls"})
    assert scores.mean()["hit@1"] == 1


def test_queries_without_passages_or_spans():
    spans = {"none": [("a", 0, 1)], "absent": [("a", 0, 1)], "unjudged": [], "found": [("a", 0, 1)]}
    scores = passage_metrics({"none": [], "found": [("a", 0, 1)], "other": [("a", 0, 1)]}, spans, TEXTS, [1])
    assert scores.query_ids == ("none", "absent", "found")
    assert scores["char_iou@1"].tolist() == [0, 0, 1]
    assert scores.missing == ("none", "absent")
    assert list(scores.to_frame().columns) == [
        f"{name}@1" for name in ("ndcg", "recall", "hit", "char_recall", "char_precision", "char_iou")
    ]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"q": [("a", 0, 5), ("a", 0, 21)]}, "query 'q', passage 2: start 0 and end 21 are no span of document 'a'"),
        ({"q": [("a", 3, 3)]}, "query 'q', passage 1: start 3 and end 3 are no span"),
        ({"q": [("a", 0.0, 3)]}, "query 'q', passage 1: start and end must be whole numbers, found 0.0 and 3"),
        ({"q": [("z", 0, 3)]}, "query 'q', passage 1: document 'z' has no text"),
        ({"q": [("a", 0)]}, r"query 'q', passage 1: expected \(document id, start, end\), found \('a', 0\)"),
        ({"q": [7]}, r"query 'q', passage 1: expected \(document id, start, end\), found 7"),
        ({"q": 7}, "run: of 'q' there is 7, a int"),
        ([("q", "a", 0, 5)], "run: expected a dictionary by id"),
        ({1: [], "1": []}, "run: ids 1 and '1' are one as text"),
    ],
)
def test_a_bad_run_is_named(run, message):
    with pytest.raises(InputError, match=message):
        passage_metrics(run, {"q": [("a", 0, 5)]}, TEXTS)


def test_other_bad_arguments():
    for k_values in ([], [0, 5]):
        with pytest.raises(InputError, match="at least 1"):
            passage_metrics({}, {"q": [("a", 0, 5)]}, TEXTS, k_values)
    for spans in ({}, {"q": []}):
        with pytest.raises(InputError, match="spans hold no span"):
            passage_metrics({}, spans, TEXTS)
    with pytest.raises(InputError, match="query 'q', span 1: start 0 and end 8 are no span of document 'b'"):
        precision_omega([], {"q": [("b", 0, 8)]}, TEXTS)
    with pytest.raises(InputError, match="passage 1: document 'z' has no text"):
        precision_omega([("z", 0, 8)], {"q": [("b", 0, 7)]}, TEXTS)


def test_two_runs_are_compared_in_pairs():
    spans = {f"q{i}": [("c", i, i + 1)] for i in range(30)}
    runs = [{query: [("c", 0, end)] for query in spans} for end in (10, 20)]
    a, b = (passage_metrics(run, spans, TEXTS)["recall@5"] for run in runs)
    found = paired_tests(a, b)
    assert (found.difference, found.wins, found.losses) == (pytest.approx(1 / 3), 10, 0)
    assert found.low > 0


def test_ten_thousand_queries_in_seconds():
    generator = random.Random(0)
    texts = {f"d{i}": "x" * 100_000 for i in range(500)}
    cut = [(name, start, start + 1_000) for name in texts for start in range(0, 100_000, 1_000)]
    spans = {
        f"q{i}": [(name, start, start + 300) for name, start, _ in generator.sample(cut, 2)] for i in range(10_000)
    }
    run = {query: generator.sample(cut, 20) for query in spans}
    began = time.perf_counter()
    passage_metrics(run, spans, texts)
    precision_omega(cut, spans, texts)
    assert time.perf_counter() - began < 20  # a second or two on one core


def test_recall_is_pass_at_k_of_the_cookbook(shared_data):
    folder = shared_data / "docs" / "eval" / "anthropic-codebases"
    if not folder.is_dir():
        pytest.skip("no folder of spans here")
    lines = (folder / "chunks.jsonl").read_text(encoding="utf-8").splitlines()
    chunks = {row["_id"]: (row["document"], row["start"], row["end"]) for row in map(json.loads, lines)}
    golden = {}
    for line in (folder / "qrels" / "chunks.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, chunk, _ = line.split("\t")
        golden.setdefault(query, set()).add(chunk)
    dataset = read_spans(folder)
    generator = random.Random(0)
    ranked = {query: generator.sample(sorted(chunks), 300) for query in golden}
    for query in list(golden)[::2]:  # some find what they should
        ranked[query][3:3] = golden[query]
    run = {query: [chunks[chunk] for chunk in listed] for query, listed in ranked.items()}
    scores = passage_metrics(run, dataset.spans, dataset.texts, [5, 10, 20])
    for k in (5, 10, 20):
        shares = [len(golden[query] & set(ranked[query][:k])) / len(golden[query]) for query in scores.query_ids]
        assert scores[f"recall@{k}"] == pytest.approx(shares)
