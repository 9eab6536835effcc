"""A Retriever on disk: saved, opened, damaged, shared by processes, streamed into."""

import json
import logging
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest

import cderetrieval.models.load
from cderetrieval import Retriever
from cderetrieval.errors import LockedError, MismatchError, StoreError
from cderetrieval.store import Store
from cderetrieval.testing import HashEncoder, WordEncoder, tiny_model, tiny_model_directory

ANIMALS = ["owls", "bees", "deer", "ants", "frogs", "wolves"]
DOCUMENTS = [{"id": name, "text": f"about {name}"} for name in ANIMALS]
QUERIES = [f"about {name}" for name in ANIMALS]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def saved(path):
    with Retriever(HashEncoder(), path=path) as retriever:
        retriever.add(DOCUMENTS)
    return path


def reopen(path, model=None):
    return Retriever.load(path, model=HashEncoder() if model is None else model)


def test_what_was_acknowledged_is_there_without_closing(path):
    retriever = Retriever(HashEncoder(), path=path).add(DOCUMENTS).remove(["bees"])
    other = reopen(path)
    assert len(other) == 5
    assert list(other(QUERIES)) == list(retriever(QUERIES))
    assert repr(other) == "Retriever(5 documents, model='HashEncoder', index='auto')"


def test_save_and_load(path, tmp_path):
    memory = Retriever(tiny_model_directory(), on=["title", "text"], key="name", seed=3)
    memory.add([{"name": n, "title": "about", "text": name} for n, name in enumerate(ANIMALS)])
    answers = list(memory(QUERIES, k=4, documents=True))
    memory.save(path)
    with Retriever.load(path) as opened:
        assert list(opened(QUERIES, k=4, documents=True)) == answers
        assert opened.context == memory.context
        assert opened.encoder.fingerprint == memory.encoder.fingerprint
        opened.add([{"name": 99, "title": "about", "text": "eels"}])
        assert opened.context == memory.context
        opened.save(path)
    with Retriever.load(path) as opened:
        assert len(opened) == 7
        assert opened("about eels", k=1, documents=True)[0][0]["document"]["name"] in range(100)
    assert len(memory) == 6
    for other in (memory, Retriever(HashEncoder()).add(DOCUMENTS)):
        with pytest.raises(StoreError, match="holds an index already"):
            other.save(path)
    with pytest.raises(StoreError, match=r"holds an index already. Open it with Retriever\.open"):
        Retriever(HashEncoder(), path=path)
    with pytest.raises(StoreError, match=r"store\.sqlite is missing"):
        Retriever.load(tmp_path / "nowhere")


def test_an_index_whose_first_add_failed_can_be_built_again(path):
    retriever = Retriever(HashEncoder(), path=path)
    with pytest.raises(ZeroDivisionError):
        retriever.add({"id": n, "text": str(1 / n)} for n in (1, 0))
    retriever.close()
    with pytest.raises(StoreError, match="first add never ended"):
        Retriever.load(path)
    assert len(Retriever(HashEncoder(), path=path).add(DOCUMENTS)) == 6


def test_another_model_or_prompt_is_refused(path):
    Retriever(tiny_model(), path=path).add(DOCUMENTS).close()
    others = [tiny_model(seed=1), tiny_model(prompts={"query": "q: ", "document": "d: "}), tiny_model(max_length=32)]
    for other in (*others, HashEncoder()):
        with pytest.raises(MismatchError, match=r"this index was built by model .* with fingerprint"):
            Retriever.load(path, model=other)
    unnamed = Retriever.load(path)
    assert repr(unnamed) == "Retriever(6 documents, model='given as an object', index='auto')"
    with pytest.raises(MismatchError, match=r"Retriever\.load\(path, model=that_model\)"):
        unnamed("owls")
    with Retriever.load(path, model=tiny_model()) as opened:
        assert len(opened.add([{"id": "new", "text": "eels"}])) == 7


def test_another_encoder_is_refused(saved):
    with pytest.raises(MismatchError, match="Open it with the model that built it"):
        Retriever.load(saved, model=HashEncoder("other"))
    assert len(reopen(saved).add(DOCUMENTS[:1])) == 6, "the refusal left no lock behind"


def run(code, *arguments, **settings):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        **settings,
    )


