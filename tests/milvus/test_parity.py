"""A collection on a server answers as an index on this machine does: ids, ranking, similarities, payloads, errors."""

import math
import random
import re

import numpy as np
import pytest

from cderetrieval import Context, Retriever
from cderetrieval.errors import ConfigError, ContextError, InputError, MismatchError, StoreError
from cderetrieval.testing import HashEncoder, tiny_model, tiny_model_directory, tiny_sparse_embed, tiny_splade

WORDS = ["owl", "bee", "deer", "ant", "frog", "wolf", "moss", "fern", "oak", "pine", "reed", "lake", "hill", "sand"]
IDS = ["1", 1, 1.5, True, 10**30, "", "naïve 🦉 \ud83d", -7, 'a"b\\c%22', "d\n\t'"]


def sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(2, 7))) for _ in range(count)]


def same(one, other, queries, **options):
    """Both give the same answers; similarities may differ in the sixth decimal, and equal ones come in any order."""
    mine, theirs = one(queries, **options), other(queries, **options)
    for ours, expected in zip(mine, theirs, strict=True):
        similarities = [hit["similarity"] for hit in expected]
        np.testing.assert_allclose([hit["similarity"] for hit in ours], similarities, atol=1.1e-6)
        # Of those that are equal to the last one, a server may give others.
        least = min(similarities, default=0.0) + 2.5e-6 if len(expected) == options.get("k", 10) else -np.inf
        assert named(ours, least) == named(expected, least)
    return mine


def named(hits, least):
    """Hits above a similarity as text: equal ones together and in order of their names."""
    groups, last = [], np.inf
    for hit in hits:
        if hit["similarity"] <= least:
            break
        if last - hit["similarity"] > 2.5e-6:
            groups.append([])
        groups[-1].append(repr((hit["id"], hit.get("document"))))
        last = hit["similarity"]
    return [sorted(group) for group in groups]


def test_ids_ranking_and_payload_are_those_of_an_index_on_this_machine(place, at):
    documents = [{"id": f"d{i}", "text": text, "n": i} for i, text in enumerate(sentences(300))]
    local, remote = Retriever(HashEncoder()), at(place)
    for retriever in (local, remote):
        retriever.add(documents[:200]).add(documents[200:]).remove([f"d{i}" for i in range(0, 90, 3)])
        retriever.add([{"id": "d7", "text": "seven anew"}, {"id": "d0", "text": "back again"}])
    queries = sentences(40, seed=1)
    same(remote, local, queries, k=25, documents=True)
    same(remote, local, queries[:3], k=1_000)
    same(remote, local, {"q": "owl"}, k=3)
    assert len(remote) == len(local) == 271
    assert "d3" not in remote
    assert "d0" in remote
    assert remote("seven anew", k=1)[0][0] == {"id": "d7", "similarity": 1.0}
    held = [sorted(retriever.collection.rows(), key=lambda row: row[0]) for retriever in (local, remote)]
    assert held[0] == held[1], "ids, texts and documents of the walk are the same too"


def test_ids_of_every_json_type_come_back_as_they_went_in(place, at):
    remote = at(place).add([{"id": i, "text": f"text {n}", "odd": i} for n, i in enumerate(IDS)])
    hits = remote([f"text {n}" for n in range(len(IDS))], k=1, documents=True)
    assert [ranking[0]["id"] for ranking in hits] == IDS
    assert [type(ranking[0]["id"]) for ranking in hits] == [type(i) for i in IDS]
    assert [ranking[0]["document"]["odd"] for ranking in hits] == IDS
    assert all(i in remote for i in IDS)
    assert np.int64(1) in remote
    assert len(remote.remove(IDS[:4])) == 6
    assert {row[0] for row in remote.collection.rows()} == set(IDS[4:]), "the walk copes with every id"
    with pytest.raises(InputError, match="ids of up to 1,024"):
        remote.add([{"id": "x" * 1_100, "text": "long"}])


def test_equal_similarities_come_in_any_order(place, at):
    names = [f"copy {i}" for i in range(60)]
    remote = at(place).add([{"id": name, "text": "the same"} for name in names[:40]])
    remote.add([{"id": name, "text": "the same"} for name in names[40:]]).add([{"id": "other", "text": "another"}])
    for k in (60, 7):
        found = [hit["id"] for hit in remote("the same", k=k)[0]]
        assert len(found) == len(set(found) & set(names)) == k
    remote.add([{"id": "copy 3", "text": "the same"}])
    assert {hit["id"] for hit in remote("the same", k=60, documents=True)[0]} == set(names)


