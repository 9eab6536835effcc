"""Documents that are longer than the model, on a server: found, shown, replaced and removed as on one machine."""

import json
import random

import pytest

from cderetrieval import Retriever
from cderetrieval.distributed import embed_corpus, index_vectors
from cderetrieval.errors import MismatchError, StoreError
from cderetrieval.milvus.remote import RemoteCollection
from cderetrieval.milvus.rows import owner_of
from cderetrieval.models.load import load as load_model
from cderetrieval.passages import Passages
from cderetrieval.testing import HashEncoder, tiny_dense_directory, tiny_model, tiny_splade

ANIMALS = ["owl", "bee", "fox", "cat", "dog", "elk", "ant", "cod"]
QUERIES = ["the owl saw cat 5", "bee", "tale 3 fox", "elk saw ant 20"]


def text_of(number, sentences):
    draw = random.Random(number)
    return " ".join(f"The {draw.choice(ANIMALS)} saw {draw.choice(ANIMALS)} {i}." for i in range(sentences))


DOCUMENTS = [
    {"id": f"d{i}" if i % 2 else i, "title": f"Tale {i}", "text": text_of(i, 1 + 7 * (i % 4)), "even": i % 2 == 0}
    for i in range(12)
]


@pytest.fixture(params=["dense", "contextual", "splade"])
def model(request):
    made = {"dense": lambda: load_model(tiny_dense_directory()), "contextual": tiny_model, "splade": tiny_splade}
    return made[request.param]()


def shown(hits):
    """Hits, equal similarities in one order: on a server they may come in any."""
    return sorted((-round(hit["similarity"], 4), repr({**hit, "similarity": 0})) for hit in hits)


