"""Servers that are down, slow or someone else's, and collections that are not what they should be: errors by name."""

import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from cderetrieval import Retriever
from cderetrieval.errors import ConfigError, InputError, LockedError, MismatchError, ServerError, StoreError
from cderetrieval.milvus.connection import Connection
from cderetrieval.milvus.location import is_location, parse_location
from cderetrieval.milvus.records import Records
from cderetrieval.testing import HashEncoder


def client(place):
    return Connection(parse_location(place))


def test_a_server_that_is_down():
    start = time.monotonic()
    for call in (
        lambda: Retriever(HashEncoder(), index="milvus://127.0.0.1:1/animals"),
        lambda: Retriever.load("milvus://127.0.0.1:1/animals"),
        lambda: Retriever.load("milvus://no-such-host.invalid/animals"),
    ):
        with pytest.raises(ServerError, match=r"Milvus at http://.* cannot be reached"):
            call()
    assert time.monotonic() - start < 40


def test_a_server_that_does_not_answer():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(ServerError, match=r"cannot be reached|did not answer"):
            Retriever(HashEncoder(), index=f"milvus://127.0.0.1:{silent.getsockname()[1]}/animals?timeout=2")
        assert time.monotonic() - start < 30


def test_a_server_that_goes_down_while_it_is_used(place, at, rows):
    remote = at(place + "?timeout=2").add(rows)
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(remote.collection._connection._file)
    for call in (lambda: remote("about owls"), lambda: remote.add(rows), lambda: len(remote)):
        start = time.monotonic()
        with pytest.raises(ServerError, match=r"cannot be reached|did not answer"):
            call()
        assert time.monotonic() - start < 20, "retries end with the time allowed"
    remote.collection._wrote = False  # nothing to flush any more
    assert at(place, load=True)("about owls", k=1)[0][0]["id"] == "owls", "what was acknowledged is there"


def test_a_collection_that_does_not_exist(place, at, rows):
    at(place).add(rows)
    with pytest.raises(StoreError, match=r"lite.db/plants does not exist; collections of this package there: animals"):
        Retriever.load(place.replace("animals", "plants"), model=HashEncoder())


def test_a_collection_of_someone_else(place, at):
    other = client(place)
    other.call("create_collection", "animals", dimension=4)
    for load in (False, True):
        with pytest.raises(StoreError, match="this package did not make"):
            at(place, load=load)
    other.call("create_collection", "plants_settings", dimension=4)
    with pytest.raises(StoreError, match="plants_settings is not a collection of this package"):
        at(place.replace("animals", "plants")).add(["a", "b"])
    other.close()


def test_a_collection_whose_fields_were_changed(place, at, rows):
    remote = at(place).add(rows)
    other = client(place)
    other.call("create_collection", "foreign", dimension=16)
    identity = remote.collection.current.identity
    Records(other, "animals").put("identity:foreign", identity.to_dict())
    other.call("alter_alias", "foreign", "animals")
    with pytest.raises(StoreError, match=r"field 'id' is INT64, not VARCHAR|field 'metadata' is absent"):
        at(place, load=True)
    Records(other, "animals").put("identity:foreign", {**identity.to_dict(), "format": 99})
    with pytest.raises(StoreError, match="written by a newer cderetrieval"):
        at(place, load=True)
    Records(other, "animals").put("identity:foreign", {"format": 1})
    with pytest.raises(StoreError, match="cannot be read"):
        at(place, load=True)
    other.close()


def test_a_collection_of_another_dimension(place, at, rows):
    class Wide(HashEncoder):
        dimension = 32

    remote = at(place).add(rows)
    with pytest.raises(
        MismatchError, match="it holds dense vectors of 16 dimensions, and Wide makes dense vectors of 32"
    ):
        at(place, Wide("other"), load=True)
    identity = remote.collection.current.identity
    remote.collection._records.put(
        f"identity:{remote.collection.current.collection.name}", {**identity.to_dict(), "dimension": 8}
    )
    with pytest.raises(StoreError, match=r"field 'vector' is FLOAT_VECTOR\(16\), not FLOAT_VECTOR\(8\)"):
        at(place, load=True)


def test_a_collection_that_was_replaced_by_another_models(place, at, rows):
    remote = at(place).add(rows)
    reader = at(place, load=True)
    assert len(reader) == 6
    remote.collection._connection.call("drop_alias", "animals")
    other = at(place, HashEncoder("other")).add(rows)
    assert len(other) == 6
    reader.collection._looked = -1e9
    with pytest.raises(MismatchError, match="replaced by a collection of another model"):
        reader("about owls")


def test_a_collection_that_was_dropped(place, at, rows):
    remote = at(place).add(rows)
    remote.collection._connection.call("drop_collection", remote.collection.current.collection.name)
    with pytest.raises(InputError, match="empty: add documents first"):
        remote("about owls")


def test_a_file_that_another_process_has_open(place, at, rows):
    at(place).add(rows)
    code = f"""
        from cderetrieval import Retriever
        from cderetrieval.errors import LockedError
        try:
            Retriever.load({place!r})
        except LockedError as error:
            print(error)
    """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "another process has" in found.stdout
    assert "Milvus Lite allows one" in found.stdout


