"""A real Milvus 2.3.5 (standalone, from PyPI) answers as Milvus Lite and an index on this machine do."""

import importlib.util
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from cderetrieval import Retriever
from cderetrieval.errors import ConfigError, ServerError
from cderetrieval.index.exact import exact_search
from cderetrieval.testing import HashEncoder, tiny_splade

SCRIPT = Path(__file__).with_name("test_parity.py")
specification = importlib.util.spec_from_file_location("server_parity", SCRIPT)
parity = importlib.util.module_from_spec(specification)
specification.loader.exec_module(parity)


def test_ids_ranking_and_payload(milvus_server, at):
    parity.test_ids_ranking_and_payload_are_those_of_an_index_on_this_machine(milvus_server.place("?index=FLAT"), at)


def test_ids_and_documents(milvus_server, at):
    parity.test_ids_of_every_json_type_come_back_as_they_went_in(milvus_server.place(), at)
    parity.test_documents_of_every_size(milvus_server.place(), at)


def test_ties(milvus_server, at):
    parity.test_equal_similarities_come_in_any_order(milvus_server.place(), at)


def test_filters(milvus_server, at, rows):
    parity.test_metadata_filters(milvus_server.place(), at, rows)
    parity.test_random_filters(milvus_server.place(), at)


def test_a_contextual_model(milvus_server, at):
    parity.test_a_contextual_model(milvus_server.place(), at, 4)


def test_errors(milvus_server, at, rows):
    parity.test_errors_are_those_of_an_index_on_this_machine(milvus_server.place(), at, rows)


def test_sparse_vectors_are_refused_by_version(milvus_server, at, rows):
    with pytest.raises(ConfigError, match=r"Milvus v2\.3\.5.* has no sparse vectors; 2\.4 and later have"):
        at(milvus_server.place(), tiny_splade()).add(rows)


class Ready(HashEncoder):
    """An encoder that never encodes."""

    dimension = 64


def clustered(count, seed):
    """Unit vectors around 200 centres: an approximate index has something to find."""
    centres = np.random.default_rng(0).standard_normal((200, 64))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 200, size=count)] + rng.standard_normal((count, 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("index", ["HNSW", "IVF_SQ8"])
def test_an_approximate_index_states_its_recall(milvus_server, at, index):
    vectors, queries = clustered(12_000, 1), clustered(200, 2)
    remote = at(milvus_server.place(f"?index={index}"), Ready())
    remote.add([{"id": i, "text": "x"} for i in range(12_000)], vectors=vectors)
    measured = remote.collection.current.measured
    assert measured["rows"] == 12_000
    assert measured["recall"] >= (0.95 if index == "HNSW" else 0.9)
    _, exact = exact_search(vectors, queries, 10)
    found = remote(queries, k=10)
    hits = [len(set(row) & {hit["id"] for hit in ranking}) for row, ranking in zip(exact.tolist(), found, strict=True)]
    assert sum(hits) / 2_000 > measured["recall"] - 0.05


def test_a_server_that_stands_still(milvus_server, at, rows):
    remote = at(milvus_server.place("?timeout=3")).add(rows)
    os.kill(milvus_server.pid, signal.SIGSTOP)
    try:
        for call in (lambda: remote("about owls"), lambda: remote.add(rows), lambda: remote.remove(["owls"])):
            start = time.monotonic()
            with pytest.raises(ServerError, match=r"did not answer|cannot be reached"):
                call()
            assert time.monotonic() - start < 30
        with pytest.raises(ServerError):
            Retriever(HashEncoder(), index=milvus_server.place("?timeout=3"))
    finally:
        os.kill(milvus_server.pid, signal.SIGCONT)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert remote("about owls", k=1)[0][0]["id"] == "owls"
            break
        except ServerError:
            assert time.monotonic() < deadline
    assert len(remote.add(rows)) == 6
