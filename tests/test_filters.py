"""Metadata filters: what they mean, on documents and in searches with an index on this machine."""

import numpy as np
import pytest

from cderetrieval import Retriever
from cderetrieval.errors import InputError
from cderetrieval.filters import parse_filter
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
    ],
)
def test_what_a_filter_means(wanted, holds, fails):
    parsed = parse_filter(wanted)
    assert all(parsed.holds(document) for document in holds)
    assert not any(parsed.holds(document) for document in fails)


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("a = 1", "filter= is str"),
        ({1: 2}, "names the field 1"),
        ({"": 2}, "names the field ''"),
        ({"a": None}, "None cannot be compared"),
        ({"a": {"=": 1}}, "'=' is not a comparison"),
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
