"""One door for what comes in: documents, queries and judgements are read, or refused, alike by every call."""

import datetime
import decimal
import uuid

import numpy as np
import pandas as pd
import pytest

from cderetrieval import Hybrid, Retriever
from cderetrieval.corpora.dataset import Dataset, make_dataset
from cderetrieval.corpora.known_item import known_item
from cderetrieval.documents import document_rows
from cderetrieval.errors import InputError
from cderetrieval.evaluation import context_gain, evaluate, evaluate_run
from cderetrieval.filters import parse_filter
from cderetrieval.judgements import as_qrels, parse_grade
from cderetrieval.queries import named_queries, query_texts
from cderetrieval.testing import HashEncoder, tiny_model
from cderetrieval.values import plain, scalar

DOCUMENTS = [{"id": 17, "text": "owls hunt at night"}, {"id": 18, "text": "bees make honey"}]
QUERIES = {"q": "bees make honey"}
NAN, HUGE = float("nan"), 10**5_000


def by_dataset(documents, queries, qrels):
    made = make_dataset("x", documents, queries, qrels)
    assert all(isinstance(row["id"], str) and row["text"] for row in made.corpus)
    return evaluate({"m": HashEncoder()}, made, show_progress=False).cells[0].scores.mean()["ndcg@10"]


def by_gain(documents, queries, qrels):
    gain = context_gain(documents, queries, qrels, tiny_model(), seeds=1, show_progress=False)
    return gain.results.cells[-1].scores.mean()["ndcg@10"]


def by_tuning(documents, queries, qrels):
    hybrid = Hybrid({"a": HashEncoder(), "b": HashEncoder()}).add(documents)
    return hybrid.tune(queries, qrels).score


def by_run(documents, queries, qrels):
    hits = Retriever(HashEncoder()).add(documents)(named_queries(queries), k=2)
    return evaluate_run(qrels, hits).mean()["ndcg@10"]


DOORS = pytest.mark.parametrize("door", [by_dataset, by_gain, by_tuning, by_run])


@DOORS
@pytest.mark.parametrize(
    "qrels",
    [
        {"q": {18: 1}},
        {"q": {"18": 1}},
        {"q": {18.0: True}},
        {"q": {np.int64(18): np.int8(2)}},
        {"q": [18]},
        {"q": {"18"}},
        {"q": (18, "18")},
        {"q": np.array([18])},
        {"q": pd.Series([18.0])},
        {"q": {18: "1", 17: 0}},
        [("q", 18, 1)],
        [("q", 0, 18, 1)],
        [{"query-id": "q", "corpus-id": "18", "score": 1}],
        pd.DataFrame({"query-id": ["q", "q"], "corpus-id": [18, 17], "score": [1, 0]}),
        pd.DataFrame({"qid": ["q"], "docno": [18.0], "rel": [1.0]}),
    ],
    ids=str,
)
def test_judgements_in_every_form(door, qrels):
    assert door(DOCUMENTS, QUERIES, qrels) == 1.0


