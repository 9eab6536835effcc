"""Where the tests of collections run: Milvus Lite in a temporary file, and a real Milvus 2.3.5 where one can start.

The real server is started once for a session, on loopback, by the Python that ``CDE_MILVUS_PYTHON`` names or that is in
``.venv-milvus`` (``make milvus``). Every test here has a hard time limit.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from cderetrieval import Retriever
from cderetrieval.testing import HashEncoder

from ..children import Child

ROOT = Path(__file__).parents[2]
LIMIT, LIMIT_OF_SLOW = 60, 300
START = 120
ETCD_PORT = 2380
ANIMALS = ["owls", "bees", "deer", "ants", "frogs", "wolves"]

INSTALLED = all(importlib.util.find_spec(name) for name in ("pymilvus", "milvus_lite"))


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if not INSTALLED and here in item.path.parents:
            item.add_marker(
                pytest.mark.skip(reason='needs pymilvus and milvus-lite: pip install "cderetrieval[scale]"')
            )
        if "milvus_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def hard_limit(request):
    """No test waits for a server for ever."""
    seconds = LIMIT_OF_SLOW if request.node.get_closest_marker("slow") else LIMIT

    def late(*_):
        raise TimeoutError(f"the test took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@dataclass
class Server:
    """A running Milvus: its address and the process that answers."""

    address: str
    pid: int

    def place(self, options=""):
        """A collection that nobody has used."""
        return f"milvus://{self.address}/test_{secrets.token_hex(4)}{options}"


def server_python():
    """The Python of the server's environment, or None."""
    given = os.environ.get("CDE_MILVUS_PYTHON")
    for path in [Path(given)] if given else [ROOT / ".venv-milvus" / "bin" / "python"]:
        if path.is_file():
            return str(path)
    return None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """A real server, or a reason why there is none."""
    python = server_python()
    if python is None:
        pytest.skip("no environment with milvus==2.3.5: run `make milvus`, or set CDE_MILVUS_PYTHON")
    if taken(ETCD_PORT):
        pytest.skip(f"port {ETCD_PORT} is taken, by another Milvus perhaps: its etcd knows no other")
    directory, port = tmp_path_factory.mktemp("milvus"), free_port()
    process = subprocess.Popen(
        [python, Path(__file__).with_name("milvus_server.py"), directory, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killer = threading.Timer(START, process.kill)
    killer.start()
    try:
        words = process.stdout.readline().split()
        if words[:1] != ["ready"]:
            pytest.skip(f"Milvus did not start within {START} s: {' '.join(words)} {process.stdout.read()[-500:]}")
        killer.cancel()
        yield Server(f"127.0.0.1:{port}", int(words[1]))
    finally:
        killer.cancel()
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def place(tmp_path):
    """A collection in a Milvus Lite file of its own."""
    return str(tmp_path / "lite.db" / "animals")


@pytest.fixture
def at():
    """Make retrievers on a server; all are closed in the end."""
    opened = []

    def make(place, model=None, *, load=False, **settings):
        model = HashEncoder() if model is None else model
        retriever = Retriever.load(place, model=model) if load else Retriever(model, index=place, **settings)
        opened.append(retriever)
        return retriever

    yield make
    for retriever in opened:
        retriever.close()


@pytest.fixture
def rows():
    """Documents with metadata."""
    return [{"id": name, "text": f"about {name}", "legs": len(name), "wild": name != "bees"} for name in ANIMALS]


@pytest.fixture
def child():
    """Start processes of ``tests/changes.py``; what still runs in the end is killed."""
    started = []

    def start(*words):
        started.append(Child(*words))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.close()
