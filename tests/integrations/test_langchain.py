"""The vector store of LangChain: its own standard tests, and what this package adds."""

import asyncio

import pytest

from cderetrieval import Retriever
from cderetrieval.errors import InputError
from cderetrieval.testing import HashEncoder, WordEncoder

pytest.importorskip("langchain_core")
standard = pytest.importorskip("langchain_tests.integration_tests")

from langchain_core.documents import Document

from cderetrieval.integrations.langchain import CDEEmbeddings, CDEVectorStore

DOCUMENTS = [
    Document("Owls hunt at night.", id="owls", metadata={"year": 2020, "title": "Owls"}),
    Document("Bees make honey.\n\nThey dance to show the way.", id="bees", metadata={"year": 2021, "title": "Bees"}),
]


class TestStandard(standard.VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return CDEVectorStore(Retriever(HashEncoder(), key="_key"))  # the tests have a metadata field "id"


@pytest.fixture
def store():
    retriever = Retriever(
        HashEncoder(), passages=lambda text: [(0, 16), (18, len(text))] if "\n\n" in text else [(0, len(text))]
    )
    store = CDEVectorStore(retriever)
    assert store.add_documents(DOCUMENTS) == ["owls", "bees"]
    return store


def test_the_best_passage_is_found_with_its_place(store):
    found = store.similarity_search("They dance to show the way.", k=1)
    assert found == [
        Document(
            "They dance to show the way.",
            id="bees",
            metadata={"heading": "Bees", "start": 18, "end": 45, "year": 2021, "title": "Bees"},
        )
    ]


def test_passages_have_ids_of_their_own(store):
    found = store.similarity_search("Bees make honey.", k=5, by="passage")
    assert {one.id for one in found} == {"owls", "bees#0", "bees#18"}


def test_whole_documents(store):
    whole = CDEVectorStore(store.retriever, whole=True)
    assert set(map(repr, whole.similarity_search("honey", k=2))) == set(map(repr, DOCUMENTS))


def test_a_filter_and_scores(store):
    [(document, score)] = store.similarity_search_with_score("honey", filter={"year": {"<": 2021}})
    assert document == DOCUMENTS[0]
    assert isinstance(score, float)
    assert all(0 <= score <= 1 for _, score in store.similarity_search_with_relevance_scores("honey"))


def test_as_a_retriever_and_asynchronously(store):
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"year": 2020}})
    assert retriever.invoke("night") == [DOCUMENTS[0]] == asyncio.run(retriever.ainvoke("night"))
    diverse = store.as_retriever(search_type="mmr", search_kwargs={"k": 2})
    assert {one.id for one in diverse.invoke("night")} == {"owls", "bees"}


def test_ids_of_an_index_that_was_made_elsewhere():
    store = CDEVectorStore(Retriever(HashEncoder()).add([{"id": 7, "text": "owls"}, {"id": 8, "text": "bees"}]))
    assert store.get_by_ids(["7"]) == [Document("owls", id="7")]
    store.delete(["7", "9"])
    assert len(store.retriever) == 1
    store.delete()
    assert store.similarity_search("owls") == []


def test_from_texts_and_embeddings():
    store = CDEVectorStore.from_texts(["owls", "bees"], metadatas=[{"n": 1}, {"n": 2}], model=HashEncoder())
    assert [one.metadata for one in store.similarity_search("bees", k=1)] == [{"n": 2}]
    embeddings = store.embeddings
    assert embeddings.embed_query("owls") == embeddings.embed_documents(["bees", "owls"])[1]


def test_bad_input_is_named(store):
    with pytest.raises(InputError, match=r"document 0 has the field 'id'.*holds the document's id"):
        store.add_documents([Document("text", metadata={"id": 1})])
    with pytest.raises(InputError, match="1 ids for 2 documents"):
        store.add_documents(DOCUMENTS, ids=["a"])
    with pytest.raises(InputError, match="pass embedding=None"):
        CDEVectorStore.from_texts(["a"], CDEEmbeddings(HashEncoder()))
    with pytest.raises(InputError, match="pass a Retriever"):
        CDEVectorStore("index/")
    sparse = CDEVectorStore(Retriever(WordEncoder()).add(["owls"]))
    with pytest.raises(InputError, match="no scale from 0 to 1"):
        sparse.similarity_search_with_relevance_scores("owls")
    with pytest.raises(InputError, match="one dense model"):
        sparse.max_marginal_relevance_search("owls")
