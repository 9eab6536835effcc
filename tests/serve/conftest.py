"""An application over a small index, and a client that speaks to it over a socket."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from cderetrieval import DenseEncoder, Retriever
from cderetrieval.testing import tiny_dense_directory

LONG = "The owl hunts at night. " * 12 + "# Bees\n\nBees make honey from nectar. " + "A storm broke the old mast. " * 12
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"> honey <b>b</b>"
DOCUMENTS = [
    {"id": "tale", "title": "An owl", "text": LONG, "year": 2020, "language": "en"},
    {"id": "bees", "title": "Bees", "text": "make honey", "year": 2021, "language": "en"},
    {
        "id": 17,
        "title": "<script>document.title='hacked'</script>",
        "text": "<img src=x onerror=alert(1)> honey <b>b</b>",
    },
    {
        "id": "mast",
        "title": "Mast",
        "text": "a storm broke it",
        "year": 2022,
        "language": "fr",
        "tags": ["sea", "wind"],
    },
]


def dense():
    return DenseEncoder(tiny_dense_directory())


class Client:
    """Speaks HTTP to a running server."""

    def __init__(self, port):
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def ask(self, path, body=None, method=None, headers=None):
        """Status, headers, and JSON or bytes of an answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method, headers=headers or {})
        if data is not None and not request.has_header("Content-type"):
            request.add_header("Content-Type", "application/json")
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            found = answer.read()
            is_json = answer.headers.get("content-type") == "application/json"
            return answer.status, dict(answer.headers.items()), json.loads(found) if is_json else found

    def raw(self, lines):
        """What the server answers to bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(lines)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextlib.contextmanager
def running(retriever, **options):
    """A client of a server in a thread of this process."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    from cderetrieval.serve import create_app

    app = create_app(retriever, **options)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    try:
        yield Client(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


@pytest.fixture(scope="package")
def client():
    retriever = Retriever(dense(), on=["title", "text"], passages=32).add(DOCUMENTS)
    with running(retriever, name="tales") as found:
        yield found
