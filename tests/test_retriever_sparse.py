"""The Retriever around sparse vectors and term embeddings: the same promises as with dense ones."""

import logging

import numpy as np
import pytest
from scipy.sparse import coo_array

from cderetrieval import Retriever
from cderetrieval.errors import ConfigError, InputError, MismatchError
from cderetrieval.index.inverted import InvertedIndex
from cderetrieval.testing import HashEncoder, WordEncoder
from cderetrieval.types import Encoder
from cderetrieval.vectors import take

ANIMALS = ["owls", "bees", "deer", "ants", "frogs", "wolves"]
DOCUMENTS = [{"id": name, "text": f"about {name} and how {name} live"} for name in ANIMALS]
KINDS = ["sparse", "sparse-embed"]


@pytest.fixture(params=KINDS)
def encoder(request):
    return WordEncoder(request.param)


@pytest.fixture
def retriever(encoder):
    return Retriever(encoder).add(DOCUMENTS)


def ids(hits):
    return [[hit["id"] for hit in ranking] for ranking in hits]


def test_it_is_an_encoder_and_gets_the_inverted_index(encoder, retriever):
    assert isinstance(encoder, Encoder)
    assert ids(retriever(["deer", "wolves bite"], k=1)) == [["deer"], ["wolves"]]
    assert isinstance(retriever.collection.index(), InvertedIndex)
    assert repr(retriever) == "Retriever(6 documents, model='WordEncoder', index='auto')"


def test_only_documents_that_share_a_term_are_answers(retriever):
    assert [len(ranking) for ranking in retriever(["about", "bees", "nothing alike", "..."], k=1_000)] == [6, 1, 0, 0]
    assert list(retriever("...")) == [[]]
    assert retriever(["...", "bees"], k=3).to_frame()["query_id"].tolist() == [1]
    assert ids(retriever("about", k=10)) == [ANIMALS], "equal ones in order of insertion"


def test_similarities_are_those_of_the_vectors(encoder, retriever):
    query = encoder.encode_query(["how bees and ants live"])
    documents = encoder.encode_document([row["text"] for row in DOCUMENTS])
    for hit in retriever("how bees and ants live", k=6)[0]:
        row = take(documents, [ANIMALS.index(hit["id"])])
        if encoder.kind == "sparse":
            expected = (query @ row.T).toarray()[0, 0]
        else:
            ours, theirs = query.weights.indices, row.weights.indices
            pairs = [(i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs) if a == b]
            expected = sum(query.embeddings[i] @ row.embeddings[j] for i, j in pairs)
        assert hit["similarity"] == pytest.approx(float(expected), abs=1e-5)


def test_add_replace_remove(retriever):
    retriever.add([{"id": "deer", "text": "about elk"}, {"id": "eels", "text": "about eels"}])
    assert len(retriever) == 7
    assert ids(retriever(["elk", "deer", "eels"], k=3)) == [["deer"], [], ["eels"]]
    retriever.remove(["bees", "deer"])
    assert ids(retriever(["about", "bees"], k=9)) == [["owls", "ants", "frogs", "wolves", "eels"], []]
    assert retriever("eels", k=1, documents=True)[0][0]["document"] == {"id": "eels", "text": "about eels"}


def test_ready_vectors_of_documents_and_queries(encoder, retriever):
    vectors = encoder.encode_document([row["text"] for row in DOCUMENTS])
    queries = encoder.encode_query(["bees live", "owls"])
    ready = Retriever(encoder).add(DOCUMENTS, vectors=vectors)
    assert ready(queries) == retriever(["bees live", "owls"])
    if encoder.kind == "sparse":
        for form in (coo_array(queries), queries.tocsc(), queries.astype(np.float64)):
            assert ready(form) == retriever(["bees live", "owls"])
    before = list(ready(queries))
    for wrong, error, named in (
        (take(vectors, np.arange(5)), InputError, r"shape \(5, 4096\); 6 documents of this encoder need \(6, 4096\)"),
        (np.ones((6, 4096)), InputError, "document vectors are 'dense'"),
        (WordEncoder(encoder.kind, 4_000).encode_document(ANIMALS), MismatchError, "a vocabulary of 4096 terms"),
    ):
        with pytest.raises(error, match=named):
            ready.add([{**row, "text": "x"} for row in DOCUMENTS], vectors=wrong)
    for wrong, error, named in (
        (np.ones((1, 4096)), InputError, "query vectors are 'dense'.*this index holds 'sparse"),
        (WordEncoder(encoder.kind, 4_000).encode_query(["bees"]), MismatchError, "a vocabulary of 4096 terms"),
    ):
        with pytest.raises(error, match=named):
            ready(wrong)
    with pytest.raises(InputError, match=r"query vectors are 'sparse.*this index holds 'dense'"):
        Retriever(HashEncoder()).add(DOCUMENTS)(queries)
    assert list(ready(queries)) == before


def test_save_load_and_an_index_that_is_older(encoder, tmp_path, retriever):
    queries = ["about", "how bees live", "wolves"]
    retriever.save(tmp_path / "i")
    opened = Retriever.load(tmp_path / "i", model=encoder)
    assert list(opened(queries)) == list(retriever(queries))
    assert opened.collection.index().segments[0].postings.checksum is not None, "from the cache"
    opened.remove("owls").add([{"id": "eels", "text": "about eels"}])
    opened.collection.close()  # as a kill would: the cache is older than the store
    retriever.remove("owls").add([{"id": "eels", "text": "about eels"}])
    with Retriever.load(tmp_path / "i", model=encoder) as opened:
        assert list(opened(queries)) == list(retriever(queries))
        opened.add([{"id": "carp", "text": "about carp"}])
    assert ids(Retriever.load(tmp_path / "i", model=encoder)(["about"], k=9)) == [[*ANIMALS[1:], "eels", "carp"]]


