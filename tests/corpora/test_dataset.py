import pytest

from cderetrieval.corpora.dataset import Dataset, make_dataset
from cderetrieval.errors import InputError

DOCUMENTS = [
    {"id": 1, "title": None, "text": "tides", "year": 1999},
    {"id": "d2", "title": "On moons", "text": "moons"},
]


def make(documents=DOCUMENTS, queries=None, qrels=None):
    return make_dataset("sea", documents, queries or {"q": "what moves"}, qrels or {"q": {"1": 2}})


def test_documents_become_plain_text_records():
    dataset = make()
    expected = [{"id": "1", "title": "", "text": "tides"}, {"id": "d2", "title": "On moons", "text": "moons"}]
    assert list(dataset.corpus) == expected
    assert list(dataset.corpus) == expected  # a second pass
    assert "2 documents, 1 queries" in repr(dataset)


def test_revision_is_a_digest_of_the_content():
    base = make().revision
    assert make().revision == base
    assert make(qrels={"q": {"1": 1}}).revision != base
    assert make(queries={"q": "what else moves"}).revision != base
    assert make(documents=DOCUMENTS[::-1]).revision != base
    assert make(documents=[{**DOCUMENTS[0], "text": "tide"}, DOCUMENTS[1]]).revision != base


def test_revision_does_not_depend_on_the_order_of_queries():
    queries, qrels = {"a": "x", "b": "y"}, {"a": {"1": 1, "d2": 0}, "b": {"d2": 1}}
    again = {"b": {"d2": 1}, "a": {"d2": 0, "1": 1}}
    assert make(queries=queries, qrels=qrels).revision == make(queries={"b": "y", "a": "x"}, qrels=again).revision


def test_repeated_document_id_is_named():
    with pytest.raises(InputError, match="'d2' occurs twice"):
        make(documents=[*DOCUMENTS, {"id": "d2", "text": ""}])


def test_judgement_of_an_unknown_document_is_named():
    with pytest.raises(InputError, match=r"'q' judges documents .* \['d9'\]"):
        make(qrels={"q": {"d9": 1}})


def test_queries_and_qrels_must_match():
    with pytest.raises(InputError, match=r"differ in \['q2'\]"):
        make(queries={"q": "a", "q2": "b"})


def test_a_generator_is_no_corpus():
    with pytest.raises(InputError, match="more than once"):
        Dataset("sea", (row for row in ()), {}, {}, "test", "0")
