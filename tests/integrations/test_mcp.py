"""The MCP server, asked by mcp's own client."""

import asyncio
import sys
from pathlib import Path

import pytest

from cderetrieval import Retriever
from cderetrieval.testing import HashEncoder, tiny_model_directory

mcp = pytest.importorskip("mcp")

from cderetrieval.integrations.mcp import server_of

DOCUMENTS = [
    {"id": 7, "title": "Owls", "text": "Owls hunt at night.", "year": 2020},
    {"id": "bees", "title": "Bees", "text": "Bees make honey.", "year": 2021},
]


def ask(server, *calls):
    """Answers to calls of tools: structured content, or the message of an error."""

    async def talk():
        async with mcp.Client(server) as client:
            answers = [await client.call_tool(name, arguments) for name, arguments in calls]
            return [tool.name for tool in (await client.list_tools()).tools], [
                one.content[0].text if one.is_error else one.structured_content for one in answers
            ]

    return asyncio.run(talk())


def test_the_tools_of_a_server():
    server = server_of(Retriever(HashEncoder()).add(DOCUMENTS), "birds")
    names, (hits, one, page, about) = ask(
        server,
        ("search", {"query": "Owls Owls hunt at night.", "k": 5, "filter": {"year": [2020, 2021]}}),
        ("search", {"query": "honey", "filter": {"year": {"<": 2021}}}),
        ("read", {"id": "7", "start": 5, "length": 4}),
        ("describe", {}),
    )
    assert names == ["search", "read", "describe"]
    assert hits["hits"][0]["id"] == "7"
    assert len(one["hits"]) == 1
    assert one["hits"][0]["metadata"] == {"title": "Owls", "year": 2020}
    assert page == {
        **{"id": "7", "text": "hunt", "start": 5, "end": 9, "characters": 19},
        "metadata": {"title": "Owls", "year": 2020},
    }
    assert about == {"documents": 2, "fields": {"title": "Owls", "year": 2020}, "models": [None], "contexts": []}


def test_errors_say_what_to_do():
    server = server_of(Retriever(HashEncoder()).add(DOCUMENTS))
    _, answers = ask(
        server,
        ("read", {"id": "nobody"}),
        ("read", {"id": "7", "start": -1}),
        ("search", {"query": " "}),
        ("search", {"query": "owls", "k": 0}),
        ("search", {"query": "owls", "filter": {"year": {"~": 1}}}),
    )
    for answer, message in zip(answers, ["no document 'nobody'", "start=-1", "empty", "k=0", "'~'"], strict=True):
        assert message in answer


@pytest.mark.slow
def test_the_command_serves_a_directory_and_follows_it(tmp_path):
    directory = tmp_path / "index"
    with Retriever(tiny_model_directory(), path=directory) as retriever:
        retriever.add(DOCUMENTS)
    command = [sys.executable, "-m", "cderetrieval", "mcp", str(directory)]
    parameters = mcp.StdioServerParameters(command=command[0], args=command[1:], cwd=str(Path(__file__).parents[2]))

    async def talk():
        async with mcp.Client(parameters) as client:
            before = (await client.call_tool("describe", {})).structured_content
            with Retriever.load(directory) as retriever:
                retriever.add([{"id": "new", "title": "", "text": "Cats sleep."}])
            after = await client.call_tool("read", {"id": "new"})
            hits = await client.call_tool("search", {"query": "cats", "k": 3})
            return before, after.structured_content, hits.structured_content

    before, after, hits = asyncio.run(talk())
    assert before["documents"] == 2
    assert after["text"] == "Cats sleep."
    assert len(hits["hits"]) == 3


def test_half_a_character_and_a_number_that_json_lacks_are_sent_as_json_has_them():
    rows = [{"id": "a\ud800", "text": "owls \ud800", "by": "\ud800", "size": float("nan")}]
    server = server_of(Retriever("bm25").add([*rows, {"id": "b", "text": "bees"}]))
    _, (hits, about) = ask(server, ("search", {"query": "owls"}), ("describe", {}))
    (hit,) = hits["hits"]
    assert (hit["id"], hit["text"], hit["metadata"]) == ("a?", "owls ?", {"by": "?", "size": None})
    assert about["fields"] == {"by": "?", "size": None}
