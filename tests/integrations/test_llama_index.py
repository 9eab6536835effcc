"""The retriever of LlamaIndex."""

import asyncio

import pytest

from cderetrieval import Retriever
from cderetrieval.errors import InputError
from cderetrieval.testing import HashEncoder

pytest.importorskip("llama_index.core")

from llama_index.core import Document
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from cderetrieval.integrations.llama_index import CDERetriever

DOCUMENTS = [
    Document(id_="owls", text="Owls hunt at night.", metadata={"year": 2020}),
    Document(id_="bees", text="Bees make honey.\n\nThey dance to show the way.", metadata={"year": 2021}),
]


def halves(text):
    return [(0, 16), (18, len(text))] if "\n\n" in text else [(0, len(text))]


@pytest.fixture
def retriever():
    retriever = Retriever(HashEncoder(), passages=halves)
    CDERetriever(retriever).add(DOCUMENTS)
    return retriever


def test_the_best_passage_is_found_with_its_place(retriever):
    [found] = CDERetriever(retriever, similarity_top_k=1).retrieve("They dance to show the way.")
    assert found.text == "They dance to show the way."
    assert (found.node.ref_doc_id, found.node.start_char_idx, found.node.end_char_idx) == ("bees", 18, 45)
    assert found.metadata == {"year": 2021}
    assert found.score > 0.5


def test_passages_of_one_document_are_nodes_of_their_own(retriever):
    found = CDERetriever(retriever, by="passage").retrieve("honey")
    assert {one.node_id for one in found} == {"owls", "bees#0", "bees#18"}


def test_asynchronously_and_whole(retriever):
    [first, _] = asyncio.run(CDERetriever(retriever, whole=True).aretrieve(DOCUMENTS[1].text))
    assert {first.text, _.text} == {one.text for one in DOCUMENTS}


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"year": 2020}, ["owls"]),
        ([MetadataFilter(key="year", value=2020, operator=FilterOperator.GT)], ["bees"]),
        ([MetadataFilter(key="year", value=[2020, 1999], operator=FilterOperator.IN)], ["owls"]),
        ([MetadataFilters(filters=[MetadataFilter(key="year", value=2021)])], ["bees"]),
    ],
)
def test_filters(retriever, filters, ids):
    given = MetadataFilters(filters=filters) if isinstance(filters, list) else filters
    assert [one.node.ref_doc_id or one.node_id for one in CDERetriever(retriever, filters=given).retrieve("x")] == ids


def test_a_query_engine(retriever):
    synthesizer = get_response_synthesizer(llm=MockLLM(), response_mode=ResponseMode.COMPACT)
    engine = RetrieverQueryEngine(CDERetriever(retriever, similarity_top_k=1), response_synthesizer=synthesizer)
    assert "Owls hunt at night." in str(engine.query("Owls hunt at night."))


def test_delete_and_bad_input(retriever):
    CDERetriever(retriever).delete(["bees", "nobody"])
    assert len(retriever) == 1
    with pytest.raises(InputError, match="'text_match' on 'a'"):
        CDERetriever(
            retriever, filters=MetadataFilters(filters=[MetadataFilter(key="a", value="b", operator="text_match")])
        )


def test_filters_of_several_conditions(retriever):
    years = [MetadataFilter(key="year", value=year) for year in (2020, 1999)]
    either = MetadataFilters(filters=years, condition=FilterCondition.OR)
    assert [one.node_id for one in CDERetriever(retriever, filters=either).retrieve("x")] == ["owls"]
