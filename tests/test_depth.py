"""How deep a call goes: functions of a search, SQL statements of a query and of an add."""

import sys
from pathlib import Path

import pytest

import cderetrieval
from cderetrieval import Retriever
from cderetrieval.testing import HashEncoder

PACKAGE = str(Path(cderetrieval.__file__).parent)
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


def called_by(call):
    """The code of this package that a call runs."""
    codes = set()

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            codes.add(frame.f_code)

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return codes


def test_a_warm_query_passes_few_functions_of_few_files(retriever):
    """From the text to the hits, with all that reads one state of the store; a stranger can read it in one go."""
    codes = called_by(lambda: retriever("about 3", k=10))
    assert 20 < len(codes) < 40, sorted(code.co_qualname for code in codes)
    assert len({code.co_filename for code in codes}) < 10
