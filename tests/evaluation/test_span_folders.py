"""Folders of whole documents with gold spans, evaluated by documents and by passages."""

import json
import random

import numpy as np
import pytest

from cderetrieval import Results, Retriever, evaluate, load
from cderetrieval.cli import main
from cderetrieval.errors import InputError
from cderetrieval.evaluation import passage_metrics
from cderetrieval.evaluation.tasks import subjects_of
from cderetrieval.retrieval.names import HybridModel
from cderetrieval.testing import HashEncoder, tiny_dense_directory

QUIET = {"show_progress": False}
ANIMALS = ["owl", "bee", "fox", "cat", "dog", "elk", "ant", "cod"]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    folder, draw = tmp_path / "scifact", random.Random(0)  # the name of a task, which it is not
    folder.mkdir()
    texts = []
    for i in range(12):
        pairs = [(draw.choice(ANIMALS), draw.choice(ANIMALS), j) for j in range(1 + 9 * (i % 3))]
        texts.append(" \n" * (i % 2) + " ".join(f"The {one} saw {other} {j}." for one, other, j in pairs))
    documents = [{"_id": str(i), "title": f"Tale {i}", "text": text} for i, text in enumerate(texts)]
    lines(folder / "documents.jsonl", documents)
    lines(folder / "queries.jsonl", [{"_id": f"q{i}", "text": texts[i][-30:]} for i in range(12)])
    ends = [(i, len(texts[i])) for i in (5, 2, 8, 11, 4)]
    spans = [{"query": f"q{i}", "document": str(i), "start": end - 12, "end": end} for i, end in ends]
    lines(folder / "spans.jsonl", spans)
    return folder


@pytest.fixture(scope="module")
def dense():
    return load(tiny_dense_directory())


def test_documents_and_passages_are_scored(folder, dense, tmp_path):
    [subject] = subjects_of(folder)
    assert list(subject.dataset.queries) == ["q5", "q2", "q8", "q11", "q4"]
    out = tmp_path / "out"
    results = evaluate({"m": dense}, folder, passages=[None, 20], out=out, **QUIET)
    whole, cut = results.cells
    texts = {row["id"]: row["text"] for row in subject.dataset.corpus}
    with Retriever(dense, passages=20) as retriever:
        retriever.add(subject.dataset.corpus, show_progress=False)
        found = retriever(subject.dataset.queries, k=20, passages=True, by="passage")
    run = {
        query: [(hit["id"], hit["passage"]["start"], hit["passage"]["end"]) for hit in hits]
        for query, hits in zip(subject.dataset.queries, found, strict=True)
    }
    expected = passage_metrics(run, subject.spans, texts)
    rows = [expected.query_ids.index(query) for query in cut.scores.query_ids]
    for metric, values in expected.values.items():
        np.testing.assert_allclose(cut.scores[f"span_{metric}"], values[rows], atol=1e-6)
    # A document in one piece is its own passage.
    assert whole.metrics["span_hit@10"] == whole.metrics["recall@10"]
    assert cut.metrics["span_char_iou@5"] > whole.metrics["span_char_iou@5"]
    comparison = Results.load(out).compare("m/none", "m/none+passages-20+document", "span_ndcg@10")
    assert comparison.rows[0]["n_queries"] == 5
    assert evaluate({"m": dense}, folder, passages=20, out=out, **QUIET).cells[0].seconds == cut.seconds


def test_other_spans_are_other_data(folder):
    before = subjects_of(folder)[0].dataset.revision
    path = folder / "spans.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines(path, reversed(rows))
    assert subjects_of(folder)[0].dataset.revision == before
    rows[0]["start"] -= 1
    lines(path, rows)
    assert subjects_of(folder)[0].dataset.revision != before


def test_titles_are_given_or_hidden(folder, dense, capsys):
    seen = evaluate({"m": dense}, folder, passages=20, **QUIET).cells[0]
    hidden = evaluate({"m": dense}, folder, passages=20, titles=False, **QUIET).cells[0]
    assert (seen.dataset, hidden.dataset) == ("scifact", "scifact-untitled")
    assert seen.revision != hidden.revision
    assert seen.metrics != hidden.metrics
    path = folder / "documents.jsonl"
    lines(path, [{**json.loads(line), "title": ""} for line in path.read_text().splitlines()])
    assert evaluate({"m": dense}, folder, passages=20, **QUIET).cells[0].metrics == hidden.metrics
    arguments = ["eval", "--model", tiny_dense_directory(), "--data", str(folder), "--passages", "auto", "--no-title"]
    assert main(arguments) == 0
    assert "scifact-untitled (all)" in capsys.readouterr().out


def test_hybrids_and_words(folder, dense):
    models = {"bm25": load("bm25"), "hybrid": HybridModel({"a": dense, "b": HashEncoder()})}
    for cell in evaluate(models, folder, passages=20, **QUIET).cells:
        assert 0 <= cell.metrics["span_ndcg@10"] <= 1


def test_candidates_are_no_passages(folder, dense):
    with pytest.raises(InputError, match="leave out the first stage"):
        evaluate({"m": dense}, folder, first_stage=HashEncoder(), **QUIET)


def test_titles_of_tasks_stay():
    mteb = pytest.importorskip("mteb")
    with pytest.raises(InputError, match="leave out titles=False"):
        evaluate({"m": HashEncoder()}, mteb.get_task("SciFact"), titles=False, **QUIET)
