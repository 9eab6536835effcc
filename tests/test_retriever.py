"""The Retriever in memory: documents in, answers out, and errors that leave it as it was."""

import math

import numpy as np
import pandas as pd
import pytest

from cderetrieval import Hits, Retriever
from cderetrieval.documents import document_rows
from cderetrieval.errors import ConfigError, ContextError, InputError, ModelError
from cderetrieval.testing import HashEncoder, tiny_model
from cderetrieval.types import Encoder

ANIMALS = ["owls", "bees", "deer", "ants", "frogs", "wolves"]


def rows(names=ANIMALS):
    return [{"id": name, "text": f"about {name}", "legs": len(name)} for name in names]


@pytest.fixture
def retriever():
    return Retriever(HashEncoder()).add(rows())


def ids(hits):
    return [[hit["id"] for hit in ranking] for ranking in hits]


def state(retriever):
    """What a failed call must leave as it was."""
    store = retriever.collection
    answers = retriever([f"about {name}" for name in ANIMALS], k=20, documents=True)
    return len(retriever), store.generation, store.epoch, list(answers), store.get_setting("next_id")


def test_an_encoder_is_any_class_with_the_protocol(retriever):
    assert isinstance(HashEncoder(), Encoder)
    assert ids(retriever("about deer", k=1)) == [["deer"]]
    assert retriever("about deer", k=1)[0][0]["similarity"] == 1.0
    assert ids(retriever([f"about {name}" for name in ANIMALS], k=1)) == [[name] for name in ANIMALS]
    assert repr(retriever) == "Retriever(6 documents, model='HashEncoder', index='auto')"


@pytest.mark.parametrize(
    "documents",
    [
        rows(),
        iter(rows()),
        pd.DataFrame(rows()),
        [{"_id": row["id"], "title": "", "text": row["text"]} for row in rows()],
        {row["id"]: {"title": "about", "text": row["id"]} for row in rows()},
    ],
    ids=["list", "iterator", "frame", "BEIR", "dictionary"],
)
def test_documents_in_every_form_give_the_same_answers(documents, retriever):
    other = Retriever(HashEncoder()).add(documents)
    assert other(["about bees", "owls"]) == retriever(["about bees", "owls"])


def test_ids_of_every_json_type_come_back_as_they_went_in():
    given = ["1", 1, 1.5, True, 10**30, "", "naïve 🦉 \ud83d", -7]
    retriever = Retriever(HashEncoder()).add([{"id": i, "text": f"text {n}"} for n, i in enumerate(given)])
    found = [retriever(f"text {n}", k=1)[0][0]["id"] for n in range(len(given))]
    assert found == given
    assert [type(i) for i in found] == [type(i) for i in given]
    assert all(i in retriever for i in given)
    assert np.int64(1) in retriever
    assert len(retriever.remove(given[:4])) == 4
    frame = pd.DataFrame({"id": np.arange(3), "text": ["a", "b", "c"]})
    assert type(Retriever(HashEncoder()).add(frame)("b", k=1)[0][0]["id"]) is int


def test_strings_get_numbers_that_no_document_has():
    retriever = Retriever(HashEncoder()).add(["zero", "one"]).add([{"id": 7, "text": "seven"}]).add(["eight"])
    assert [retriever(text, k=1)[0][0]["id"] for text in ("zero", "one", "seven", "eight")] == [0, 1, 7, 8]
    retriever.remove([8]).add(["nine"])
    assert ids(retriever("nine", k=1)) == [[9]]
    assert retriever("one", k=1, documents=True)[0][0]["document"] == {"id": 1, "text": "one"}


def test_a_repeated_id_replaces_and_a_removed_one_can_come_back(retriever):
    retriever.add([{"id": "deer", "text": "about elk", "legs": 4}])
    assert len(retriever) == 6
    assert ids(retriever(["about elk"], k=1)) == [["deer"]]
    assert retriever("about deer", k=1)[0][0]["similarity"] < 1
    assert retriever("about elk", k=1, documents=True)[0][0]["document"]["legs"] == 4
    retriever.remove("deer").remove(["bees", "ants"])
    assert len(retriever) == 3
    assert "deer" not in retriever
    assert set(ids(retriever("about elk", k=10))[0]) == {"owls", "frogs", "wolves"}
    retriever.add([{"id": "deer", "text": "about deer"}])
    assert ids(retriever("about deer", k=1)) == [["deer"]]
    retriever.remove(name for name in ["deer", "owls", "frogs", "wolves"])
    with pytest.raises(InputError, match="empty: add documents first"):
        retriever("about deer")
    assert ids(retriever.add(rows(["bees"]))("x")) == [["bees"]]


