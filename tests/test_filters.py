"""Metadata filters: what they mean, on documents and in searches with an index on this machine."""

from datetime import UTC, date, datetime
from uuid import UUID

import numpy as np
import pytest

from cderetrieval import Retriever
from cderetrieval.errors import InputError
from cderetrieval.filters import field_value, filter_from_text, parse_filter
from cderetrieval.testing import HashEncoder, tiny_sparse_embed, tiny_splade

ROWS = [
    {"id": i, "text": f"owl {name} {i % 7}", "n": i, "name": name, "even": i % 2 == 0}
    for i, name in enumerate(["ant", "bee", "cat", "dog"] * 10)
]


@pytest.mark.parametrize(
    ("wanted", "holds", "fails"),
    [
        ({}, [{}, {"a": 1}], []),
        ({"a": 1}, [{"a": 1}, {"a": 1.0}], [{}, {"a": None}, {"a": "1"}, {"a": True}, {"a": [1]}, {"b": 1}]),
        ({"a": True}, [{"a": True}], [{"a": 1}, {"a": "True"}, {"a": False}]),
        ({"a": ["x", 2]}, [{"a": "x"}, {"a": 2}], [{"a": "y"}, {"a": "2"}]),
        ({"a": []}, [], [{"a": 1}, {}]),
        ({"a": {">": 1, "<=": 3}}, [{"a": 1.5}, {"a": 3}], [{"a": 1}, {"a": 4}, {"a": "2"}]),
        ({"a": {"!=": "x"}}, [{"a": "y"}, {"a": ""}], [{"a": "x"}, {"a": 1}, {}, {"a": None}]),
        ({"a": {">=": "m"}, "b": 1}, [{"a": "n", "b": 1}], [{"a": "n"}, {"a": "a", "b": 1}]),
        ({"a": np.int64(3)}, [{"a": 3}], [{"a": 4}, {"a": float("nan")}]),
        ({"$or": [{"a": 1}, {"b": 2, "c": 3}]}, [{"a": 1}, {"b": 2, "c": 3}], [{"b": 2}, {}]),
        ({"$or": [{}, {"a": 1}]}, [{}], []),
        ({"$and": [{"a": 1}, {"a": {"$lt": 9}}], "b": 2}, [{"a": 1, "b": 2}], [{"a": 1}]),
        ({"$not": {"a": "x"}}, [{"a": "y"}, {}, {"a": 1}], [{"a": "x"}]),
        ({"$not": {"a": 1, "b": 1}}, [{"a": 1}, {"b": 1}], [{"a": 1, "b": 1}]),
        ({"a": {"$not": {">=": 3}}}, [{"a": 1}, {}], [{"a": 3}]),
        ({"a": {"$in": (1, "x")}}, [{"a": 1}, {"a": "x"}], [{"a": "1"}, {"a": True}]),
        ({"a": {"$nin": ["x", "y"]}}, [{"a": "z"}], [{"a": "x"}, {"a": 1}, {}]),
        ({"a": {"$nin": ["x", 1]}}, [{"a": "z"}, {"a": 2}], [{"a": "x"}, {"a": 1}, {"a": True}]),
        (
            {"a": {"$contains": "owl"}},
            [{"a": "an owl"}, {"a": ["x", "owl"]}],
            [{"a": "Owl"}, {"a": ["owls"]}, {"a": 1}],
        ),
        (
            {"a": {"$contains": 1}},
            [{"a": [2, 1]}, {"a": [1.0]}],
            [{"a": ["1"]}, {"a": [True]}, {"a": "1"}, {"a": 1}, {}],
        ),
        ({"a.b": 1}, [{"a": {"b": 1}}, {"a.b": 1}], [{"a": 1}, {"a": {"b": 2}}, {"a": {"b": {"c": 1}}}, {"a": ["b"]}]),
        ({"a.b.c": 1}, [{"a": {"b": {"c": 1}}}, {"a.b": {"c": 1}}, {"a": {"b.c": 1}}], [{"a": {"b": 1}}]),
        (
            {"a": {">=": date(2024, 2, 29)}},
            [{"a": "2024-02-29"}, {"a": "2024-02-29T10:00:00+02:00"}, {"a": "2024-02-29 10:00"}],
            [
                {"a": "2024-02-28T23:59"},
                {"a": "2024-02-29T00:30:00+02:00"},
                {"a": "soon"},
                {"a": 3},
                {"a": "29.2.2024"},
            ],
        ),
        ({"a": datetime(2024, 2, 29, 8, tzinfo=UTC)}, [{"a": "2024-02-29T10:00+02:00"}], [{"a": "2024-02-29T10:00"}]),
        ({"a": UUID(int=7)}, [{"a": str(UUID(int=7))}], [{"a": 7}]),
    ],
)
def test_what_a_filter_means(wanted, holds, fails):
    parsed = parse_filter(wanted)
    assert all(parsed.holds(document) for document in holds)
    assert not any(parsed.holds(document) for document in fails)


