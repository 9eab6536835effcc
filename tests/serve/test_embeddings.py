"""The stock client of OpenAI against a running server, and the nested form."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cderetrieval import Retriever
from cderetrieval.models.document_context import DocumentContext, Units, encode_passages
from cderetrieval.splitting import Span
from cderetrieval.testing import tiny_dense_directory

from .conftest import DOCUMENTS, dense, running


@pytest.fixture(scope="module")
def served():
    retriever = Retriever(tiny_dense_directory(), on=["title", "text"], passages=32).add(DOCUMENTS)
    with running(retriever) as client:
        (model,) = client.ask("/v1/models")[2]["data"]
        yield client, model["id"]


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_the_stock_client(served, form):
    openai = pytest.importorskip("openai")
    client, model = served
    with openai.OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as api:
        options = {} if form is None else {"encoding_format": form}
        answer = api.embeddings.create(model=model, input=["owls hunt", "bees"], **options)
        one = api.embeddings.create(model=f"{model}-query", input="owls hunt")
        asked = api.embeddings.create(model=model, input="owls hunt", extra_body={"input_type": "query"})
        if form != "base64":
            vectors = [row.embedding for row in answer.data]
            np.testing.assert_allclose(vectors, dense().encode_document(["owls hunt", "bees"]), atol=1e-6)
        assert [row.index for row in answer.data] == [0, 1]
        np.testing.assert_allclose(one.data[0].embedding, dense().encode_query(["owls hunt"])[0], atol=1e-6)
        assert one.data[0].embedding == asked.data[0].embedding
        assert answer.usage.prompt_tokens > 2
        assert [found.id for found in api.models.list()] == [model]
        with pytest.raises(openai.NotFoundError, match="'text-embedding-3-small' is not served here"):
            api.embeddings.create(model="text-embedding-3-small", input="owls")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": []}, 422, "there are 0 texts"),
        ({"input": ["a", ""]}, 422, "input 1 is empty"),
        ({"input": [[1, 2]]}, 422, "pass texts, not tokens"),
        ({"input": "a", "dimensions": 8}, 422, "this model has 32 dimensions, not 8"),
        ({"input": "a", "input_type": "other"}, 422, "input_type"),
        ({"input": ["a"] * 3_000}, 422, "there are 3000 texts"),
    ],
)
def test_bad_input_is_named(served, body, status, message):
    client, model = served
    found, _, answer = client.ask("/v1/embeddings", {"model": model, **body})
    assert found == status
    assert message in answer["error"]["message"]


def test_passages_of_documents(served):
    client, model = served
    passages = ["owls hunt", "at night they see", "mice fear them"]
    body = {"model": model, "inputs": [passages, ["bees make honey"]], "input_type": "document"}
    _, _, answer = client.ask("/v1/contextualizedembeddings", body)
    first, second = ([row["embedding"] for row in found["data"]] for found in answer["data"])
    text = "\n\n".join(passages)
    spans = [Span(text.index(one), text.index(one) + len(one)) for one in passages]
    expected = encode_passages(dense(), Units.of([(text, spans, "")]), DocumentContext())
    np.testing.assert_allclose(first, expected, atol=1e-5)
    np.testing.assert_allclose(second, dense().encode_document(["bees make honey"]), atol=1e-5)
    body = {"model": model, "inputs": [["honey"]], "input_type": "query"}
    _, _, answer = client.ask("/v1/contextualizedembeddings", body)
    np.testing.assert_allclose(answer["data"][0]["data"][0]["embedding"], dense().encode_query(["honey"])[0], atol=1e-6)
    for inputs, kind in (([["a", "b"]], "query"), ([[]], "document"), ([], "document")):
        body = {"model": model, "inputs": inputs, "input_type": kind}
        assert client.ask("/v1/contextualizedembeddings", body)[0] == 422


def test_tokens_are_counted_while_others_are_embedded(served):
    client, model = served
    long = {"model": model, "input": ["honey bees owl " * 300] * 4}
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: client.ask("/v1/embeddings", long), range(24)))
    assert {status for status, _, _ in answers} == {200}
    assert {answer["usage"]["total_tokens"] > 3_600 for _, _, answer in answers} == {True}


def test_half_a_character_is_embedded(served):
    client, model = served
    assert client.ask("/v1/embeddings", {"model": model, "input": ["owls \ud800"]})[0] == 200
    assert client.ask("/v1/contextualizedembeddings", {"model": model, "inputs": [["owls \ud800", "b"]]})[0] == 200
