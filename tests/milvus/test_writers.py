"""Several readers and writers of one collection."""

import threading
import time

import pytest

from cderetrieval.errors import InputError, ModelError
from cderetrieval.testing import HashEncoder

from ..changes import Contextual


def test_several_retrievers_of_one_process(place, at):
    at(place).add([{"id": "anchor", "text": "the anchor"}])
    reader, failures = at(place, load=True), []

    def work(name):
        try:
            mine = at(place)
            for call in range(3):
                mine.add({"id": f"{name}:{call}:{i}", "text": f"{name} {call} {i}"} for i in range(10))
                mine.remove([f"{name}:{call}:0"])
                assert reader("the anchor", k=1)[0][0]["id"] == "anchor"
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(reader) == 1 + 3 * 3 * 9
    assert reader("b 2 7", k=1)[0][0]["id"] == "b:2:7"


def test_several_threads_of_one_retriever(place, at):
    class Slow(HashEncoder):
        def encode_document(self, texts, **options):
            time.sleep(0.05)
            if "poison" in texts:
                raise ModelError("poison")
            return super().encode_document(texts)

    one = at(place, Slow()).add([{"id": "anchor", "text": "the anchor"}])
    acknowledged, failed = [], []

    def work(name):
        for call, text in enumerate(["first", "poison", "last"]):
            try:
                one.add([{"id": f"{name}{call}", "text": text}])
                acknowledged.append(f"{name}{call}")
            except ModelError:
                failed.append(f"{name}{call}")
            assert one("the anchor", k=1)[0][0]["id"] == "anchor"

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failed) == ["a1", "b1", "c1"], "each has its own change"
    assert len(one) == len(acknowledged) + 1 == 7
    assert not one.collection.missing(acknowledged)


def test_what_yields_documents_may_ask_the_collection_but_not_change_it(place, at, rows):
    retriever = at(place).add(rows)

    def asking():
        yield {"id": "new", "text": f"about {len(retriever('about owls')[0])}"}

    def changing():
        yield {"id": "never", "text": "about newts"}
        retriever.add(rows)

    assert retriever.add(asking()).last_change == (1, 0, 0, 0)
    with pytest.raises(InputError, match="cannot change it meanwhile"):
        retriever.add(changing())
    assert len(retriever) == len(rows) + 1
    assert retriever.add(rows).last_change == (0, len(rows), 0, 0)


def test_a_reader_follows_a_refresh(place, at, rows):
    model = Contextual()
    one, reader = at(place, model).add(rows), at(place, model, load=True)
    before = reader("about owls", k=2)
    assert reader.context.source == "own"
    one.refresh("random")
    after = reader("about owls", k=2)
    assert after[0][0] == {"id": "owls", "similarity": 1.0}
    assert after != before
    assert reader.context == one.context
    assert reader.context.source == "random"
    assert len(reader.add([{"id": "new", "text": "about eels"}])) == len(one) == 7
    assert one("about eels", k=1)[0][0] == {"id": "new", "similarity": 1.0}


def test_a_refresh_that_fails_leaves_everything_as_it_was(place, at, rows, monkeypatch):
    model = Contextual()
    one = at(place, model).add(rows)
    before = one.context, list(one(["about owls", "x"], k=9))

    def broken(self, texts, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HashEncoder, "encode_document", broken)
        with pytest.raises(KeyboardInterrupt):
            one.refresh(["another"])
    assert (one.context, list(one(["about owls", "x"], k=9))) == before
    names = one.collection._connection.call("list_collections")
    assert sorted(names) == sorted([one.collection.current.collection.name, "animals_settings"])
    assert one.refresh(["another"]).context.source == "texts"


def ended(process):
    """What a child has said until its end, which must be a good one."""
    process.stdin.close()
    lines = process.stdout.read().splitlines()
    assert process.wait(60) == 0
    return lines


def test_processes_that_write_read_and_refresh(milvus_server, at, child):
    place = milvus_server.place()
    main = at(place, Contextual()).add([{"id": "anchor", "text": "the anchor"}])
    reader = child("read", place)
    writers = [child("write", place, name, 4) for name in ("a", "b")]
    for process in (reader, *writers):
        assert process.stdout.readline() == "open\n"
    main.refresh("random")
    acknowledged = [name for process in writers for line in ended(process)[:-1] for name in line.split()]
    assert ended(reader)[-1].split()[1] == "random", "the reader never saw a mix or an error"
    assert len(acknowledged) == len(set(acknowledged)) == 2 * 4 * 20
    assert not main.collection.missing(acknowledged)
    assert len(main) == len(acknowledged) + 2
    hits = main([f"text of {name}" for name in acknowledged], k=1)
    assert [(ranking[0]["id"], ranking[0]["similarity"]) for ranking in hits] == [(i, 1.0) for i in acknowledged]
