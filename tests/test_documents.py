"""Documents as users hold them: every accepted form, and what is said of every other."""

import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cderetrieval.documents import document_rows
from cderetrieval.errors import InputError
from cderetrieval.queries import query_texts

ROWS = [{"id": "a", "title": "Owls", "text": "hunt at night"}, {"id": "b", "title": None, "text": " bees "}]


def texts(documents, key="id", on=None):
    return [(row[0], row[1]) for row in document_rows(documents, key, on)]


@pytest.mark.parametrize(
    "documents",
    [
        ROWS,
        tuple(ROWS),
        (row for row in ROWS),
        pd.DataFrame(ROWS),
        [{"_id": row["id"], "title": row["title"], "text": row["text"]} for row in ROWS],
        {row["id"]: {"title": row["title"], "text": row["text"]} for row in ROWS},
    ],
    ids=["list", "tuple", "generator", "frame", "BEIR rows", "beir's dictionary"],
)
def test_every_form(documents):
    assert texts(documents) == [("a", "Owls hunt at night"), ("b", "bees")]


def test_fields_keys_and_payload():
    row = {"pmid": 7, "abstract": "second", "name": "first", "year": np.int64(1999), "score": float("nan"), "x": pd.NA}
    (found,) = document_rows([row], "pmid", ["name", "abstract"])
    assert found[:2] == (7, "first second")
    assert found[2] == {**row, "year": 1999, "score": None, "x": None}
    assert type(found[2]["year"]) is int
    assert texts(pd.Series(["one", "two"])) == [(0, "one"), (1, "two")]
    assert list(document_rows(["one"], "id", None, 5)) == [(5, "one", {"id": 5, "text": "one"})]
    assert texts([{"id": "a", "text": "no title"}]) == [("a", "no title")]


def test_ids_of_every_json_type_are_told_apart():
    ids = ["1", 1, 1.5, True, -0.5, 10**30, "", "naïve 🦉"]
    frame = pd.DataFrame({"id": np.array([3, 4]), "text": ["a", "b"]})
    assert [i for i, _ in texts([{"id": i, "text": "t"} for i in ids])] == ids
    assert [type(i) for i, _ in texts(frame)] == [int, int]
    assert texts([{"id": 1, "text": "a"}, {"id": True, "text": "b"}, {"id": 1.0, "text": "c"}])[1][0] is True


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"text": "x"}, ["document 1", "no field 'id'", "text", "key="]),
        ({"id": "b", "body": "x"}, ["document 1", "no field 'text'", "id, body", "on="]),
        ({"id": "b", "text": ""}, ["document 1", "'b'", "empty text", "skip_empty"]),
        ({"id": "b", "text": " \n\t"}, ["document 1", "empty text"]),
        ({"id": "b", "text": None}, ["document 1", "empty text"]),
        ({"id": "b", "text": 7}, ["document 1", "'text' is int"]),
        ({"id": "b", "text": ["x"]}, ["document 1", "'text' is list"]),
        ({"id": "b", "title": 7, "text": "x"}, ["document 1", "'title' is int"]),
        ({"id": None, "text": "x"}, ["document 1", "'id' is None", "string"]),
        ({"id": [1], "text": "x"}, ["document 1", "'id' is [1]"]),
        ({"id": float("nan"), "text": "x"}, ["document 1", "'id' is None"]),
        ({"id": float("inf"), "text": "x"}, ["document 1", "'id' is inf"]),
        ({"id": "a", "text": "x"}, ["document 1", "id 'a'", "document 0"]),
        ("", ["document 1", "empty text"]),
        (7, ["document 1 is int", "dictionaries or strings"]),
        (None, ["document 1 is NoneType"]),
        (b"x", ["document 1 is bytes"]),
    ],
)
def test_a_bad_row_is_named(bad, named):
    with pytest.raises(InputError) as caught:
        texts([{"id": "a", "text": "fine"}, bad])
    assert all(part in str(caught.value) for part in named), str(caught.value)


@pytest.mark.parametrize(
    ("documents", "named"),
    [
        ("one string", "one string"),
        (b"bytes", "one string"),
        ({"id": "a", "text": "a document by itself"}, "[document]"),
        ({"id": "a", "text": "with a field of fields", "meta": {"text": "x"}}, "[document]"),
        (7, "is int"),
        (None, "is NoneType"),
        (SimpleNamespace(text="x"), "is SimpleNamespace"),
        ([], "empty collection"),
        ({}, "empty collection"),
        (pd.DataFrame(), "empty collection"),
    ],
)
def test_what_is_no_collection_of_documents_is_named(documents, named):
    with pytest.raises(InputError) as caught:
        texts(documents)
    assert named in str(caught.value)


def test_empty_texts_can_be_left_out(caplog):
    caplog.set_level(logging.WARNING, logger="cderetrieval")
    rows = document_rows([ROWS[0], {"id": "c", "text": ""}, ROWS[1]], "id", None, skip_empty=True)
    assert [row[0] for row in rows] == ["a", "b"]
    assert "1 documents with an empty text were left out" in caplog.text


def test_rows_are_read_one_by_one():
    rows = document_rows(({"id": i, "text": "x"} for i in iter(int, 1)), "id", None)  # endless, all with id 0
    assert next(rows)[0] == 0
    with pytest.raises(InputError, match="document 1 has id 0"):
        next(rows)


def test_queries():
    assert query_texts("one") == (None, ["one"])
    assert query_texts(("a", "b")) == (None, ["a", "b"])
    assert query_texts(np.array(["a", "b"])) == (None, ["a", "b"])
    assert query_texts({"q7": "a", 8: "b"}) == (["q7", 8], ["a", "b"])
    assert query_texts(np.zeros((2, 3))) == (None, None)
    for queries, named in [([""], "query 0 is empty"), (["a", " "], "query 1 is empty"), (["a", 7], "query 1 is int")]:
        with pytest.raises(InputError, match=named):
            query_texts(queries)
    with pytest.raises(InputError, match="queries is NoneType"):
        query_texts(None)
