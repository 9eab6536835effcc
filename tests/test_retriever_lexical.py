import logging

import numpy as np
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from cderetrieval import Retriever
from cderetrieval.errors import ConfigError, ContextError, InputError, MismatchError
from cderetrieval.models.bm25 import BM25

DOCUMENTS = [
    {"id": "a", "title": "Owls", "text": "hunt at night"},
    {"id": "b", "title": "Bees", "text": "make honey"},
    {"id": 3, "title": None, "text": "The owl and the bee, honey."},
]


def ids(hits):
    return [[hit["id"] for hit in ranking] for ranking in hits]


@pytest.fixture
def retriever():
    return Retriever("bm25").add(DOCUMENTS)


def test_add_remove_replace_and_search(retriever):
    assert ids(retriever(["who makes honey?", "an owl at night", "zebra"])) == [["b", 3], ["a", 3], []]
    assert retriever("honey", k=1, documents=True)[0][0]["document"] == DOCUMENTS[1]
    retriever.add([{"id": "b", "text": "wasps"}])
    assert ids(retriever(["honey", "wasp"])) == [[3], ["b"]]
    retriever.remove([3])
    assert ids(retriever(["honey"], k=5)) == [[]]
    assert len(retriever) == 2


def test_scores_do_not_depend_on_history(retriever):
    retriever.add([{"id": "gone", "text": "owl honey"}, {"id": "b", "text": "nothing"}]).remove("gone")
    retriever.add([DOCUMENTS[1]])
    fresh = Retriever("bm25").add([DOCUMENTS[0], DOCUMENTS[2], DOCUMENTS[1]])
    for query in ("owl honey", "night", "make"):
        assert retriever(query) == fresh(query)


def test_save_load_and_several_retrievers(retriever, tmp_path):
    retriever.save(tmp_path / "index")
    expected = retriever(["owl honey", "night"])
    with Retriever.load(tmp_path / "index") as loaded, Retriever.load(tmp_path / "index") as reader:
        assert loaded(["owl honey", "night"]) == expected
        assert loaded.encoder.fingerprint == BM25().fingerprint
        assert reader("wasp") == [[]]
        loaded.add([{"id": "w", "text": "Wasps sting."}])
        assert ids(reader("wasp")) == [["w"]]
    with Retriever.load(tmp_path / "index") as again:
        assert ids(again(["wasp"])) == [["w"]]


def test_opening_neither_reads_texts_nor_weighs_words(retriever, tmp_path, monkeypatch):
    retriever.save(tmp_path / "index")
    expected = retriever(["owl honey", "night"])
    monkeypatch.setattr(BM25, "encode_document", lambda *_, **__: pytest.fail("texts were read again"))
    with Retriever.load(tmp_path / "index") as loaded:
        assert loaded(["owl honey", "night"]) == expected
    monkeypatch.undo()
    with Retriever.load(tmp_path / "index") as loaded, Retriever.load(tmp_path / "index") as reader:
        assert reader(["owl honey", "night"]) == expected  # its files are mapped
        loaded.remove(3).save(loaded.path)
        loaded.add([DOCUMENTS[2]]).save(loaded.path)
        assert reader(["owl honey"]) == loaded(["owl honey"])
    assert len(list((tmp_path / "index").glob("weights-*"))) == 1


def test_a_saved_index_that_does_not_fit_is_not_believed(retriever, tmp_path, caplog, monkeypatch):
    retriever.save(tmp_path / "index")
    expected = retriever(["owl honey", "night"])
    [data] = (tmp_path / "index").glob("weights-*/data*")
    good = data.read_bytes()
    for bad in (good[:-8], good[:-1] + bytes([good[-1] ^ 1]), b""):
        data.write_bytes(bad)
        with Retriever.load(tmp_path / "index") as loaded:
            assert loaded(["owl honey", "night"]) == expected
        assert "does not match its checksum" in caplog.text
        caplog.clear()
    data.write_bytes(good)
    monkeypatch.setattr(BM25, "versions", lambda self: {"bm25s": "999"})
    with Retriever.load(tmp_path / "index") as loaded:
        assert loaded(["owl honey", "night"]) == expected
    assert "its versions is" in caplog.text


def test_another_language_is_another_model(retriever, tmp_path):
    retriever.save(tmp_path / "index")
    with pytest.raises(MismatchError, match="built by model bm25"):
        Retriever.load(tmp_path / "index", model="bm25:german")


def test_documents_without_words_are_stored_and_never_found(caplog):
    with caplog.at_level(logging.WARNING):
        retriever = Retriever("bm25").add(["the", "?!", "owls"])
    assert len(retriever) == 3
    assert ids(retriever(["owl", "the ?!"])) == [[2], []]
    assert ids(Retriever("bm25").add(["the"])("the")) == [[]]


def test_bad_input(retriever):
    with pytest.raises(InputError, match="queries are ndarray; a lexical index has no vectors"):
        retriever(np.ones((1, 3)))
    with pytest.raises(InputError, match=r"BM25 has no vectors: leave out vectors="):
        retriever.add([{"id": "x", "text": "x"}], vectors=np.ones((1, 3)))
    assert "x" not in retriever
    with pytest.raises(ConfigError, match="index='HNSW32' is a FAISS index, and this model has no vectors"):
        Retriever("bm25", index="HNSW32").add(DOCUMENTS)
    with pytest.raises(ContextError, match="not contextual"):
        Retriever("bm25", context="random").add(DOCUMENTS)
    with pytest.raises(ContextError, match="takes no context"):
        retriever.refresh()