def nested(depth):
    return {"$not": nested(depth - 1)} if depth else {"a": {"$not": {"$not": {"$not": {"==": 1}}}}}


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("a = 1", "filter= is str"),
        ({1: 2}, "names the field 1"),
        ({"": 2}, "names the field ''"),
        ({"a": None}, "None cannot be compared"),
        ({"a": {"=": 1}}, "'=' is not a comparison"),
        ({"a": {"$in": 1}}, r"\$in takes a list of values, not 1"),
        ({"a": {}}, "an empty dictionary"),
        ({"$or": []}, r"'\$or' with \[\]; it takes a list of filters"),
        ({"$or": {"a": 1}}, "takes a list of filters"),
        ({"$xor": [{"a": 1}]}, r"'\$xor', which joins no filters"),
        ({"$not": [1]}, "filter= is list"),
        (nested(300), "deeper than 200 levels"),
        ({"a": [[1]]}, r"\[1\] cannot be compared"),
        ({"a": float("nan")}, "nan cannot be compared"),
    ],
)
def test_filters_that_cannot_be_read(wanted, named):
    with pytest.raises(InputError, match=named):
        parse_filter(wanted)
    with pytest.raises(InputError, match=named):
        Retriever(HashEncoder()).add(ROWS)("x", filter=wanted)


@pytest.mark.parametrize("index", ["auto", "HNSW16"])
def test_a_filtered_search_is_exact_among_what_passes(index):
    retriever = Retriever(HashEncoder(), index=index).add(ROWS).remove([3, 4]).add([{"id": 5, "text": "new", "n": 50}])
    for wanted, ids in [
        ({"n": {"<": 9}}, {0, 1, 2, 6, 7, 8}),
        ({"name": ["ant", "bee"], "even": True}, {i for i in range(0, 40, 4)} - {4}),
        ({"n": 50}, {5}),
        ({"nothing": 1}, set()),
    ]:
        ranking = retriever("owl ant 3", k=99, filter=wanted, documents=True)[0]
        assert {hit["id"] for hit in ranking} == ids
        plain = [hit for hit in retriever("owl ant 3", k=99, documents=True)[0] if hit["id"] in ids]
        if index == "auto":
            assert ranking == plain
        assert [hit["similarity"] for hit in ranking] == sorted((hit["similarity"] for hit in ranking), reverse=True)
    assert retriever("owl", k=2, filter={"even": True}) != retriever("owl", k=2, filter={"even": False})


def test_filters_of_equal_values_and_other_types_are_two():
    retriever = Retriever(HashEncoder()).add([{"id": 1, "text": "a", "x": 1}, {"id": 2, "text": "b", "x": True}])
    assert [hit["id"] for hit in retriever("a", filter={"x": 1})[0]] == [1]
    assert [hit["id"] for hit in retriever("a", filter={"x": True})[0]] == [2]


@pytest.mark.parametrize("make", [tiny_splade, tiny_sparse_embed])
def test_sparse_vectors(make):
    retriever = Retriever(make()).add(ROWS)
    full = retriever("owl bee 3", k=99)[0]
    passed = retriever("owl bee 3", k=99, filter={"even": True})[0]
    assert passed == [hit for hit in full if hit["id"] % 2 == 0]
    assert list(retriever("owl", filter={"n": -1})) == [[]]


def test_a_filter_sees_what_was_changed():
    retriever = Retriever(HashEncoder()).add(ROWS)
    assert len(retriever("x", k=99, filter={"name": "ant"})[0]) == 10
    retriever.add([{"id": 1, "text": "now an ant", "name": "ant"}]).remove([0])
    assert len(retriever("x", k=99, filter={"name": "ant"})[0]) == 10
    assert 1 in {hit["id"] for hit in retriever("x", k=99, filter={"name": "ant"})[0]}


def test_a_field_that_no_document_has_is_named_once(caplog):
    retriever = Retriever(HashEncoder()).add([{**row, "author": {"city": "Ulm"}, "year": "2019"} for row in ROWS])
    for wanted, said in [
        ({"nmae": "ant"}, "filter= names the field 'nmae', which no document has; like it are 'name'."),
        ({"$or": [{"author.town": 1}, {"n": 1}]}, "'author.city'"),
        ({"year": {">=": 2020}}, "filter= on 'year' wants a number; no document has one there, the first has '2019'."),
        ({"name": {"<": date(2024, 1, 1)}}, "wants a date"),
        ({"n": 1, "year": "1", "author.city": "x"}, ""),
        ({"n": []}, ""),
    ]:
        caplog.clear()
        retriever("owl", filter=wanted)
        retriever("bee", filter=wanted)
        assert said in caplog.text
        assert len(caplog.records) == bool(said)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("year >= 2020", {"year": {">=": 2020}}),
        ("year=2020", {"year": {"==": 2020}}),
        ("open == true", {"open": {"==": True}}),
        ('language in ["en", "fr"]', {"language": {"$in": ["en", "fr"]}}),
        ("title contains an owl", {"title": {"$contains": "an owl"}}),
        ("code == '7'", {"code": {"==": "7"}}),
        ("a.b != x<y", {"a.b": {"!=": "x<y"}}),
        (' {"$or": [{"a": 1}]}', {"$or": [{"a": 1}]}),
    ],
)
def test_filters_as_text(text, wanted):
    assert filter_from_text([text]) == {"$and": [wanted]}
    parse_filter(filter_from_text([text]))


@pytest.mark.parametrize("text", ["", "year", "year >=", ">= 3", "{", "__import__('os')", "[" * 10_000, "a in b"])
def test_texts_that_are_no_filter(text):
    with pytest.raises(InputError, match="filter"):
        parse_filter(filter_from_text([text]))


def test_a_list_of_dates_contains_a_date():
    wanted = parse_filter({"days": {"$contains": date(2020, 1, 1)}})
    assert [
        wanted.holds({"days": days}) for days in (["2020-01-01"], ["2020-01-01T00:00:00+00:00", 1], ["x", 7], [])
    ] == [
        True,
        True,
        False,
        False,
    ]


def test_a_field_of_a_field_whose_name_begins_like_another():
    assert field_value({"a": {"x": 1}, "a.b": {"c": 2}}, "a.b.c") == 2
