from collections import namedtuple

import numpy as np
import pandas as pd
import pytest

from cderetrieval.errors import InputError
from cderetrieval.evaluation.metrics import as_qrels, as_run
from cderetrieval.types import Hits

QRELS = {"q1": {"d1": 1, "d2": -1}, "2": {"d1": 3}}
RUN = {"q1": {"d1": 0.5, "d3": 0.25}, "2": {"d1": 1.0}}
JUDGED = [("q1", "d1", 1), ("q1", "d2", -1), (2, "d1", 3)]
SCORED = [("q1", "d1", 0.5), ("q1", "d3", 0.25), (2, "d1", 1.0)]
Qrel = namedtuple("Qrel", "query_id doc_id relevance iteration")
ScoredDoc = namedtuple("ScoredDoc", "query_id doc_id score")


@pytest.mark.parametrize(
    "qrels",
    [
        {"q1": {"d1": 1, "d2": -1.0}, 2: {"d1": np.int64(3)}},
        JUDGED,
        iter(JUDGED),
        (Qrel(*row, "0") for row in JUDGED),
        pd.DataFrame(JUDGED, columns=["query_id", "doc_id", "relevance"]),
        pd.DataFrame(JUDGED, columns=["query-id", "corpus-id", "score"]),
    ],
    ids=["nested", "tuples", "iterator", "namedtuples", "frame", "beir-frame"],
)
def test_qrels_in_every_form(qrels):
    assert as_qrels(qrels) == QRELS


@pytest.mark.parametrize(
    "run",
    [
        {"q1": {"d1": np.float32(0.5), "d3": 0.25}, 2: {"d1": 1}},
        SCORED,
        (ScoredDoc(*row) for row in SCORED),
        pd.DataFrame(SCORED, columns=["query_id", "doc_id", "score"]),
        pd.DataFrame(SCORED, columns=["query_id", "id", "similarity"]).assign(rank=1),
    ],
    ids=["nested", "tuples", "namedtuples", "frame", "hits-frame"],
)
def test_run_in_every_form(run):
    assert as_run(run) == RUN


def test_hits_and_files(tmp_path):
    hits = Hits(
        [[{"id": "d1", "similarity": 0.5}, {"id": "d3", "similarity": 0.25}], [{"id": "d1", "similarity": 1.0}]],
        query_ids=["q1", 2],
    )
    hits.to_trec(tmp_path / "run.txt")
    (tmp_path / "qrels.txt").write_text("q1 0 d1 1\nq1 0 d2 -1\n2 0 d1 3\n")
    assert as_run(hits) == as_run(tmp_path / "run.txt") == as_run(str(tmp_path / "run.txt")) == RUN
    assert as_qrels(tmp_path / "qrels.txt") == QRELS


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ([("q", "d", 1.0), ("q", "d", 2.0)], "query 'q', document 'd' occurs twice"),
        ([("q", "d")], r"expected \(query, document, value\), found \('q', 'd'\)"),
        (7, "a int is none of"),
        ({"q": {"d": "high"}}, "query 'q', document 'd' is not a number: 'high'"),
        ({"q": {"d": None}}, "is not a number: None"),
        (pd.DataFrame({"query_id": ["q"], "score": [1.0]}), "no column named doc_id or .* among query_id, score"),
    ],
)
def test_bad_runs_are_named(run, message):
    with pytest.raises(InputError, match=message):
        as_run(run)


def test_bad_grades_and_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"query 'q', document 'd': grade 0\.5"):
        as_qrels({"q": {"d": 0.5}})
    (tmp_path / "run.txt").write_text("q Q0 d 1 0.5 tag\nq d 0.5\n")
    with pytest.raises(InputError, match=r"run\.txt, line 2: 3 columns; a TREC run has six"):
        as_run(tmp_path / "run.txt")
    with pytest.raises(InputError, match="does not exist"):
        as_run(tmp_path / "none.txt")


def test_numbers_of_a_frame_are_one_id(tmp_path):
    hits = Hits([[{"id": 17.0, "similarity": 0.5}, {"id": 1.5, "similarity": 0.25}]], query_ids=[7.0])
    assert hits.to_run() == {"7": {"17": 0.5, "1.5": 0.25}}
    hits.to_trec(tmp_path / "run.txt")
    assert as_run(hits) == as_run(tmp_path / "run.txt") == as_run({7: {17: 0.5, 1.5: 0.25}})
    assert as_qrels(pd.DataFrame({"qid": [7.0], "docid": [17.0], "rel": [1.0]})) == {"7": {"17": 1}}
