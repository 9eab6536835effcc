import gzip
import json
import logging
import tracemalloc

import pytest

from cderetrieval.corpora.beir_folder import read_beir, splits, write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.errors import InputError

CORPUS = [
    {"_id": "d1", "title": "Tides", "text": "The sea\u2028rises."},
    {"_id": "d2", "title": None, "text": "The moon."},
    {"_id": 3, "text": "Nothing."},
]
QUERIES = [{"_id": "q1", "text": "what rises"}, {"_id": 2, "text": "what shines"}, {"_id": "q3", "text": "unjudged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t3\t-1\n2\td2\t1\n"


def lines(rows):
    return "".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def folder(path, corpus=CORPUS, queries=QUERIES, **qrels):
    (path / "qrels").mkdir()
    (path / "corpus.jsonl").write_text(lines(corpus), encoding="utf-8")
    (path / "queries.jsonl").write_text(lines(queries), encoding="utf-8")
    for split, text in (qrels or {"test": QRELS}).items():
        (path / "qrels" / f"{split}.tsv").write_text(text)
    return path


def test_reads_documents_judged_queries_and_grades(tmp_path):
    dataset = read_beir(folder(tmp_path))
    assert list(dataset.corpus) == [
        {"id": "d1", "title": "Tides", "text": "The sea\u2028rises."},
        {"id": "d2", "title": "", "text": "The moon."},
        {"id": "3", "title": "", "text": "Nothing."},
    ]
    assert len(dataset.corpus) == 3
    assert dataset.queries == {"q1": "what rises", "2": "what shines"}
    assert dataset.qrels == {"q1": {"d1": 2, "3": -1}, "2": {"d2": 1}}
    assert (dataset.name, dataset.split) == (tmp_path.name, "test")


def test_written_folder_reads_the_same(tmp_path):
    (tmp_path / "a").mkdir()
    dataset = read_beir(folder(tmp_path / "a"))
    again = read_beir(write_beir(dataset, tmp_path / "b"))
    assert list(again.corpus) == list(dataset.corpus)
    assert (again.queries, again.qrels, again.revision) == (dataset.queries, dataset.qrels, dataset.revision)
    memory = make_dataset("a", dataset.corpus, dataset.queries, dataset.qrels)
    assert memory.revision == dataset.revision
    assert not list((tmp_path / "b").rglob("*.tmp"))


def test_revision_follows_the_files(tmp_path):
    before = read_beir(folder(tmp_path)).revision
    assert read_beir(tmp_path).revision == before
    (tmp_path / "corpus.jsonl").write_text(lines([*CORPUS, {"_id": "d9", "text": "more"}]), encoding="utf-8")
    changed = read_beir(tmp_path)
    assert changed.revision != before
    assert len(changed.corpus) == 4


def test_compressed_corpus_and_blank_lines(tmp_path):
    folder(tmp_path)
    text = "\n" + (tmp_path / "corpus.jsonl").read_text(encoding="utf-8") + "\n \n"
    (tmp_path / "corpus.jsonl").unlink()
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    assert len(list(read_beir(tmp_path).corpus)) == 3


def test_splits(tmp_path):
    folder(tmp_path, test=QRELS, dev="q3\td1\t1\n")
    assert splits(tmp_path) == ["dev", "test"]
    assert read_beir(tmp_path, "dev").queries == {"q3": "unjudged"}
    with pytest.raises(InputError, match=r"no split 'train'; it has dev, test"):
        read_beir(tmp_path, "train")


def test_folder_without_judgements(tmp_path):
    folder(tmp_path)
    (tmp_path / "qrels" / "test.tsv").unlink()
    with pytest.raises(InputError, match=r"no judgements; put them into qrels/<split>\.tsv"):
        read_beir(tmp_path)


def test_folder_without_corpus(tmp_path):
    folder(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()
    with pytest.raises(InputError, match=r"has no corpus\.jsonl"):
        read_beir(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{not json\n", "line 4: not JSON"),
        ('["a list"]\n', "line 4: expected an object"),
        ({"text": "no id"}, "line 4: the row has no usable _id: None"),
        ({"_id": " ", "text": "blank id"}, "line 4: the row has no usable _id"),
        ({"_id": "d4"}, "line 4: the row has no field 'text'; it has _id"),
        ({"_id": "d4", "text": 7}, "line 4: 'text' must be text, found int"),
        ({"_id": "d4", "text": "", "title": ["a"]}, "line 4: 'title' must be text, found list"),
        ({"_id": "d2", "text": "again"}, "line 4: id 'd2' is also in line 2"),
        ({"_id": "3", "text": "a number before"}, "line 4: id '3' is also in line 3"),
    ],
)
def test_bad_document_is_named(tmp_path, row, message):
    folder(tmp_path, corpus=[*CORPUS, row])
    with pytest.raises(InputError, match=f"corpus.jsonl, {message}"):
        read_beir(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [({"_id": "q1", "text": "again"}, "line 4: id 'q1' is also in line 1"), ({"_id": "q4"}, "line 4: .*'text'")],
)
def test_bad_query_is_named(tmp_path, row, message):
    folder(tmp_path, queries=[*QUERIES, row])
    with pytest.raises(InputError, match=f"queries.jsonl, {message}"):
        read_beir(tmp_path)


def test_judged_query_without_text(tmp_path):
    folder(tmp_path, queries=[{"_id": "q1", "text": " "}, *QUERIES[1:]])
    with pytest.raises(InputError, match="line 1: query 'q1' is judged and has no text"):
        read_beir(tmp_path)


def test_empty_documents_are_kept_and_counted(tmp_path, caplog):
    folder(tmp_path, corpus=[*CORPUS, {"_id": "d4", "text": None, "title": ""}])
    with caplog.at_level(logging.WARNING):
        assert len(list(read_beir(tmp_path).corpus)) == 4
    assert "1 documents have no text and are kept, the first in line 4" in caplog.text


def test_unknown_ids_are_an_error_with_counts(tmp_path):
    folder(tmp_path, test=QRELS + "q8\td1\t1\nq1\td6\t1\nq1\td7\t1\nq1\td8\t1\nq1\td9\t1\n")
    with pytest.raises(InputError) as error:
        read_beir(tmp_path)
    assert "1 unknown queries ('q8') and 4 unknown documents ('d6', 'd7', 'd8', ...)" in str(error.value)


def test_unknown_ids_can_be_skipped(tmp_path, caplog):
    folder(tmp_path, test=QRELS + "q8\td1\t1\nq1\td6\t1\nq3\td7\t1\n")
    with caplog.at_level(logging.WARNING):
        dataset = read_beir(tmp_path, missing="skip")
    assert dataset.qrels == {"q1": {"d1": 2, "3": -1}, "2": {"d2": 1}}
    assert list(dataset.queries) == ["q1", "2"]
    assert "2 of 4 queries remain" in caplog.text
    with pytest.raises(InputError, match="'ignore' is unknown"):
        read_beir(tmp_path, missing="ignore")


def test_nothing_judged(tmp_path):
    folder(tmp_path, test="q8\td1\t1\n")
    with pytest.raises(InputError, match="judges no query"):
        read_beir(tmp_path, missing="skip")


def test_a_corpus_streams_in_flat_memory(tmp_path):
    n_documents, text = 10_000, "word " * 200
    folder(tmp_path, corpus=[{"_id": f"d{i}", "text": f"{i} {text}"} for i in range(n_documents)], test="q1\td7\t1\n")
    tracemalloc.start()
    dataset = read_beir(tmp_path)
    assert sum(1 for _ in dataset.corpus) == n_documents
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_500_000  # the file has 10 MB