def test_equal_similarities_stand_in_order_of_insertion():
    names = [f"copy {i}" for i in range(30)]
    retriever = Retriever(HashEncoder()).add([{"id": name, "text": "the same"} for name in names])
    assert ids(retriever(["the same", "another"], k=30)) == [names, names]
    assert ids(retriever("the same", k=7)) == [names[:7]]
    retriever.add([{"id": "copy 3", "text": "the same", "new": True}, {"id": "copy 4", "text": "the same"}])
    assert ids(retriever("the same", k=30)) == [names]  # the text is as it was
    retriever.remove("copy 3").add([{"id": "copy 3", "text": "the same"}])
    assert ids(retriever("the same", k=30)) == [[name for name in names if name != "copy 3"] + ["copy 3"]]


def test_k(retriever):
    assert [len(ranking) for ranking in retriever(["a", "b"], k=1000)] == [6, 6]
    assert len(retriever("a", k=np.int64(2))[0]) == 2
    similarities = [hit["similarity"] for hit in retriever("a", k=6)[0]]
    assert similarities == sorted(similarities, reverse=True)
    for k in (0, -1, 2.5, True, "3", None):
        with pytest.raises(InputError, match="k="):
            retriever("a", k=k)


def test_hits_and_what_they_become(retriever, tmp_path):
    hits = retriever({"q1": "about bees", "q2": "about owls"}, k=2)
    assert isinstance(hits, Hits)
    assert hits.query_ids == ["q1", "q2"]
    assert set(hits[0][0]) == {"id", "similarity"}
    frame = hits.to_frame()
    assert list(frame.columns) == ["query_id", "rank", "id", "similarity"]
    assert list(frame["rank"]) == [1, 2, 1, 2]
    run = hits.to_run()
    assert list(run) == ["q1", "q2"]
    assert max(run["q1"], key=run["q1"].get) == "bees"
    hits.to_trec(tmp_path / "run.txt", tag="hash")
    first = (tmp_path / "run.txt").read_text().splitlines()[0].split()
    assert first == ["q1", "Q0", "bees", "1", "1.000000", "hash"]
    assert list(retriever([])) == []
    assert list(retriever([]).to_frame().columns) == ["query_id", "rank", "id", "similarity"]
    assert retriever("about bees", k=1, documents=True)[0][0]["document"] == rows(["bees"])[0]


def test_ready_vectors(retriever):
    encoder = HashEncoder()
    ready = Retriever(encoder).add(rows(), vectors=encoder.encode_document([row["text"] for row in rows()]))
    queries = encoder.encode_query(["about bees", "owls"])
    assert ready(queries) == retriever(["about bees", "owls"])
    assert ready(queries.astype(np.float64)) == ready(queries)
    for wrong in (queries[0], queries[:, :5], np.full((1, 16), np.nan)):
        with pytest.raises(InputError):
            ready(wrong)


class Broken(HashEncoder):
    """Answers well until `broken` says how not to."""

    broken = None

    def encode_document(self, texts, *, show_progress=False):
        vectors = self.encode_query(texts)
        if self.broken == "nan":
            vectors[1] = np.nan
        if self.broken == "short":
            return vectors[:, :5]
        if self.broken == "raise":
            raise KeyboardInterrupt
        return vectors


@pytest.mark.parametrize(
    ("documents", "error", "named"),
    [
        ([{"id": "new", "text": "fine"}, {"text": "no id"}], InputError, "document 1 has no field 'id'"),
        ([{"id": "new", "text": "fine"}, {"id": "owls"}], InputError, "document 1 has no field 'text'"),
        ([{"id": "new", "text": "fine"}, {"id": "x", "text": ""}], InputError, "document 1 .* empty text"),
        ([{"id": "new", "text": "fine"}, {"id": "x", "text": 7}], InputError, "document 1: field 'text' is int"),
        ([{"id": "new", "text": "a"}, {"id": "new", "text": "b"}], InputError, "document 1 has id 'new'"),
        ([{"id": "new", "text": "a"}, {"id": "x", "text": "b", "y": {1, 2}}], InputError, "row 1: field 'y'"),
        ([{"id": "new", "text": "a"}, {"id": "\ud83d\ude00", "text": "b"}], InputError, "row 1: .*surrogate"),
        ([], InputError, "empty collection"),
        ("text", InputError, "one string"),
        ((1 / n for n in (1, 0)), InputError, "document 0 is float"),
        (({"id": n, "text": f"{1 / n}"} for n in (1, 0)), ZeroDivisionError, "division"),
    ],
)
def test_an_error_in_add_leaves_everything_as_it_was(documents, error, named, retriever):
    before = state(retriever)
    with pytest.raises(error, match=named):
        retriever.add(documents)
    assert state(retriever) == before


