"""The document store and retriever of Haystack: its own tests of stores, and what this package adds."""

import asyncio
import dataclasses

import pytest

from cderetrieval.errors import InputError
from cderetrieval.testing import tiny_model_directory

pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing import document_store as standard

from cderetrieval.integrations.haystack import CDEDocumentStore, CDERetriever

DOCUMENTS = [
    Document(id="owls", content="Owls hunt at night.", meta={"year": 2020}),
    Document(id="bees", content="Bees make honey.", meta={"year": 2021}),
]


@pytest.fixture(scope="module")
def model():
    return tiny_model_directory()


class TestStandard(
    standard.CountDocumentsTest,
    standard.WriteDocumentsTest,
    standard.DeleteDocumentsTest,
    standard.FilterDocumentsTest,
):
    @pytest.fixture
    def document_store(self, model):
        return CDEDocumentStore(model=model)

    def assert_documents_are_equal(self, received, expected):
        """Embeddings of other models are not kept."""
        assert received == [dataclasses.replace(one, embedding=None) for one in expected]

    def test_write_documents(self, document_store):
        assert document_store.write_documents(DOCUMENTS) == 2


@pytest.fixture
def store(model, tmp_path):
    store = CDEDocumentStore(str(tmp_path / "index"), model=model)
    store.write_documents(DOCUMENTS)
    return store


def test_a_pipeline_survives_being_written(store):
    pipeline = Pipeline()
    pipeline.add_component(
        "retriever", CDERetriever(store, top_k=1, filters={"field": "meta.year", "operator": ">", "value": 2020})
    )
    text = pipeline.dumps()
    store.retriever.close()
    again = Pipeline.loads(text, allowed_modules=["cderetrieval.integrations.haystack"])
    [found] = again.run({"retriever": {"query": "honey"}})["retriever"]["documents"]
    assert (found.id, found.content, found.meta) == ("bees", "Bees make honey.", {"year": 2021})
    assert found.score is not None


def test_run_and_run_async(store):
    retriever = CDERetriever(store, by="passage")
    asked = {"operator": "AND", "conditions": [{"field": "meta.year", "operator": "in", "value": [2020, 2019]}]}
    found = retriever.run("night", filters=asked)["documents"]
    assert [one.id for one in found] == ["owls"]
    assert asyncio.run(retriever.run_async("night", filters=asked))["documents"] == found


def test_filters(store):
    old = {"field": "meta.year", "operator": "<", "value": 2021}
    for word, ids in [("AND", {"owls"}), ("NOT", {"bees"}), ("OR", {"owls"})]:
        found = CDERetriever(store).run("night", filters={"operator": word, "conditions": [old]})["documents"]
        assert {one.id for one in found} == ids


def test_bad_input_is_named(store):
    retriever = CDERetriever(store)
    with pytest.raises(InputError, match="'OR' of 0 conditions"):
        retriever.run("night", filters={"operator": "OR", "conditions": []})
    with pytest.raises(InputError, match="'like' on 'year'"):
        retriever.run("night", filters={"field": "meta.year", "operator": "like", "value": 1})
    with pytest.raises(InputError, match="pass a CDEDocumentStore"):
        CDERetriever("index/")
    with pytest.raises(InputError, match="empty text"):
        store.write_documents([Document(content=None)], DuplicatePolicy.OVERWRITE)
