"""Ids that are no plain words: each is added, found and removed alone, or refused before anything is written."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cderetrieval import Retriever
from cderetrieval.errors import InputError, StoreError
from cderetrieval.milvus.expressions import Expression
from cderetrieval.milvus.location import parse_location
from cderetrieval.testing import HashEncoder

HOSTILE = [
    "x'] or id not in ['zzz",
    "a', 's:b",
    'x"] or id not in ["zzz',
    'a", "s:b',
    "x\\'] or id not in [\\'zzz",
    "O'Brien",
    "'",
    '"',
    "\\",
    "\\\\'",
    "a\nb\r\t\x00\x1b",
    "100% %s %5C%22 %(x)s",
    "{} {0} {ids} ${x} {{",
    "\u2028\x7f\x85 naïve 日本 🦉 \ud83d",
    "'" * 900,
    "s:a",
    "s:'b",
    "true",
    "id in [1]",
]


@pytest.fixture
def held(place, at):
    """A collection of ids that an expression could go astray with."""
    return at(place).add([{"id": i, "text": f"text {n}"} for n, i in enumerate(["a", "b", 1, True, *HOSTILE])])


def ids(retriever):
    return {repr(row[0]) for row in retriever.collection.rows()}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_removal_removes_what_it_names_and_nothing_else(held, hostile):
    before = ids(held)
    assert hostile in held
    held.remove([hostile])
    assert hostile not in held
    assert len(held) == len(HOSTILE) + 3
    assert before - ids(held) == {repr(hostile)}
    held.add([{"id": hostile, "text": "back"}])
    assert ids(held) == before
    assert held("back", k=1)[0][0]["id"] == hostile


def test_an_id_that_is_not_there_removes_nothing(place, at):
    remote = at(place).add([{"id": i, "text": f"about {i}"} for i in ("a", "b", "zzz")])
    for wrong in HOSTILE:
        with pytest.raises(InputError, match="Nothing was removed"):
            remote.remove(["a", wrong])
        assert wrong not in remote
    assert len(remote) == 3


def test_all_together(held):
    held.remove(HOSTILE[:10])
    held.remove(HOSTILE[10:])
    assert ids(held) == {"'a'", "'b'", "1", "True"}


@pytest.mark.parametrize("long", [10**1_100, "x" * 1_100, "\u00e9" * 200])
def test_an_id_too_long_is_refused_before_anything_is_written(place, at, long):
    remote = at(place).add([{"id": "a", "text": "x"}])
    for call in (
        lambda: remote.add([{"id": "b", "text": "y"}, {"id": long, "text": "z"}]),
        lambda: remote.remove(["a", long]),
    ):
        with pytest.raises(InputError, match=r"id .*Milvus holds ids of up to 1,024"):
            call()
    with pytest.raises(InputError, match=r"row 1 .*: field 'n'"):
        remote.add([{"id": "b", "text": "y"}, {"id": "c", "text": "z", "n": 10**5_000}])
    assert ids(remote) == {"'a'"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    retriever = Retriever(HashEncoder(), index=str(tmp_path_factory.mktemp("ids") / "lite.db" / "docs"))
    retriever.add([{"id": "kept", "text": "kept"}])
    yield retriever
    retriever.close()


TEXT = st.text(max_size=20) | st.text("'\"\\%{}[],: snr\n", max_size=20) | st.sampled_from(HOSTILE)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(TEXT | st.integers() | st.booleans(), min_size=1, max_size=6, unique_by=lambda i: (type(i), i)))
def test_any_ids_are_added_found_and_removed(shared, some):
    some = [i for i in some if i != "kept"]
    shared.add([{"id": i, "text": f"text of {i!r}"} for i in some])
    assert len(shared) == 1 + len(some)
    assert all(i in shared for i in some)
    assert ids(shared) == {"'kept'", *map(repr, some)}
    for number, one in enumerate(some, start=1):
        shared.remove([one])
        assert len(shared) == 1 + len(some) - number
        assert one not in shared
    assert ids(shared) == {"'kept'"}


def test_a_key_that_another_program_wrote_does_not_lead_a_walk_astray(place, at):
    remote = at(place).add([{"id": "a", "text": "x"}])
    collection = remote.collection.current.collection
    foreign = {"id": 's:b" or id > "', "seq": 1, "vector": [1.0] * 16, "payload": "[{}]", "metadata": {}, "passages": 1}
    collection.upsert([foreign])
    with pytest.raises(StoreError, match="did not write"):
        list(remote.collection.rows())


def test_a_connection_takes_no_filter_that_was_pasted_together(place, at, rows):
    remote = at(place).add(rows)
    call, name = remote.collection._connection.call, remote.collection.current.collection.name
    for options in ({"filter": 'id in ["s:owls"]'}, {"ids": ["s:owls"]}, {"pks": ["s:owls"]}):
        with pytest.raises(TypeError, match=r"expressions\.py"):
            call("delete", name, **options)
    with pytest.raises(TypeError, match=r"expressions\.py"):
        call("query", name, filter=Expression("seq > 0") + " or seq < 0")
    assert len(remote) == len(rows)


@pytest.mark.parametrize(
    "text",
    [
        "milvus://root:s3/cret@host/docs",
        "milvus://root:s3?cret@host/docs",
        "milvus://root:s3#cret@host/docs",
        "milvus://root:1/s3cret@host/docs",
        "milvus://root:s3:cret/x@ho st/docs",
    ],
)
def test_a_login_that_is_not_escaped_is_not_shown(text):
    with pytest.raises(ValueError, match="In a login, write") as caught:
        parse_location(text)
    shown = str(caught.value)
    assert "s3" not in shown
    assert "cret" not in shown
    assert caught.value.__cause__ is None


def test_a_server_whose_name_ends_like_a_file():
    location = parse_location("milvus://root:s3cret@host.db/docs")
    assert (location.lite, location.address, location.token) == (False, "http://host.db:19530", "root:s3cret")
    assert parse_location("milvus://data/a.db/docs").lite


@pytest.mark.parametrize(
    "text", ["a.db/..", "a.db/a'b", "a.db/a b", "milvus://host/..%2f..%2fx", "milvus://host/d%27b/docs", "a\0.db/docs"]
)
def test_names_and_paths_that_could_lead_elsewhere(text):
    with pytest.raises(ValueError, match=r"use letters, digits and underscores|null character"):
        parse_location(text)