@pytest.mark.parametrize("length", [1e-4, 1e4])
def test_short_and_long_vectors_are_ranked_as_here(place, at, length):
    rng = np.random.default_rng(0)
    vectors = (length * rng.standard_normal((40, 16))).astype(np.float32)
    vectors[30:] = vectors[5]
    documents = [{"id": f"d{i}", "text": f"text {i}"} for i in range(40)]
    local, remote = (one.add(documents, vectors=vectors) for one in (Retriever(HashEncoder()), at(place)))
    for asked in (vectors[:6], np.float32(1e-6) * vectors[:6], np.float32(1e20) * vectors[:6]):
        here, there = local(asked, k=40), remote(asked, k=40)
        for ours, theirs in zip(there, here, strict=True):
            assert [hit["id"] for hit in ours] == [hit["id"] for hit in theirs]
            expected = [hit["similarity"] for hit in theirs]
            np.testing.assert_allclose(
                [hit["similarity"] for hit in ours], expected, rtol=1e-5, atol=1e-5 * expected[0]
            )
            assert expected[0] > 0


def test_strings_and_their_numbers(place, at):
    remote = at(place).add(["zero", " one "]).add([{"id": 7, "text": "seven"}]).add(["eight"])
    assert [remote(text, k=1)[0][0]["id"] for text in ("zero", " one ", "seven", "eight")] == [0, 1, 7, 8]
    assert remote(" one ", k=1, documents=True)[0][0]["document"] == {"id": 1, "text": " one "}
    assert dict(zip(*[iter(x for row in remote.collection.rows() for x in row[:2])] * 2, strict=True))[1] == " one "


def test_documents_of_every_size(place, at):
    texts = ["short", "é" * 60_000, "owl " * 250_000, "half a pair: \ud83d", "🦉 \x00 \u2028"]
    remote = at(place).add([{"id": i, "text": text} for i, text in enumerate(texts)])
    found = {hit["id"]: hit["document"]["text"] for hit in remote("x", k=9, documents=True)[0]}
    assert [found[i] for i in range(len(texts))] == texts
    noise = np.random.default_rng(0).integers(33, 126, size=200_000).astype(np.uint8).tobytes().decode()
    with pytest.raises(InputError, match=r"row 1 \(id 'big'\): it takes .* Milvus holds 65,535"):
        remote.add([{"id": "new", "text": "fine"}, {"id": "big", "text": noise}])
    assert "new" not in remote


FILTERS = [
    {"legs": 4},
    {"legs": {">": 4}},
    {"legs": {">=": 4, "<": 5.5}},
    {"name": ["owls", "ants"], "wild": True},
    {"wild": False},
    {"wild": {"!=": True}},
    {"legs": {"!=": 4}},
    {"name": {"<": "c"}},
    {"name": {"!=": "owls"}},
    {"note": "ok"},
    {"note": 1},
    {"note": True},
    {"note": {"!=": 5}},
    {"nothing": 1},
    {"legs": []},
    {"legs": "4"},
    {"note": "é'\"\\ 日本"},
    {"big": 2**53 + 1},
    {"big": {">": 1e300}},
    {"big": {"<": -5}},
    {"with space": 1},
]


def test_metadata_filters(place, at, rows):
    notes = ["ok", 1, True, 1.0, "é'\"\\ 日本", None]
    bigs = [2**53, 2**53 + 1, -1e300, 1e301, "text", -6]
    documents = [
        {**row, "name": row["id"], "note": note, "big": big, "with space": number}
        for number, (row, note, big) in enumerate(zip(rows, notes, bigs, strict=True))
    ]
    local, remote = Retriever(HashEncoder()).add(documents), at(place).add(documents)
    for wanted in FILTERS:
        same(remote, local, ["about owls", "x"], k=10, filter=wanted, documents=True)
    assert [hit["id"] for hit in remote("about owls", k=9, filter={"legs": {">": 4}})[0]] == ["frogs", "wolves"]
    assert list(remote("x", filter={"nothing": 1})) == [[]]
    for wrong in (
        {'a"b': 1},
        {"name": "x" * 600},
        {"name": "\ud83d"},
        {"big": 2**70},
        {"legs": {"~": 1}},
        [],
        {"legs": None},
    ):
        with pytest.raises(InputError, match="filter="):
            remote("x", filter=wrong)


POOL = [
    0,
    1,
    -1,
    1.0,
    0.5,
    1e22,
    -1e-7,
    2**40,
    True,
    False,
    "",
    "a",
    "A",
    "ab",
    "é",
    "日本",
    "a'b",
    'a"b',
    "a\\b",
    "%_*",
    None,
]