def test_opening_and_searching_with_ready_vectors_loads_no_model(path):
    Retriever(tiny_model_directory(), path=path).add(DOCUMENTS).close()
    code = """
        import sys
        import numpy as np
        from cderetrieval import Retriever
        retriever = Retriever.load(sys.argv[1])
        assert len(retriever) == 6, repr(retriever)
        assert retriever.context.source == "own"
        hits = retriever(np.eye(2, 32, dtype=np.float32), k=3, documents=True)
        assert len(hits[0]) == 3 and hits[0][0]["document"]["id"] == hits[0][0]["id"]
        retriever.remove(hits[0][0]["id"])
        retriever.close()
        loaded = {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
        assert not loaded, loaded
    """
    done = run(code, path)
    assert done.returncode == 0, done.stderr
    assert len(Retriever.load(path)) == 5


@pytest.mark.parametrize("name", ["index.faiss", "index.safetensors", "index.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_index_is_built_again(saved, name, damage, caplog):
    expected = list(reopen(saved)(QUERIES))
    file = saved / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        data[len(data) // 2] ^= 4
        file.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    caplog.set_level(logging.INFO, logger="cderetrieval")
    retriever = reopen(saved)
    assert list(retriever(QUERIES)) == expected
    assert any("built again" in m or "no saved index" in m for m in caplog.messages), caplog.messages
    retriever.add([{"id": "eels", "text": "about eels"}]).close()
    caplog.clear()
    assert len(reopen(saved)(QUERIES)) == 6
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_index_older_than_the_store_catches_up(saved):
    retriever = reopen(saved).remove(["owls"]).add([{"id": "eels", "text": "about eels"}])  # never closed
    opened = reopen(saved)
    assert list(opened([*QUERIES, "about eels"], k=9)) == list(retriever([*QUERIES, "about eels"], k=9))
    assert opened("about eels", k=1)[0][0]["id"] == "eels"


def test_a_damaged_store_is_an_error(saved):
    file = saved / "store.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"store\.sqlite"):
        reopen(saved)(QUERIES)
    at = whole.index(np.float32(HashEncoder().encode_document(["about deer"])[0][3]).tobytes())
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    (saved / "index.json").unlink()
    with pytest.raises(StoreError, match="does not match its checksum"):
        reopen(saved)(QUERIES)
    file.write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        reopen(saved)


def test_readers_see_each_commit_and_a_second_writer_is_refused(path):
    model = tiny_model()
    writer = Retriever(model, path=path).add(DOCUMENTS[:3])
    reader = Retriever.load(path, model=model)
    assert len(reader("owls", k=9)[0]) == 3
    for change in (
        lambda: writer.add(DOCUMENTS[3:]),
        lambda: writer.remove(["owls"]),
        lambda: writer.refresh(),
        lambda: writer.refresh("random"),
        lambda: writer.add([{"id": "bees", "text": "now about eels"}]),
    ):
        change()
        assert list(reader(QUERIES, k=9, documents=True)) == list(writer(QUERIES, k=9, documents=True))
        assert reader.context == writer.context
    kept = writer.collection.exclusive()
    kept.__enter__()
    for call in (lambda: reader.add(DOCUMENTS), lambda: reader.remove("bees"), lambda: reader.refresh()):
        with pytest.raises(LockedError, match="writing"):
            call()
    reader.close()
    code = """
        import sys
        from cderetrieval import Retriever
        from cderetrieval.errors import LockedError
        from cderetrieval.testing import HashEncoder, tiny_model
        retriever = Retriever.load(sys.argv[1], model=tiny_model())
        print(len(retriever("owls", k=9)[0]))
        try:
            retriever.remove("bees")
        except LockedError as error:
            print(error)
    """
    done = run(code, path)
    count, message = done.stdout.splitlines()
    assert count == "5", done.stderr
    assert "another process (pid" in message
    kept.__exit__(None, None, None)
    assert len(Retriever.load(path, model=model).remove("bees")) == 4
    assert len(writer) == 4


def test_a_reader_works_while_another_process_writes(path):
    Retriever(HashEncoder(), path=path).add(DOCUMENTS).close()
    code = """
        import sys
        from cderetrieval import Retriever
        from cderetrieval.testing import HashEncoder
        retriever = Retriever.load(sys.argv[1], model=HashEncoder())
        for round in range(30):
            retriever.add([{"id": f"{round}-{i}", "text": f"{round} {i}"} for i in range(20)])
            print(round, flush=True)
    """
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], stdout=subprocess.PIPE, text=True
    )
    reader = reopen(path)
    seen = []
    try:
        for line in writer.stdout:
            acknowledged = 6 + 20 * (int(line) + 1)
            hits = reader([f"{int(line)} 7", "about owls"], k=1000)
            assert (hits[0][0]["id"], hits[1][0]["id"]) == (f"{int(line)}-7", "owls")
            assert len(hits[0]) >= acknowledged
            assert len(hits[0]) % 20 == 6, "whole batches only"
            seen.append(len(hits[0]))
    finally:
        assert writer.wait(timeout=60) == 0
    assert seen == sorted(seen)
    assert len(seen) == 30


def test_documents_are_streamed(path):
    """More documents, the same peak: a row number for each id is the only thing that is held."""

    def peak(name, count):
        retriever = Retriever(HashEncoder(), path=path / name)
        tracemalloc.start()
        retriever.add({"id": i, "text": f"{i} " + "a document of two hundred characters" * 5} for i in range(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(retriever) == count
        return most

    small, large = peak("small", 12_000), peak("large", 32_000)
    assert large - small < 20_000 * 200, f"{(large - small) / 20_000:.0f} bytes a document"


def test_the_settings_come_back(path):
    with Retriever(
        tiny_model_directory(), path=path, key="k", on="body", index="HNSW8", context_size=3, seed=5
    ) as first:
        first.add([{"k": i, "body": f"text {i}"} for i in range(9)])
    opened = Retriever.load(path)
    assert opened.collection.settings == first.collection.settings
    assert opened.add([{"k": 10, "body": "more"}]).refresh().context.seed == 5
    assert len(opened.context) == 3
    stored = json.dumps(opened.collection.get_setting("retriever"))
    assert tiny_model_directory() in stored


def test_a_store_put_back_from_a_copy_does_not_believe_a_newer_index(tmp_path):
    def number(i, text):
        return {"id": i, "text": text}

    with Retriever(HashEncoder(), path=tmp_path / "i") as retriever:
        retriever.add([number(0, "zero"), number(1, "one")])
    older = (tmp_path / "i" / "store.sqlite").read_bytes()
    with Retriever.load(tmp_path / "i", model=HashEncoder()) as retriever:
        retriever.add([number(2, "two"), number(3, "three")])
    (tmp_path / "i" / "store.sqlite").write_bytes(older)
    with Retriever.load(tmp_path / "i", model=HashEncoder()) as retriever:
        # The numbers of the lost documents are given again, to others.
        retriever.add([number(4, "four"), number(5, "five")])
        assert retriever("five", k=1)[0][0] == {"id": 5, "similarity": 1.0}


@pytest.mark.parametrize("model", [HashEncoder(), WordEncoder()])
def test_a_copy_made_while_another_writes_believes_no_newer_index(tmp_path, monkeypatch, model):
    backup = Store.backup
    with Retriever(model, path=tmp_path / "index").add(DOCUMENTS) as writer, reopen(writer.path, model) as reader:

        def interrupted(store, path):
            backup(store, path)
            writer.add([{"id": "late", "text": "late eels"}])

        monkeypatch.setattr(Store, "backup", interrupted)
        reader.save(tmp_path / "copy")
        assert len(reader) == len(DOCUMENTS) + 1
    with reopen(tmp_path / "copy", model) as copy:
        copy.add([{"id": "other", "text": "other otters"}])  # has the number that "late" has in the first
        assert copy("other otters", k=1)[0][0]["id"] == "other"
        assert len(copy) == len(DOCUMENTS) + 1


def test_a_refresh_while_a_reader_loads_its_model(path, monkeypatch):
    load = cderetrieval.models.load.load
    with Retriever(tiny_model_directory(), path=path).add(DOCUMENTS) as writer, Retriever.load(path) as reader:

        def slow(name, **options):
            writer.refresh("random")
            return load(name, **options)

        monkeypatch.setattr("cderetrieval.models.load.load", slow)
        assert list(reader(QUERIES)) == list(writer(QUERIES))
        assert reader.context.source == "random"