def same(remote, local, **asked):
    """Whether two retrievers find the same."""
    for found, wanted in zip(remote(QUERIES, **asked), local(QUERIES, **asked), strict=True):
        scores = [[hit["similarity"] for hit in hits] for hits in (found, wanted)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        if asked["k"] == 200:  # else the last of equal ones may be others
            assert [name for _, name in shown(found)] == [name for _, name in shown(wanted)]


def first_words(text):
    return [(0, 7)]


@pytest.mark.parametrize("passages", ["auto", 20, first_words])
def test_answers_are_those_of_one_machine(place, model, passages):
    settings = {"passages": passages, "context_size": 8}
    local = Retriever(model, **settings).add(DOCUMENTS, show_progress=False)
    with Retriever(model, index=place, **settings) as remote:
        remote.add(DOCUMENTS, show_progress=False)
        assert len(remote) == 12
        for by in ("document", "passage"):
            for k in (1, 3, 12, 200):
                same(remote, local, k=k, by=by, passages=True)
        same(remote, local, k=5, filter={"even": True}, documents=True)
        shorter = [{**DOCUMENTS[3], "text": text_of(99, 3)}, {**DOCUMENTS[4], "text": text_of(98, 30)}]
        for one in (remote, local):
            one.add(shorter, show_progress=False).remove(["d7", 2])
        assert len(remote) == 10
        assert "d7" not in remote
        same(remote, local, k=200, by="passage")
        for one in (remote, local):
            if one.context is not None:
                one.refresh(show_progress=False)
    with Retriever.load(place, model=model, passages=passages if callable(passages) else None) as again:
        assert again.collection.passages.how == Passages.parse(passages).how
        same(again, local, k=200, by="passage", passages=True)
        again.add([DOCUMENTS[3]], show_progress=False)
        local.add([DOCUMENTS[3]], show_progress=False)
        same(again, local, k=200, by="passage", passages=True)
        again.remove([document["id"] for document in DOCUMENTS if document["id"] in again])
        assert len(again) == 0
        held = again.collection.current.collection
        assert held.search(again.encoder.encode_query(QUERIES[:1]), 10, width={})[0].ids == []


def test_documents_that_come_cut_and_functions(place):
    def lines(text):
        ends = [i for i, letter in enumerate(text) if letter == "."]
        return [(a, b + 1) for a, b in zip([0, *(end + 2 for end in ends)], ends, strict=False)]

    sections = [{"heading": "Birds", "text": "Owls hunt."}, "Bees hum."]
    with Retriever(HashEncoder(), index=place, passages="sections") as retriever:
        retriever.add([{"id": 7, "title": "Animals", "sections": sections}])
        hits = retriever("bees", k=5, by="passage")[0]
        assert {hit["passage"]["text"] for hit in hits} == {"Owls hunt.", "Bees hum."}
        assert {hit["passage"]["heading"] for hit in hits} == {"Animals > Birds", "Animals"}
    with Retriever(HashEncoder(), index=place + "2", passages=lines) as retriever:
        retriever.add([{"id": 1, "text": "Owls hunt. Bees hum. Foxes sleep."}])
        assert len(retriever("x", by="passage", k=9)[0]) == 3
    with Retriever.load(place + "2", model=HashEncoder()) as again, pytest.raises(MismatchError, match="a function"):
        again.add([{"id": 2, "text": "More. Text."}])
    with Retriever.load(place + "2", model=HashEncoder(), passages=lines) as again:
        assert len(again.add([{"id": 2, "text": "More. Text."}])("x", by="passage", k=9)[0]) == 5


def test_one_vector_a_document_stays_as_it_was(place):
    with Retriever(HashEncoder(), index=place, passages=None) as retriever:
        retriever.add(DOCUMENTS)
        assert retriever.collection.current.identity.format == 1
        assert "passages" not in retriever.collection.current.identity.to_dict()
    with Retriever(HashEncoder(), index=place, passages=20) as retriever:
        assert len(retriever.add(DOCUMENTS)("owl", by="passage", k=50)[0]) == 12


def test_a_change_that_was_cut_off_is_completed_by_the_same_call(place, monkeypatch):
    with Retriever(HashEncoder(), index=place, passages=10) as retriever:
        retriever.add(DOCUMENTS)
        rows = len(retriever("owl", by="passage", k=500)[0])
        shorter = [{**document, "text": "one owl"} for document in DOCUMENTS]
        monkeypatch.setattr(RemoteCollection, "upsert", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            retriever.add(shorter)
        monkeypatch.undo()
        assert len(retriever) == 12
        assert len(retriever.add(DOCUMENTS)("owl", by="passage", k=500)[0]) == rows
        assert len(retriever.add(shorter)("owl", by="passage", k=500)[0]) == 12


def test_folders_of_passages(place, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))
    settings = {"passages": 20, "block": 5, "show_progress": False}
    folder = embed_corpus(corpus, tmp_path / "v", HashEncoder(), **settings)
    local = index_vectors(folder, tmp_path / "index", model=HashEncoder(), show_progress=False)
    for _ in range(2):
        with index_vectors(folder, index=place, model=HashEncoder(), show_progress=False) as remote:
            same(remote, local, k=100, by="passage")
    plain = embed_corpus(corpus, tmp_path / "w", HashEncoder(), block=5, show_progress=False)
    with pytest.raises(MismatchError, match="was made with passages=20"):
        index_vectors(plain, index=place, model=HashEncoder(), show_progress=False)


def test_a_key_that_nobody_wrote():
    with pytest.raises(StoreError, match="did not write"):
        owner_of("px:s:d7")


def test_no_more_is_asked_for_than_is_needed(place, monkeypatch):
    """Documents of one passage cost one row each; once a document is known to have several, more rows are read.

    No change counts all documents: Milvus Lite takes 1.6 s to count 40,000.
    """
    asked = []
    search, fetch, count = RemoteCollection.search, RemoteCollection.fetch, RemoteCollection.count
    monkeypatch.setattr(RemoteCollection, "count", lambda *a, **o: asked.append("count") or count(*a, **o))
    monkeypatch.setattr(RemoteCollection, "search", lambda *a, **o: asked.append(a[2]) or search(*a, **o))
    monkeypatch.setattr(RemoteCollection, "fetch", lambda *a, **o: asked.append(a[2]) or fetch(*a, **o))
    short = [{"id": number, "text": text_of(number, 1)} for number in range(20)]
    with Retriever(HashEncoder(), index=place, passages=20) as retriever:
        retriever.add(short, show_progress=False)
        del asked[:]
        retriever.add(short[:5], show_progress=False)
        assert asked == [["passages"]], "whether they are there, with passages that must go"
        assert (retriever.last_change.added, retriever.last_change.replaced) == (0, 5)
        del asked[:]
        retriever.remove([7, 7, 8])
        assert asked == [[], ["passages"]], "whether they are there, then what must go with them"
        assert retriever.last_change.removed == 2
        retriever.add(short, show_progress=False)
        assert (retriever.last_change.added, retriever.last_change.replaced) == (2, 18)
        del asked[:]
        assert len(retriever("owl", k=5)[0]) == 5
        assert asked == [5]
    with Retriever.load(place, model=HashEncoder()) as writer, Retriever.load(place, model=HashEncoder()) as reader:
        reader("owl", k=5)
        writer.add([{"id": 3, "text": text_of(3, 30)}], show_progress=False)
        assert {hit["id"] for hit in reader("owl saw cat", k=20)[0]} == set(range(20))
        del asked[:]
        writer.add([{"id": 3, "text": text_of(3, 1)}], show_progress=False)
        assert asked == [["passages"]]
        assert {hit["id"] for hit in writer("owl saw cat", k=20)[0]} == set(range(20))