def test_random_filters(place, at):
    rng = random.Random(0)
    documents = [
        {"id": i, "text": f"text {i}", **{name: rng.choice(POOL) for name in "xyz" if rng.random() < 0.8}}
        for i in range(80)
    ]
    local, remote = Retriever(HashEncoder()).add(documents), at(place).add(documents)
    values = [value for value in POOL if value is not None]
    for _ in range(80):
        wanted = {}
        for name in rng.sample("xyz", rng.randint(1, 3)):
            signs = rng.sample(["==", "!=", "<", "<=", ">", ">="], rng.randint(1, 2))
            several = rng.sample(values, rng.randint(1, 4))
            wanted[name] = rng.choice([rng.choice(values), several, {sign: rng.choice(values) for sign in signs}])
        same(remote, local, ["text 1"], k=99, filter=wanted)


def test_sparse_vectors(place, at):
    model = tiny_splade()
    documents = [{"id": f"d{i}", "text": text} for i, text in enumerate(sentences(60))]
    local, remote = Retriever(model), at(place, model)
    for retriever in (local, remote):
        retriever.add(documents[:50]).add(documents[50:]).remove(["d3", "d8"]).add([{"id": "d4", "text": "moss fern"}])
    same(remote, local, sentences(12, seed=1), k=80, documents=True)
    assert remote.collection.current.identity.index == "SPARSE_INVERTED_INDEX"
    empty = remote.encoder.encode_query(["owl", "bee"])
    empty.data[: empty.indptr[1]] = 0
    same(remote, local, empty, k=5)
    assert remote(empty, k=5)[0] == []
    reopened = at(place, model, load=True)
    same(reopened, local, ["owl bee"], k=5)


def test_a_sparse_document_without_a_term_is_there_and_never_found(place, at):
    model = tiny_splade()
    vectors = model.encode_document(["owl", "bee", "ant"])
    vectors.data[vectors.indptr[1] : vectors.indptr[2]] = 0
    remote = at(place, model).add([{"id": i, "text": "x"} for i in range(3)], vectors=vectors)
    assert len(remote) == 3
    assert 1 in remote
    assert {hit["id"] for hit in remote(["owl bee ant"], k=9)[0]} <= {0, 2}
    negative = vectors.copy()
    negative.data[:] = -1
    with pytest.raises(InputError, match="negative weight"):
        remote.add([{"id": i, "text": "x"} for i in range(3)], vectors=negative)


@pytest.mark.parametrize("size", [4, 40])
def test_a_contextual_model(place, at, size):
    model = tiny_model(context_size=size)
    documents = [{"id": f"d{i}", "text": text} for i, text in enumerate(sentences(30))]
    local, remote = Retriever(model).add(documents), at(place, model).add(documents)
    queries = sentences(5, seed=1)
    assert remote.context == local.context
    assert remote.encoder.fingerprint == local.encoder.fingerprint
    same(remote, local, queries, k=30)
    for spec in ("random", None, sentences(3, seed=2), "own"):
        assert remote.refresh(spec).context == local.refresh(spec).context
        same(remote, local, queries, k=30)
    assert at(place, model, load=True).context == local.context
    report = remote.context_report()
    assert report["source"] == "own"
    assert (report["drift"] is None) == (local.context_report()["drift"] is None)
    assert math.isclose(report["drift"].shift, local.context_report()["drift"].shift, abs_tol=1e-6)


def test_errors_are_those_of_an_index_on_this_machine(place, at, rows):
    remote = at(place)
    with pytest.raises(InputError, match="empty: add documents first"):
        remote("x")
    assert len(remote) == 0
    assert "owls" not in remote
    remote.add(rows)
    for wrong in (0, -1, 2.5, True, "3", None):
        with pytest.raises(InputError, match="k="):
            remote("x", k=wrong)
    with pytest.raises(InputError, match=r"query vectors have shape \(1, 5\)"):
        remote(np.zeros((1, 5)))
    with pytest.raises(InputError, match="not finite"):
        remote(np.full((1, 16), np.nan))
    with pytest.raises(InputError, match=r"1 of 2 ids .* first is 'unicorns'. Nothing was removed"):
        remote.remove(["owls", "unicorns"])
    with pytest.raises(InputError, match=r"id \['owls'\] is list"):
        remote.remove([["owls"]])
    with pytest.raises(ContextError, match="takes no context"):
        remote.refresh()
    assert list(remote([])) == []
    remote.remove(row["id"] for row in rows)
    with pytest.raises(InputError, match="empty: add documents first"):
        remote("x")
    assert len(remote.add(rows[:2])) == 2