@DOORS
@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ({"q": {18: 0.5}}, "query 'q', document 18: grade 0.5 is not a whole number"),
        ({"q": {18: NAN}}, "grade nan is not a whole number"),
        ({"q": {18: None}}, "grade None is not a whole number"),
        ({"q": {18: pd.NA}}, "grade <NA> is not a whole number"),
        ({"q": {18: "high"}}, "grade 'high' is not a whole number"),
        ({"q": {18: "1_0"}}, "grade '1_0' is not a whole number"),
        ({"q": {18: 10**400}}, "grade 1000.* is not a whole number"),
        ({"q": {18: 2**40}}, "is too large"),
        ({"q": {18: HUGE}}, "grade int is not a whole number"),
        ({"q": {18: [1]}}, r"grade \[1\] is not a whole number"),
        ({"q": {18: 1, "18": 0}}, "query 'q', document '18' occurs twice, with 1 and 0"),
        ({1: {18: 1}, "1": {17: 1}}, "queries 1 and '1' are one as text"),
        ({"q": {None: 1}}, "None is not the id of a document"),
        ({"q": {NAN: 1}}, "None is not the id of a document"),
        ({"q": {HUGE: 1}}, "4,300 digits"),
        ({None: {18: 1}}, "None is not the id of a query"),
        ({"q": "18"}, "of query 'q' there is '18', a str; pass a dictionary"),
        ({"q": None}, "of query 'q' there is None"),
        ({"q": pd.Series({18: 1, 17: 0})}, "a Series; pass a dictionary"),
        ({"q": [[18]]}, r"\[18\] is not the id of a document"),
        ([("q", 18)], r"expected \(query, document, value\)"),
        ([{"query": "q", "score": 1}], "no column named doc_id"),
        (pd.DataFrame([["q", 18, 1, 0]], columns=["qid", "docno", "rel", "rel"]), "2 columns are named rel"),
        (pd.DataFrame({"qid": ["q"], "docno": [None], "rel": [1]}), "None is not the id of a document"),
        (7, "a int is none of"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_judgements_that_cannot_be_used(door, qrels, message):
    with pytest.raises(InputError, match=message):
        door(DOCUMENTS, QUERIES, qrels)


@pytest.mark.parametrize("door", [by_dataset, by_gain, by_tuning])
@pytest.mark.parametrize("qrels", [{}, [], {"q": {}}, {"q": []}])
def test_nothing_judged(door, qrels):
    with pytest.raises(InputError, match="judge"):
        door(DOCUMENTS, QUERIES, qrels)


QRELS = {"q": {18: 1}}


@DOORS
@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"id": 1}, "no field 'text'"),
        ({"text": "x"}, "no field 'id'"),
        ({"id": 1, "text": NAN}, "empty text"),
        ({"id": 1, "text": None}, "empty text"),
        ({"id": 1, "text": pd.NA}, "empty text"),
        ({"id": 1, "text": " "}, "empty text"),
        ({"id": 1, "text": ["a", "b"]}, "'text' is list, not a string"),
        ({"id": 1, "text": b"owls"}, "'text' is bytes, not a string"),
        ({"id": 1, "text": 7}, "'text' is int, not a string"),
        ({"id": 1, "title": 7, "text": "x"}, "'title' is int, not a string"),
        ({"id": 1, "title": {"en": "x"}, "text": "x"}, "'title' is dict, not a string"),
        ({"id": None, "text": "x"}, "'id' is None"),
        ({"id": NAN, "text": "x"}, "'id' is None"),
        ({"id": b"1", "text": "x"}, "'id' is b'1'"),
        ({"id": HUGE, "text": "x"}, "more than 4,300 digits"),
        ({"id": -HUGE, "text": "x"}, "more than 4,300 digits"),
        ({"id": [HUGE], "text": "x"}, "'id' is list"),
        (7, "document 2 is int"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_documents_that_cannot_be_used(door, document, message):
    with pytest.raises(InputError, match=message) as caught:
        door([*DOCUMENTS, document], QUERIES, QRELS)
    assert "document 2" in str(caught.value)


@DOORS
@pytest.mark.parametrize(
    "documents",
    [
        [{"_id": 17, "text": "owls hunt"}, {"_id": 18, "text": "bees make honey"}],
        {17: {"text": "owls hunt"}, 18: {"text": "bees make honey"}},
        pd.DataFrame({"id": [17.0, 18.0], "title": [NAN, None], "text": ["owls hunt", "bees make honey"]}),
        [
            {"id": np.int64(17), "text": np.str_("owls")},
            {"id": np.float32(18), "text": "bees make honey", "title": pd.NA},
        ],
        iter,
    ],
    ids=["BEIR rows", "dictionary", "frame of floats", "numpy", "generator"],
)
def test_documents_in_every_form(door, documents):
    assert door(iter(DOCUMENTS) if documents is iter else documents, QUERIES, QRELS) == 1.0


@DOORS
@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ({"q": ""}, "query 0 is empty .id 'q'"),
        ({"q": NAN}, "query 0 is float, not a string"),
        ({"q": None}, "query 0 is NoneType"),
        ({"q": b"bees"}, "query 0 is bytes"),
        ({"q": ["bees"]}, "query 0 is list"),
        ({"q": "a", "p": "b", NAN: "c", 1: "d"}, "id"),
        (pd.DataFrame({"name": ["q"], "words": ["bees"]}), "query 0 has the fields name, words"),
        ([{"_id": "q", "text": "bees"}, {"_id": "q", "text": "owls"}], "query 1: id 'q' occurs twice"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_queries_that_cannot_be_used(door, queries, message):
    qrels = {"q": {18: 1}, "p": {18: 1}, "nan": {18: 1}, "None": {18: 1}, 1: {17: 1}} if len(queries) > 2 else QRELS
    with pytest.raises(InputError, match=message):
        door(DOCUMENTS, queries, qrels)


@DOORS
@pytest.mark.parametrize(
    "queries",
    [
        {7: "bees make honey"},
        {"7": "bees make honey"},
        {7.0: "bees make honey"},
        [{"_id": 7, "text": "bees make honey"}],
        pd.DataFrame({"query_id": [7], "query": ["bees make honey"]}),
        iter,
        pd.DataFrame({"_id": ["7"], "text": ["bees make honey"], "metadata": [{}]}),
    ],
    ids=str,
)
def test_queries_in_every_form(door, queries):
    if queries is iter:
        queries = iter([{"_id": 7, "text": "bees make honey"}])
    assert door(DOCUMENTS, queries, {7: {18: 1}}) == 1.0


def test_ids_that_are_one_as_text():
    two = [{"id": 1, "text": "owls"}, {"id": "1", "text": "bees"}]
    with pytest.raises(InputError, match="'1' occurs twice"):
        make_dataset("x", two, QUERIES, {"q": {1: 1}})
    with pytest.raises(InputError, match="two ids of this index"):
        Hybrid({"a": HashEncoder(), "b": HashEncoder()}).add(two).tune({"q": "owls"}, {"q": {1: 1}})
    with pytest.raises(InputError, match="'1' occurs twice"):
        named_queries({1: "a", "1": "b"})


def test_negative_grades_stay():
    assert as_qrels({"q": {"a": -2, "b": 1}}) == {"q": {"a": -2, "b": 1}}
    assert [parse_grade(value, "here") for value in (True, np.bool_(False), decimal.Decimal(2), " 3 ")] == [1, 0, 2, 3]


def test_a_dataset_by_hand_goes_through_the_door():
    corpus = ({"id": "17", "title": "", "text": "owls"},)
    made = Dataset("x", corpus, {7: "owls"}, {"7": [17]}, "test", "0")
    assert (made.queries, made.qrels) == ({"7": "owls"}, {"7": {"17": 1}})
    with pytest.raises(InputError, match=r"grade 0\.5"):
        Dataset("x", corpus, {"q": "owls"}, {"q": {"17": 0.5}}, "test", "0")
    with pytest.raises(InputError, match="query 'q' is NoneType"):
        Dataset("x", corpus, {"q": None}, {"q": {"17": 1}}, "test", "0")
    with pytest.raises(InputError, match="differ in"):
        Dataset("x", corpus, {"q": "a", 1: "b"}, {"q": {"17": 1}}, "test", "0")


def test_empty_documents_of_official_collections_can_be_kept():
    with pytest.raises(InputError, match="keep_empty"):
        make_dataset("x", [*DOCUMENTS, {"id": "e", "text": ""}], QUERIES, QRELS)
    assert len(make_dataset("x", [*DOCUMENTS, {"id": "e", "text": ""}], QUERIES, QRELS, keep_empty=True).corpus) == 3


def test_known_items_are_made_of_texts():
    rest = "Twice a day the water of every coast rises and then falls again."
    rows = [{"id": 1, "title": "All about the coast", "text": rest}, {"id": 2, "title": NAN, "text": rest}]
    assert "nan" not in {row["text"] for row in known_item(rows).corpus}
    for row, message in [
        ({"id": 2, "title": ["a"]}, "'title' is list"),
        ({"id": [1], "title": "a"}, "'id' is"),
        (7, "is int"),
    ]:
        with pytest.raises(InputError, match=message):
            known_item([rows[0], row])


# What documents hold beside their text


WHEN = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
NAME = uuid.UUID("12345678123456781234567812345678")


def test_values_of_every_kind_are_stored():
    row = {
        **{"id": NAME, "text": "owls", "when": WHEN, "day": datetime.date(2024, 2, 29), "hour": datetime.time(12, 30)},
        **{"stamp": pd.Timestamp(WHEN), "numpy": np.datetime64("2024-02-29T12:30"), "nat": pd.NaT, "na": pd.NA},
        **{"span": datetime.timedelta(hours=1), "price": decimal.Decimal("19.90"), "whole": decimal.Decimal("3")},
        **{"long": decimal.Decimal("0.1234567890123456789"), "raw": b"text", "bytes": b"\xff", "array": np.arange(2)},
        **{"one": np.array(3), "nested": {"when": [WHEN.date()], 1: (np.float32(0.5), NAN)}},
    }
    retriever = Retriever(HashEncoder()).add(pd.DataFrame([row]))
    [[hit]] = retriever("owls", documents=True)
    assert hit["id"] == hit["document"]["id"] == str(NAME)
    assert hit["document"] == {
        **{"id": str(NAME), "text": "owls", "when": "2024-02-29T12:30:00+00:00", "day": "2024-02-29"},
        **{"hour": "12:30:00", "stamp": "2024-02-29T12:30:00+00:00", "numpy": "2024-02-29T12:30:00", "nat": None},
        **{"na": None, "span": 3600.0, "price": 19.9, "whole": 3, "long": "0.1234567890123456789", "raw": "text"},
        **{"bytes": "/w==", "array": [0, 1], "one": 3, "nested": {"when": ["2024-02-29"], "1": [0.5, None]}},
    }
    assert len(retriever("owls", filter={"day": datetime.date(2024, 2, 29)})[0]) == 1
    assert len(retriever("owls", filter={"when": {">": WHEN}})[0]) == 0
    retriever.remove([NAME])
    assert len(retriever) == 0


@pytest.mark.parametrize("unit", ["m", "s", "ms", "us", "ns"])
def test_a_time_is_one_text_in_whatever_unit_numpy_holds_it(unit):
    for text in ("2024-02-29T12:30", "2024-02-29T12:30:05", "2024-02-29T12:30:05.25", "2024-02-29T12:30:05.000000001"):
        stamp = pd.Timestamp(text)
        held = stamp.to_datetime64().astype(f"datetime64[{unit}]")
        if held == stamp.to_datetime64():
            assert scalar(held) == scalar(stamp) == stamp.isoformat()


def test_parquet_of_every_kind_is_indexed(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    from cderetrieval.corpora.readers import read_documents

    table = pa.table(
        {
            "id": pa.array([1, 2]),
            "text": pa.array(["owls", "bees"]),
            "stamp": pa.array([WHEN, None], pa.timestamp("ns", "UTC")),
            "day": pa.array([WHEN.date(), None]),
            "price": pa.array([decimal.Decimal("1.10"), None]),
            "raw": pa.array([b"a", b"\xff"]),
            "lists": pa.array([[{"a": WHEN.date()}], []]),
        }
    )
    pq.write_table(table, tmp_path / "docs.parquet")
    retriever = Retriever(HashEncoder()).add(read_documents(tmp_path / "docs.parquet"))
    [[hit]] = retriever("owls", k=1, documents=True)
    assert hit["document"]["stamp"] == "2024-02-29T12:30:00+00:00"
    assert hit["document"]["price"] == 1.1
    assert hit["document"]["lists"] == [{"a": "2024-02-29"}]


@pytest.mark.parametrize(
    "value",
    [{1, 2}, 1j, HUGE, {"a": [HUGE]}, {(1, 2): 3}, {1: "a", "1": "b"}, object(), [[[set()]]]],
    ids=lambda value: "",
)
def test_values_that_json_has_no_form_for(value):
    retriever = Retriever(HashEncoder()).add(DOCUMENTS)
    with pytest.raises(InputError, match="row 1: field 'x' cannot be stored as JSON"):
        retriever.add([{"id": 0, "text": "a"}, {"id": 1, "text": "a", "x": value}])
    assert len(retriever) == 2


def test_deep_and_circular_values():
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    circle: dict = {}
    circle["circle"] = circle
    for value in (deep, circle):
        with pytest.raises(InputError, match="nested deeper than 200 levels"):
            plain(value)
    assert plain([[[[1]]]]) == [[[[1]]]]


def test_fields_of_one_name():
    frame = pd.DataFrame([["a", "owls", "bees"]], columns=["id", "text", "text"])
    with pytest.raises(InputError, match="the frame: 2 fields are named 'text'"):
        list(document_rows(frame, "id", None))
    with pytest.raises(InputError, match="document 0: 2 fields are named '1'"):
        list(document_rows([{"id": 1, "text": "x", 1: "a", "1": "b"}], "id", None))


def test_a_frame_of_queries():
    frame = pd.DataFrame({"id": [3, 4], "text": ["owls", "bees"]})
    assert query_texts(frame) == ([3, 4], ["owls", "bees"])
    retriever = Retriever(HashEncoder()).add(DOCUMENTS)
    assert [hits[0]["id"] for hits in retriever(pd.DataFrame({"id": ["a"], "text": ["bees make honey"]}))] == [18]
    with pytest.raises(InputError, match="has the fields title, body"):
        retriever(pd.DataFrame({"title": ["a"], "body": ["b"]}))


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"n": {"=>": 1}}, "'=>' is not a comparison"),
        ({"n": {None: 1}}, "None is not a comparison"),
        ({"n": {}}, "an empty dictionary asks nothing"),
        ({"n": HUGE}, "int cannot be compared"),
        ({"n": [HUGE]}, "int cannot be compared"),
        ({"n": float("inf")}, "inf cannot be compared"),
        ({"n": pd.NA}, "cannot be compared"),
        ({"n": {"==": {"==": 1}}}, "cannot be compared"),
        ({"n": [[1]]}, "cannot be compared"),
        ({HUGE: 1}, "names the field int"),
        ({b"n": 1}, "names the field b'n'"),
        ([("n", 1)], "filter= is list"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_filters_that_cannot_be_read(wanted, named):
    with pytest.raises(InputError, match=named):
        parse_filter(wanted)


def test_deep_filters():
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(InputError, match="list cannot be compared"):
        parse_filter({"n": deep})
    with pytest.raises(InputError, match="cannot be compared"):
        parse_filter({"n": {"==": deep}})


def test_long_numbers_are_compared():
    rows = [{"id": i, "text": "owls", "n": n} for i, n in enumerate([10**400, 5, 10**400 + 1, 0.5])]
    retriever = Retriever(HashEncoder()).add(rows)
    found = [{hit["id"] for hit in retriever("owls", filter={"n": wanted})[0]} for wanted in (10**400, {"<": 10**400})]
    assert found == [{0}, {1, 3}]
    assert {hit["id"] for hit in retriever("owls", filter={"n": {">": 4.5}})[0]} == {0, 1, 2}


def test_a_long_id_is_refused_everywhere():
    retriever = Retriever(HashEncoder()).add(DOCUMENTS)
    for call in (lambda: retriever.remove(HUGE), lambda: retriever.add([{"id": HUGE, "text": "x"}])):
        with pytest.raises(InputError, match="4,300 digits"):
            call()
    assert len(retriever) == 2
    retriever.add([{"id": 10**400, "text": "long"}]).remove(10**400)
