"""How deep a call goes: functions of a search, SQL statements of a query and of an add."""

import sys

import pytest

from cderetrieval import Retriever
from cderetrieval.testing import HashEncoder

DOCUMENTS = [{"id": str(n), "text": f"about {n}"} for n in range(50)]


@pytest.fixture
def retriever(tmp_path):
    with Retriever(HashEncoder(), path=tmp_path) as retriever:
        retriever.add(DOCUMENTS)
        retriever("about 1")
        yield retriever


def statements(retriever, call):
    """What SQLite executes in a call."""
    found = []
    connections = retriever.collection._connections.all()
    for connection in connections:
        connection.set_trace_callback(found.append)
    call()
    for connection in connections:
        connection.set_trace_callback(None)
    return found


def test_a_warm_query_reads_the_settings_and_nothing_else(retriever):
    found = statements(retriever, lambda: retriever("about 2"))
    assert [line.split()[0] for line in found] == ["BEGIN", "SELECT", "ROLLBACK"]


def test_an_add_of_one_document_takes_few_statements(retriever):
    retriever.add([{"id": "x", "text": "new"}])  # opens the connection that writes
    found = statements(retriever, lambda: retriever.add([{"id": "y", "text": "newer"}]))
    assert found[0] == "BEGIN IMMEDIATE"
    assert found[-1] == "COMMIT"
    assert len(found) < 12


def test_a_warm_search_passes_few_functions_of_the_index(retriever):
    called = set()

    def profile(frame, event, _):
        file = frame.f_code.co_filename
        if event == "call" and ("/cderetrieval/index/" in file or file.endswith("/cderetrieval/vectors.py")):
            called.add((file, frame.f_code.co_qualname))

    sys.setprofile(profile)
    try:
        retriever("about 3")
    finally:
        sys.setprofile(None)
    assert 0 < len(called) <= 15
    assert len({file for file, _ in called}) <= 5
