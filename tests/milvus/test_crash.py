"""A process that changes a collection is killed with SIGKILL; whatever it acknowledged is there.

A server has no transaction over many rows, so a change that was cut off may be there in part. But each document is the
old one or the new one, whole, and all vectors are of one context.
"""

import os
import random
import signal
import time

import pytest

from ..changes import Changes, Contextual, is_short

changes = Changes("server")


def killed(child, place, seed, first, wanted, delay):
    """Run changes in a child, kill it some time after so many are done; the last change started and the last done."""
    process = child("server", place, seed, first)
    started, done = first - 1, first - 1
    for line in process.stdout:
        word, number = line.split()
        started, done = (int(number), done) if word == "start" else (started, int(number))
        if started - first >= wanted:
            break
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read()
    assert process.wait() == -signal.SIGKILL
    last = {word: int(number) for word, number in (line.split() for line in rest.splitlines(True) if "\n" in line)}
    return last.get("start", started), last.get("done", done)


def verify(retriever, before, after):
    """Each document is as before the change that was cut off, or as after it; return what is there."""
    found = {row[0]: row[1] for row in retriever.collection.rows()}
    for i in before.keys() | after.keys() | found.keys():
        assert found.get(i) in (before.get(i), after.get(i)), f"document {i}"
    assert len(retriever) == len(found)
    if found:
        # A long document is found by each of its passages, and by none to the full.
        short = [text for text in found.values() if is_short(text)]
        hits = retriever(short, k=1, documents=True) if short else []
        assert [ranking[0]["similarity"] for ranking in hits] == [1.0] * len(short), "all vectors are of one context"
        assert [ranking[0]["document"]["text"] for ranking in hits] == short
        assert {hit["id"] for hit in retriever("text", k=len(found))[0]} == found.keys()
    return found


def kill_and_look(at, child, place, seed, rounds, longest):
    """Kill a child again and again; return how many changes were acknowledged."""
    rng = random.Random(seed)
    documents, first, acknowledged = {}, 0, 0
    for _ in range(rounds):
        started, done = killed(child, place, seed, first, rng.randint(0, 4), rng.uniform(0, longest))
        for number in range(first, done + 1):
            documents = changes.expected(documents, seed, number)
        after = changes.expected(documents, seed, started) if started > done else documents
        retriever = at(place, Contextual())
        documents = verify(retriever, documents, after)
        retriever.close()
        acknowledged += done - first + 1
        first = started + 1 if documents else 0
    return acknowledged


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_nothing_acknowledged_is_lost(place, at, child, seed):
    assert kill_and_look(at, child, place, seed, 6, 0.5) > 6, "children were killed before they did anything"
    retriever = at(place, Contextual()).refresh("random")
    names = retriever.collection._connection.call("list_collections")
    assert sorted(names) == sorted([retriever.collection.current.collection.name, "animals_settings"]), "no leftovers"


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_on_a_server(milvus_server, at, child):
    place = milvus_server.place()
    assert kill_and_look(at, child, place, 3, 4, 5) > 3, "children were killed before they did anything"