def test_a_file_is_free_for_others_once_it_is_closed(place, rows):
    with Retriever(HashEncoder(), index=place) as first, Retriever(HashEncoder(), index=place + "2") as second:
        first.add(rows)
        second.add(rows)
    code = f"""
        from cderetrieval import Retriever
        from cderetrieval.testing import HashEncoder
        with Retriever.load({place!r}, model=HashEncoder()) as retriever:
            print(len(retriever), retriever("about bees", k=1)[0][0]["id"])
    """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["6", "bees"]


def test_a_file_that_is_no_milvus_file(tmp_path, at):
    (tmp_path / "text.db").write_text("not a directory")
    with pytest.raises(ServerError, match="Milvus Lite cannot open"):
        at(str(tmp_path / "text.db"))


def test_a_closed_retriever(place, at, rows):
    remote = at(place).add(rows)
    remote.close()
    remote.close()
    with pytest.raises(ServerError, match="is closed"):
        remote("about owls")


def test_another_process_is_building(place, at, rows):
    remote = at(place).add(rows)
    note = {"replaces": None, "host": "elsewhere", "pid": 7, "time": time.time()}
    remote.collection._connection.call("create_collection", "animals_0", dimension=4)
    remote.collection._connection.call("create_alias", "animals_0", "animals_building")
    remote.collection._records.put("building:animals_0", note)
    for call in (lambda: remote.add(rows), lambda: remote.remove(["owls"])):
        with pytest.raises(LockedError, match="process 7 on elsewhere is building a new collection for 'animals'"):
            call()
    assert len(remote("about owls", k=9)[0]) == 6, "readers are not concerned"
    remote.collection._records.put("building:animals_0", {**note, "time": time.time() - 1_000})
    assert len(remote.add([{"id": "new", "text": "about eels"}])) == 7, "the note of a dead process counts for nothing"
    assert not remote.collection._connection.call("has_collection", "animals_0"), "what it left is dropped"


def test_a_change_that_a_refresh_overtakes_is_not_acknowledged(place, at, rows, monkeypatch):
    from cderetrieval.testing import tiny_model

    model = tiny_model()
    one, other = at(place, model).add(rows), at(place, model)
    from cderetrieval.milvus import collection as module

    send = module.send

    def late(*values, **options):
        if threading.current_thread() is threading.main_thread() and not done:
            done.append(True)
            other.refresh("random")
        return send(*values, **options)

    done = []
    monkeypatch.setattr(module, "send", late)
    with pytest.raises(LockedError, match=r"refreshed the context .* was not acknowledged; make it again"):
        one.add([{"id": "new", "text": "about eels"}])
    assert len(one.add([{"id": "new", "text": "about eels"}])) == 7
    assert one.context.source == "random"
    assert one("about eels", k=1)[0][0]["id"] == "new"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("milvus://", "names no host and collection"),
        ("milvus://host", "names no host and collection"),
        ("milvus://host/a/b/c", "names no host and collection"),
        ("milvus://host:port/a", "cannot be read"),
        ("milvus://host/my-docs", "collection 'my-docs': use letters"),
        ("milvus://host/1st", "no digit first"),
        ("milvus://host/docs?shards=3", "option 'shards' is unknown"),
        ("milvus://host/docs?timeout=soon", "timeout='soon'"),
        ("milvus://host/docs?timeout=0", "timeout=0.0 must be above 0"),
        ("milvus://host/docs?tls=maybe", "tls='maybe'"),
        ("docs.db/a-b", "collection 'a-b'"),
        ("docs.db?tls=true", "a file has no TLS"),
    ],
)
def test_addresses_that_cannot_be_read(text, named):
    assert is_location(text)
    with pytest.raises(ConfigError, match=named):
        Retriever(HashEncoder(), index=text)


def test_a_password_is_never_shown(monkeypatch):
    location = parse_location("milvus://root:s3cret@[::1]:19530/db/docs?tls=true&index=HNSW&timeout=5")
    assert (location.address, location.database, location.token) == ("https://[::1]:19530", "db", "root:s3cret")
    assert str(location) == "milvus://[::1]:19530/db/docs?index=HNSW&tls=true&timeout=5"
    assert "s3cret" not in repr(location)
    with pytest.raises(ConfigError) as caught:
        parse_location("milvus://root:s3cret@host")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ServerError) as refused:
        Retriever(HashEncoder(), index="milvus://root:s3cret@127.0.0.1:1/docs")
    assert "s3cret" not in str(refused.value)
    monkeypatch.setenv("MILVUS_TOKEN", "root:fromenv")
    assert parse_location("milvus://host/docs").token == "root:fromenv"


def test_a_collection_whose_model_is_known_by_weights_that_were_drawn(place, at, tmp_path):
    from cderetrieval import load
    from cderetrieval.testing import tiny_masked_lm

    model, tokenizer = tiny_masked_lm()
    model.save_pretrained(tmp_path / "mlm")
    tokenizer.save_pretrained(tmp_path / "mlm")
    old = load(f"dense:{tmp_path / 'mlm'}")
    old.__dict__["fingerprint"] = old._digest(())
    at(place, old).add(["owls hunt", "bees hum", "a longer text about ants and deer"]).close()
    again = at(place, load(f"dense:{tmp_path / 'mlm'}"), load=True)
    assert again("bees hum", k=1)[0][0]["id"] == 1
    assert len(again.add(["more"])) == 4
    other = load(f"dense:{tmp_path / 'mlm'}")
    for parameter in other.model.parameters():
        parameter.data *= 1.5
    with pytest.raises(MismatchError, match="fingerprint"):
        at(place, other, load=True)("bees hum")
