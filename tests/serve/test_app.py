"""Routes, errors and limits of a running server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import quote

import pytest

from cderetrieval import Retriever
from cderetrieval.testing import tiny_dense_directory, tiny_model_directory

from .conftest import DOCUMENTS, Client, dense, running

TOKEN = "a token of some length".replace(" ", "-")


def test_search_in_all_forms(client):
    status, _, found = client.ask("/search", {"query": "honey", "k": 2})
    assert status == 200
    assert len(found["hits"]) == 2
    assert set(found["hits"][0]) == {"id", "similarity", "passage"}
    _, _, several = client.ask("/search", {"query": ["honey", "owls"], "k": 2, "passages": False})
    assert [len(hits) for hits in several["hits"]] == [2, 2]
    assert [hit["id"] for hit in several["hits"][0]] == [hit["id"] for hit in found["hits"]]
    _, _, same = client.ask("/search?query=honey&k=2")
    assert same["hits"] == found["hits"]
    _, _, filtered = client.ask("/search", {"query": "honey", "filter": {"year": {">=": 2021}}, "documents": True})
    assert {hit["id"] for hit in filtered["hits"]} == {"bees", "mast"}
    assert {hit["document"]["year"] for hit in filtered["hits"]} == {2021, 2022}
    _, _, passages = client.ask("/search", {"query": "honey", "k": 50, "by": "passage"})
    assert len(passages["hits"]) > len(DOCUMENTS)


def test_what_the_page_asks_for(client):
    _, _, found = client.ask("/search", {"query": "honey from bees", "marks": True})
    hit = next(hit for hit in found["hits"] if hit["id"] == "tale")
    assert (hit["title"], hit["key"]) == ("An owl", '"tale"')
    assert hit["fields"] == {"year": 2020, "language": "en"}
    text = hit["passage"]["text"]
    assert {text[a:b] for a, b in hit["passage"]["words"]} <= {"Bees", "honey"}
    _, _, document = client.ask("/documents?id=%22tale%22")
    assert document["body"] == DOCUMENTS[0]["text"]
    assert document["body"][hit["passage"]["start"] : hit["passage"]["end"]] == text
    _, _, info = client.ask("/info")
    assert (info["name"], info["documents"], info["writable"]) == ("tales", 4, False)
    fields = {facet["field"]: facet for facet in info["facets"]["fields"]}
    assert fields["language"]["values"] == [{"value": "en", "count": 2}, {"value": "fr", "count": 1}]


def test_explain(client):
    _, _, hits = client.ask("/search", {"query": "honey"})
    for hit in hits["hits"]:
        status, _, why = client.ask(f"/explain?query=honey&id={quote(json.dumps(hit['id']))}")
        assert status == 200
        assert sum(row["share"] for row in why["shares"]) == pytest.approx(hit["similarity"], abs=2e-6)


def test_explain_of_a_hybrid_has_the_shares_of_each_model():
    retriever = Retriever({"dense": dense(), "bm25": "bm25"}, on=["title", "text"]).add(DOCUMENTS)
    with running(retriever) as client:
        _, _, why = client.ask("/explain?query=honey&id=17")
        assert [row["source"] for row in why["shares"]] == ["dense", "bm25"]
        assert why["shares"][1]["shares"][0]["term"] == "honey"
        assert client.ask("/context")[2]["fusion"] == "rrf"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/search", {"query": ""}, 422, "query 0 is empty"),
        ("/search", {"query": ["a", " "]}, 422, "query 1 is empty"),
        ("/search", {"query": "a" * 40_000}, 422, "query 0 has 40,000 characters"),
        ("/search", {"query": "a" * 2**20}, 413, "larger than 1,048,576 bytes"),
        ("/search", {"query": "a", "k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ("/search", {"query": "a", "kk": 1}, 422, "kk: Extra inputs are not permitted"),
        ("/search", {"query": "a", "by": "word"}, 422, "by: Input should be 'document' or 'passage'"),
        ("/search", {"query": "a", "filter": {"year": {"~": 1}}}, 422, "year"),
        ("/search", {}, 422, "query: Field required"),
        ("/search", b"{", 422, "JSON"),
        ("/search", {"query": ["a"] * 3, "k": 50, "marks": True}, 422, "at most 100 hits with marks"),
        ("/search", {"query": ["a"] * 3, "k": 500, "documents": True}, 422, "at most 1,000 hits with documents"),
        ("/search", {"query": ["a"] * 256, "k": 1_000}, 422, "at most 20,000 hits"),
        ("/search", {"query": ["a"] * 300}, 422, "there are 300 queries"),
        ("/search?query=a&filter=%7B", None, 422, "is no JSON"),
        ("/search?query=a&filter=3", None, 422, "is no object"),
        ("/explain?query=a&id=17&filter=%5B%5D", None, 422, "is no object"),
        ("/explain?query=a&id=nobody", None, 422, "is no JSON"),
        ("/explain?query=a&id=%22nobody%22", None, 422, "id 'nobody' is not in this index"),
        ("/documents?id=%22nobody%22", None, 404, "id 'nobody' is not in this index"),
        ("/documents?id=null", None, 404, "id None is not in this index"),
        ("/documents", {"documents": ["new"]}, 403, "start it with --writable"),
        ("/nowhere", None, 404, "Not Found"),
        ("/context/compare?query=a", None, 422, "this index has no context"),
    ],
)
def test_bad_requests_are_named(client, path, body, status, message):
    found, headers, answer = client.ask(path, body)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert message in answer["error"]["message"]
    assert "default-src 'none'" in headers["content-security-policy"]


def test_a_half_character_is_searched_for_and_shown(client):
    status, _, found = client.ask("/search", {"query": "honey \ud800"})
    assert (status, len(found["hits"])) == (200, 4)


def test_names_and_pages_of_others_are_refused(client):
    get = "GET /search?query=a HTTP/1.1\r\nConnection: close\r\nHost: {}\r\n\r\n"
    for host in ("127.0.0.1:1", "localhost", "[::1]:80", "127.0.0.2:80"):
        assert b" 200 " in client.raw(get.format(host).encode()).split(b"\r\n")[0]
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert b" 403 " in client.raw(get.format(host).encode()).split(b"\r\n")[0]
    assert client.ask("/search", {"query": "a"}, headers={"Origin": "http://evil.example"})[0] == 403
    assert client.ask("/search", {"query": "a"}, headers={"Origin": client.url})[0] == 200
    assert client.ask("/search?query=a", headers={"Sec-Fetch-Site": "cross-site"})[0] == 403


@pytest.mark.parametrize(
    ("path", "start", "end"),
    [
        ("/search", b'{"query": [0', b"]}"),
        ("/v1/embeddings", b'{"model": "x", "input": [0', b"]}"),
        ("/v1/contextualizedembeddings", b'{"model": "x", "inputs": [[0', b"]]}"),
        ("/documents", b'{"documents": [0', b"]}"),
    ],
)
def test_many_errors_take_no_longer_than_one(client, path, start, end):
    begin = time.monotonic()
    assert client.ask(path, start + b",0" * 400_000 + end)[0] in (404, 422)
    assert time.monotonic() - begin < 3  # 400,000 errors in detail take longer than 10 seconds


def test_nobody_without_a_token_keeps_a_place_by_a_body_that_never_comes(client):
    head = b"POST /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"
    assert b" 405 " in client.raw(head).split(b"\r\n")[0]


def test_health_metrics_and_page(client):
    assert client.ask("/health")[2] == {"status": "ok"}
    client.ask("/search", {"query": "a"})
    text = client.ask("/metrics")[2].decode()
    assert 'cderetrieval_requests_total{route="/search",status="200"}' in text
    assert "cderetrieval_documents 4.0" in text
    for path in ("/", "/app.js", "/map.js", "/style.css"):
        status, headers, body = client.ask(path)
        assert (status, headers["x-content-type-options"]) == (200, "nosniff")
        assert b"http://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"https://" not in body
        assert b"innerHTML" not in body


def test_a_client_that_leaves_does_no_harm(client):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", client.port)) as connection:
            body = b'{"query": "honey"}'
            head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert client.ask("/search", {"query": "honey"})[0] == 200


def test_a_token_is_asked_for_everywhere_but_on_the_empty_page():
    with running(Retriever(dense()).add(DOCUMENTS), token=TOKEN) as client:
        for path in ("/", "/app.js", "/style.css", "/health"):
            assert client.ask(path)[0] == 200
        for path in ("/search?query=a", "/info", "/context", "/metrics", "/documents?id=17", "/openapi.json", "/x"):
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
                status, headers, answer = client.ask(path, headers=given)
                assert (status, headers["www-authenticate"]) == (401, "Bearer")
                assert "token is missing or wrong" in answer["error"]["message"]
        assert client.ask("/search?query=a", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200


def test_documents_are_changed_where_that_is_allowed():
    with running(Retriever(dense()).add(DOCUMENTS), writable=True) as client:
        status, _, answer = client.ask("/documents", {"documents": [{"id": "new", "text": "a zebu"}]})
        assert (status, answer) == (200, {"added": 1, "documents": 5})
        assert client.ask("/search", {"query": "a zebu", "k": 1})[2]["hits"][0]["id"] == "new"
        status, _, answer = client.ask("/documents", {"ids": ["new", 17]}, method="DELETE")
        assert (status, answer) == (200, {"removed": 2, "documents": 3})
        client.ask("/documents", {"documents": [{"id": 1, "text": "one"}, {"id": True, "text": "true"}]})
        assert client.ask("/documents", {"ids": [True]}, method="DELETE")[0] == 200
        assert client.ask("/documents?id=1")[2]["body"] == "one"
        status, _, answer = client.ask("/documents", {"ids": ["new"]}, method="DELETE")
        assert (status, answer["error"]["type"]) == (422, "InputError")
        status, _, answer = client.ask("/documents", {"documents": [{"id": "x"}]})
        assert (status, "has no field 'text'" in answer["error"]["message"]) == (422, True)
        status, _, answer = client.ask("/documents", b"documents=1", headers={"Content-Type": "text/plain"})
        assert status == 422


def test_an_index_that_changes_is_followed(tmp_path):
    directory = tmp_path / "index"
    Retriever(tiny_dense_directory(), path=directory).add(DOCUMENTS).close()

    def reopen():
        return Retriever.load(directory)

    with running(reopen(), reopen=reopen) as client:
        assert client.ask("/info")[2]["documents"] == 4
        with Retriever.load(directory) as other:
            other.add([{"id": "new", "text": "a zebu"}])
        assert client.ask("/search", {"query": "a zebu", "k": 1})[2]["hits"][0]["id"] == "new"
        assert client.ask("/info")[2]["documents"] == 5
        shutil.rmtree(directory)
        status, headers, answer = client.ask("/search", {"query": "a"})
        assert (status, headers["retry-after"], answer["error"]["type"]) == (503, "2", "StoreError")
        assert str(directory) not in answer["error"]["message"]
        Retriever(tiny_dense_directory(), path=directory).add([{"id": "other", "text": "yaks"}]).close()
        assert [hit["id"] for hit in client.ask("/search", {"query": "a"})[2]["hits"]] == ["other"]


def test_the_context_and_a_query_in_three_of_them(tmp_path):
    retriever = Retriever(tiny_model_directory(), context_size=3).add(DOCUMENTS)
    with running(retriever) as client:
        found = client.ask("/context")[2]
        assert len(found["points"]) == 3
        assert all(abs(point["x"]) <= 1 and point["title"] for point in found["points"])
        assert found["context"]["source"] == "own"
        assert "honey" in {term["term"] for term in found["terms"]["common"]}
        assert client.ask("/context/drift")[2]["drift"]["stale"] is False
        compared = client.ask("/context/compare?query=honey&k=2")[2]
        assert list(compared["contexts"]) == ["null", "random", "own"]
        assert all(len(hits) == 2 for hits in compared["contexts"].values())


@pytest.fixture
def served(tmp_path):
    """The command, started on a small index, and its address."""
    Retriever(tiny_dense_directory(), path=tmp_path / "index").add(DOCUMENTS).close()
    command = [sys.executable, "-m", "cderetrieval", "serve", str(tmp_path / "index"), "--port"]
    with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        port = int(line.rpartition("/;")[0].rpartition(":")[2]) if line else 0
        yield process, command, port
        if process.poll() is None:
            process.kill()


@pytest.mark.slow
def test_the_command_serves_and_stops_cleanly(served):
    process, command, port = served
    client = Client(port)
    while True:
        try:
            assert client.ask("/search", {"query": "honey"})[0] == 200
            break
        except OSError:
            time.sleep(0.1)
            assert process.poll() is None, process.stderr.read()
    again = subprocess.run([*command, str(port)], capture_output=True, text=True, timeout=120)
    assert again.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in again.stderr
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stderr.read() == ""


def test_answers_are_sent_at_once():
    run = pytest.importorskip("cderetrieval.serve.run")
    with run.listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP  # or asyncio leaves Nagle's algorithm on


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "open to other machines: give a --token"),
        (["--host", "0.0.0.0", "--token", "short"], "at least 16 ASCII characters"),
        (["--port", "99999999"], "--port 99999999"),
        (["--host", "no.such.host.invalid", "--token", TOKEN], "no.such.host.invalid"),
        ([], "holds no index"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, message, tmp_path, capsys):
    from cderetrieval.cli import main

    assert main(["serve", str(tmp_path), "--port", "0", *arguments]) == 2
    assert message in capsys.readouterr().err