@pytest.mark.parametrize(
    ("broken", "error", "named"),
    [
        ("nan", InputError, "the vector of document 1 is not finite"),
        ("short", InputError, r"shape \(2, 5\); 2 documents of this encoder need \(2, 16\)"),
        ("raise", KeyboardInterrupt, None),
    ],
)
def test_a_model_that_fails_leaves_everything_as_it_was(broken, error, named):
    encoder = Broken()
    retriever = Retriever(encoder).add(rows())
    before = state(retriever)
    encoder.broken = broken
    with pytest.raises(error, match=named):
        retriever.add([{**row, "text": f"{row['text']} anew"} for row in rows(["owls", "eels"])])
    assert state(retriever) == before
    encoder.broken = None
    assert len(retriever.add(rows(["eels"]))) == 7


def test_the_row_of_a_bad_vector_is_counted_over_all_chunks(monkeypatch):
    monkeypatch.setattr("cderetrieval.retrieval.part.CHUNK", 2)

    class Late(HashEncoder):
        def encode_document(self, texts, *, show_progress=False):
            if "about wolves" in texts:
                raise ModelError(f"not finite for text {texts.index('about wolves')}")
            vectors = self.encode_query(texts)
            vectors[[text == "about frogs" for text in texts]] = np.inf
            return vectors

    with pytest.raises(InputError, match="vector of document 4"):
        Retriever(Late()).add(rows(ANIMALS[:5]))
    with pytest.raises(ModelError, match="documents 4 to 5: not finite for text 1"):
        Retriever(Late()).add(rows())


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda r: r.remove(["owls", "unicorns"]), "1 of 2 ids .* first is 'unicorns'. Nothing was removed"),
        (lambda r: r.remove([["owls"]]), "id \\['owls'\\] is list"),
        (lambda r: r.remove(b"owls"), "id b'owls' is bytes"),
        (lambda r: r.add(rows(["eels"]), vectors=np.zeros((2, 16))), r"shape \(2, 16\); 1 documents"),
        (lambda r: r.add(rows(["eels"]), vectors=np.full((1, 16), np.nan)), "document 0 is not finite"),
        (lambda r: r.add(rows(["eels"]), vectors=np.zeros((1, 3))), r"need \(1, 16\)"),
        (lambda r: r(["a", ""]), "query 1 is empty"),
        (lambda r: r(["a", None]), "query 1 is NoneType"),
        (lambda r: r(7), "queries is int"),
        (lambda r: r.refresh(), "takes no context"),
        (lambda r: r.context_report(), "has no context"),
    ],
)
def test_other_errors_leave_everything_as_it_was(call, named, retriever):
    before = state(retriever)
    with pytest.raises((InputError, ContextError), match=named):
        call(retriever)
    assert state(retriever) == before


def test_settings_are_checked():
    for settings, named in [({"key": ""}, "key=''"), ({"on": []}, "on="), ({"context_size": 0}, "context_size=0")]:
        with pytest.raises(ConfigError, match=named):
            Retriever(HashEncoder(), **settings)
    with pytest.raises(ConfigError, match="'Flatt' is no FAISS index"):
        Retriever(HashEncoder(), index="Flatt").add(rows())
    with pytest.raises(ContextError, match="not contextual"):
        Retriever(HashEncoder(), context="random").add(rows())
    with pytest.raises(InputError, match="empty: add documents first"):
        Retriever(HashEncoder())("a")


@pytest.mark.parametrize("index", ["Flat", "HNSW16", "IVF4,SQ8"])
def test_other_indexes_find_the_same_first(index):
    names = [f"document {i}" for i in range(400)]
    retriever = Retriever(HashEncoder(), index=index).add([{"id": i, "text": name} for i, name in enumerate(names)])
    retriever.remove(range(50)).add([{"id": 400, "text": "one more"}])
    assert ids(retriever([names[77], "one more"], k=1)) == [[77], [400]]
    found = ids(retriever(names[50:100], k=20))
    assert [ranking[0] for ranking in found] == list(range(50, 100))
    assert not {i for ranking in found for i in ranking} & set(range(50))


def test_a_text_of_a_million_characters_and_odd_unicode(caplog):
    caplog.set_level("INFO", logger="cderetrieval")
    odd = ["owl " * 250_000, "half a pair: \ud83d", "🦉 العربية 日本語 \x00 \u2028"]
    retriever = Retriever(tiny_model(), context=None, passages=None)
    retriever.add([{"id": i, "text": text} for i, text in enumerate(odd)])
    assert "1 of 3 texts were cut at 64 tokens" in caplog.text
    assert retriever("x", k=3, documents=True)[0][0]["document"]["text"] in odd
    payloads = {hit["id"]: hit["document"]["text"] for hit in retriever("\ud83d", k=3, documents=True)[0]}
    assert [payloads[i] for i in range(3)] == odd


def test_similarities_are_those_of_the_vectors(retriever):
    encoder = HashEncoder()
    texts = {row[0]: row[1] for row in document_rows(rows(), "id", None)}
    query = encoder.encode_query(["what about bees"])[0]
    for hit in retriever("what about bees")[0]:
        assert math.isclose(hit["similarity"], encoder.encode_document([texts[hit["id"]]])[0] @ query, abs_tol=1e-6)
