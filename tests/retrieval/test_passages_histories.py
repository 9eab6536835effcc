"""Passages after many changes, and in stores that were made up: checksums are right, and what they say cannot be."""

import json

import pytest

from cderetrieval import Hybrid, Retriever
from cderetrieval.errors import InputError, StoreError
from cderetrieval.store.codec import checksum
from cderetrieval.testing import HashEncoder

DOCUMENTS = [{"id": i, "passages": [f"owl {i}", f"bee {i}", "fox"][: 1 + i % 3]} for i in range(9)]


def made_up(collection, seq, count, spans):
    """Put a row of passages in the place of another, and all checksums right."""
    text = json.dumps(spans)
    with collection.transaction():
        collection._execute("DELETE FROM passages WHERE seq = ?", (seq,))
        row = (seq, count, text, checksum(f"{count}:{text}", seq))
        collection._execute("INSERT INTO passages VALUES (?, ?, ?, ?)", row)
        total, rows = 0, collection._execute("SELECT seq, count FROM passages")
        for number, size in rows:
            total ^= checksum(str(size), number)
        collection._set("cut", [len(rows), total])


@pytest.mark.parametrize(
    ("seq", "count"), [(2, 0), (2, -3), (2, 3), (2, 10**15), (2, 2**63 - 1), (3, 1), (99, 1), (99, 10**15)]
)
def test_counts_that_cannot_be(seq, count):
    def made():
        retriever = Retriever(HashEncoder()).add(DOCUMENTS, show_progress=False)
        made_up(retriever.collection, seq, count, [[0, 1, ""]] * 2)
        return retriever

    uses = [lambda index: index("owl", by="passage"), lambda index: index.collection.check()]
    if seq == 2 and count != 3:
        uses.append(lambda index: index.remove(1))
    for use in uses:
        with pytest.raises(StoreError, match="damaged"):
            use(made())


@pytest.mark.parametrize("span", [[-5, -1, ""], [3, 1, ""], ["a", 1, ""], [0, None, ""], [0, 1, 7], [0], [0, True, ""]])
def test_spans_that_cannot_be(span):
    retriever = Retriever(HashEncoder()).add(DOCUMENTS, show_progress=False)
    made_up(retriever.collection, 2, 2, [[0, 5, ""], span])
    for use in (lambda: retriever("owl", k=50, by="passage"), retriever.collection.check):
        with pytest.raises(StoreError, match="damaged"):
            use()


def test_passages_are_those_of_the_documents_after_changes():
    retriever = Retriever(HashEncoder()).add(DOCUMENTS, show_progress=False)
    retriever.remove([0, 4, 8]).add([{"id": 1, "passages": ["cat"] * 4}, {"id": 2, "text": "dog"}], show_progress=False)
    retriever("owl")
    known, collection = retriever.collection.known, retriever.collection
    for some in (known.seqs[:1], known.seqs[-1:], known.seqs[1::2], known.seqs):
        spans = collection.spans_of(some)
        wanted = [seq + i for seq in some.tolist() for i in range(len(spans.get(seq, [0])))]
        assert known.passages_of(some).tolist() == wanted
    collection.check()


def test_a_model_of_words_beside_others_shows_its_best_passage():
    """It ranks whole documents, and so cannot rank passages."""
    filler = " ".join(f"Filler {i}." for i in range(40))
    documents = [{"id": 1, "text": f"{filler} The owl hunts. {filler}"}, {"id": 2, "text": "Bees."}]
    retriever = Retriever({"hash": HashEncoder(), "words": "bm25"}, passages=20).add(documents, show_progress=False)
    (hit,) = retriever.parts["words"]("owl", passages=True)[0]
    assert "owl" in hit["passage"]["text"]
    with pytest.raises(InputError, match="whole documents"):
        retriever.parts["words"]("owl", by="passage")
    hits = Retriever({"a": "bm25", "b": "bm25"}, passages=20).add(documents)("owl", passages=True)[0]
    assert "owl" in hits[0]["passage"]["text"]


def test_the_vector_of_a_first_passage_is_not_taken_for_that_of_the_document():
    ready = Retriever(HashEncoder()).add(DOCUMENTS, show_progress=False)
    with pytest.warns(DeprecationWarning, match="ready retrievers"):
        hybrid = Hybrid({"a": ready, "b": "bm25"})
    whole = Retriever(HashEncoder(), passages=None)
    whole.add([{"id": one["id"], "text": "\n\n".join(one["passages"])} for one in DOCUMENTS], show_progress=False)
    assert hybrid.parts["a"]("owl", k=9) == whole("owl", k=9)
    ready = Retriever(HashEncoder()).add([{"id": 1, "text": "owls hunt"}], show_progress=False)
    with pytest.warns(DeprecationWarning, match="ready retrievers"):
        assert len(Hybrid({"a": ready, "b": "bm25"})) == 1


class Lists(HashEncoder):
    """Returns lists, as an encoder of a user's may."""

    def encode_document(self, texts, *, show_progress=False):
        return super().encode_document(texts).tolist()


def test_an_encoder_may_return_lists():
    found = [Retriever(encoder).add(DOCUMENTS, show_progress=False)("owl") for encoder in (Lists(), HashEncoder())]
    assert found[0] == found[1]