def test_a_damaged_list_is_built_again_when_a_query_meets_it(encoder, tmp_path, retriever, caplog):
    retriever.save(tmp_path / "i")
    (path,) = (tmp_path / "i").glob("postings-*.bin")
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        caplog.clear()
        opened = Retriever.load(tmp_path / "i", model=encoder)
        assert list(opened(["about and how live", *ANIMALS])) == list(retriever(["about and how live", *ANIMALS]))
        assert "does not match its checksum" in caplog.text
        opened.collection.close()
    with Retriever.load(tmp_path / "i", model=encoder) as opened:
        opened.remove(["owls", "deer"])  # more than a fifth: the damaged lists are merged
        assert ids(opened("about")) == [["bees", "ants", "frogs", "wolves"]]
    caplog.clear()
    assert ids(Retriever.load(tmp_path / "i", model=encoder)("about")) == [["bees", "ants", "frogs", "wolves"]]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], "saved whole by close()"


def test_readers_see_each_commit(encoder, tmp_path):
    writer = Retriever(encoder, path=tmp_path / "i").add(DOCUMENTS[:3])
    reader = Retriever.load(tmp_path / "i", model=encoder)
    for change in (
        lambda: writer.add(DOCUMENTS[3:]),
        lambda: writer.remove(["owls", "bees"]),
        lambda: writer.add([{"id": "ants", "text": "now about eels"}]),
    ):
        change()
        assert list(reader(["about", "eels"], documents=True)) == list(writer(["about", "eels"], documents=True))


def test_another_vocabulary_or_kind_is_refused_by_name(encoder, tmp_path, retriever):
    retriever.save(tmp_path / "i")
    other = next(kind for kind in KINDS if kind != encoder.kind)
    for model, named in (
        (
            WordEncoder(encoder.kind, 5_000),
            "vocabulary of 4096 terms.*and WordEncoder makes .*vocabulary of 5000 terms",
        ),
        (WordEncoder(other), f"it holds {encoder.kind} vectors over .*, and WordEncoder makes {other} vectors"),
        (HashEncoder(), "and HashEncoder makes dense vectors of 16 dimensions"),
        (WordEncoder(encoder.kind, name="other tokenizer"), "weights, tokenizer, prompts or length limit differ"),
    ):
        with pytest.raises(MismatchError, match=named):
            Retriever.load(tmp_path / "i", model=model)


def test_a_faiss_index_of_sparse_vectors_is_refused(encoder):
    retriever = Retriever(encoder, index="HNSW32")
    with pytest.raises(ConfigError, match=r"index='HNSW32' is a FAISS index, and FAISS holds no sparse.*index='auto'"):
        retriever.add(DOCUMENTS)
    assert len(retriever) == 0


def test_a_few_empty_vectors_are_stored_with_a_warning(encoder, caplog):
    retriever = Retriever(encoder).add([*DOCUMENTS[:2], {"id": "-", "text": "-- ..."}, *DOCUMENTS[2:]])
    assert "1 of 7 documents have an all-zero sparse vector, the first is document 2" in caplog.text
    assert len(retriever) == 7
    assert "-" in retriever
    assert ids(retriever("about", k=10)) == [ANIMALS]
    caplog.clear()
    retriever.add([{"id": "-", "text": "bees"}])
    assert set(ids(retriever("bees", k=10))[0]) == {"-", "bees"}
    assert caplog.text == ""


def test_nothing_but_empty_vectors_is_an_error(retriever, monkeypatch, caplog):
    before = list(retriever("about"))
    with pytest.raises(InputError, match=r"vectors of documents 0 to 2 are all zero.*trained as a sparse encoder"):
        retriever.add(["...", "--", "?"])
    assert list(retriever("about")) == before
    monkeypatch.setattr("cderetrieval.retrieval.part.CHUNK", 2)
    retriever.add(["good", "words", "...", "--"])
    assert "the first is document 2" in caplog.text, "a last chunk without a word does not undo the others"


def test_a_vector_that_is_not_finite_leaves_all_as_it_was(encoder, retriever):
    class Broken(WordEncoder):
        def encode_document(self, texts, **_):
            vectors = super().encode_document(texts)
            values = vectors.embeddings if self.embedding_size else vectors.data
            if "broken" in texts:
                values[-1] = np.nan
            return vectors

    other = Retriever(Broken(encoder.kind)).add(DOCUMENTS)
    with pytest.raises(InputError, match="the vector of document 1 is not finite"):
        other.add([{"id": "x", "text": "fine"}, {"id": "y", "text": "broken"}])
    assert list(other("about")) == list(retriever("about"))
    assert len(other) == 6


def test_no_query_and_no_vector(encoder, retriever):
    assert list(retriever([])) == list(retriever(encoder.encode_query([]))) == []
    assert type(retriever("bees", k=1)[0][0]["similarity"]) is float
    with pytest.raises(InputError, match="queries is int"):
        retriever(7)


def test_a_filter_chooses_among_sparse_documents(encoder, tmp_path):
    documents = [{**row, "legs": 2 * len(row["id"])} for row in DOCUMENTS]
    retriever = Retriever(encoder).add(documents)
    assert ids(retriever("about", filter={"legs": 8})) == [["owls", "bees", "deer", "ants"]]
    assert ids(retriever(["wolves", "owls"], filter={"legs": {">": 8}})) == [["wolves"], []]
    retriever.save(tmp_path / "i")
    (path,) = (tmp_path / "i").glob("postings-*.bin")
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    opened = Retriever.load(tmp_path / "i", model=encoder)
    assert ids(opened("about", filter={"legs": 10})) == [["frogs"]], "a damaged index is built again here too"