def test_a_bad_call_leaves_the_server_as_it_was(place, at, rows):
    class Broken(HashEncoder):
        def encode_document(self, texts, *, show_progress=False):
            vectors = self.encode_query(texts)
            vectors[["bad" in text for text in texts]] = np.nan
            return vectors

    remote = at(place, Broken())
    with pytest.raises(InputError, match="not finite"):
        remote.add([{"id": 1, "text": "bad"}])
    assert remote.collection._connection.call("list_collections") == [], "the server has not heard of it"
    remote.add(rows)
    before = sorted(row[:2] for row in remote.collection.rows())
    for documents, error in [
        ([{"id": "new", "text": "fine"}, {"text": "no id"}], "document 1 has no field 'id'"),
        ([{"id": "new", "text": "a"}, {"id": "new", "text": "b"}], "document 1 has id 'new'"),
        ([{"id": "new", "text": "a"}, {"id": "x", "text": "bad"}], "vector of document 1 is not finite"),
        ([{"id": "new", "text": "a"}, {"id": "x", "text": "b", "y": {1, 2}}], "row 1 .*: field 'y'"),
    ]:
        with pytest.raises(InputError, match=error):
            remote.add(documents)
    with pytest.raises(InputError, match=r"shape \(1, 3\)"):
        remote.add([{"id": "new", "text": "a"}], vectors=np.zeros((1, 3)))
    assert sorted(row[:2] for row in remote.collection.rows()) == before


def test_what_a_server_cannot_hold_is_refused_before_anything_is_embedded(place, at, rows):
    with pytest.raises(ConfigError, match="'sparse-embed' model use an index on this machine"):
        at(place, tiny_sparse_embed()).add(rows)
    with pytest.raises(ConfigError, match="index=IVF_PQ is unknown"):
        at(place + "?index=IVF_PQ").add(rows)
    with pytest.raises(ConfigError, match="SPARSE_INVERTED_INDEX"):
        at(place + "?index=HNSW", tiny_splade()).add(rows)
    with pytest.raises(ConfigError, match="leave out path="):
        at(place, path="somewhere")


def test_joining_a_collection(place, at, rows):
    model = tiny_model()
    at(place, model, seed=3).add(rows)
    joined = at(place, model)
    assert len(joined) == 6
    assert joined.collection.settings.seed == 3
    assert len(joined.add([{"id": "new", "text": "about eels"}])) == 7
    with pytest.raises(MismatchError, match="key='id', not 'name'"):
        at(place, model, key="name")
    with pytest.raises(ConfigError, match="index=HNSV is unknown"):
        at(place + "?index=HNSV", load=True)
    with pytest.raises(ContextError, match="a context of its own"):
        at(place, model, context="random")
    assert at(place, model, context=joined.context).context == joined.context
    with pytest.raises(ContextError, match="a context of its own"):
        at(place, model, context=Context.null(model))
    with pytest.raises(MismatchError, match="fingerprint"):
        at(place, tiny_model(seed=1)).add(rows)
    with pytest.raises(MismatchError, match="fingerprint"):
        at(place, HashEncoder(), load=True)


def test_the_model_that_built_a_collection_is_named(place, at, rows, tmp_path):
    name = tiny_model_directory()
    at(place, name).add(rows)
    tiny_model(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(MismatchError, match=re.escape(f"was built by model {name} with fingerprint")):
        at(place, str(tmp_path / "other")).add(rows)


def test_opening_a_file_that_is_not_there_makes_none(tmp_path, at):
    with pytest.raises(StoreError, match=r"none\.db/documents does not exist"):
        at(str(tmp_path / "none.db"), load=True)
    assert not list(tmp_path.iterdir())


def test_a_file_is_opened_by_its_name_alone(tmp_path):
    place = str(tmp_path / "animals.db")  # Milvus Lite keeps a directory of that name
    with Retriever(HashEncoder(), index=place) as remote:
        remote.add(["owls", "bees"])
    with Retriever.load(place, model=HashEncoder()) as again, Retriever.open(place, HashEncoder()) as once_more:
        assert len(again) == len(once_more) == 2
        assert again("bees", k=1)[0][0]["id"] == once_more("bees", k=1)[0][0]["id"] == 1


def test_an_index_on_this_machine_may_have_the_name_of_a_file(tmp_path):
    with Retriever(HashEncoder(), path=tmp_path / "local.db") as local:
        local.add(["owls"])
    with Retriever.load(tmp_path / "local.db", model=HashEncoder()) as again:
        assert len(again) == 1


def test_save_leaves_the_address_and_load_follows_it(place, at, rows, tmp_path):
    remote = at(place)
    with pytest.raises(InputError, match="empty"):
        remote.save(tmp_path / "saved")
    remote.add(rows).save(tmp_path / "saved")
    opened = at(tmp_path / "saved", load=True)
    assert opened("about deer", k=1)[0][0]["id"] == "deer"
    assert repr(opened) == f"Retriever(6 documents, model='HashEncoder', index={place!r})"
    for again in (lambda: remote.save(tmp_path / "saved"), lambda: Retriever(HashEncoder(), path=tmp_path / "saved")):
        with pytest.raises(StoreError, match="holds an index already"):
            again()
