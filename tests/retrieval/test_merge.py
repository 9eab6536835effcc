"""Hybrids that earlier versions kept as several stores become one collection, also where a kill left some behind."""

import os

import numpy as np
import pytest

from cderetrieval import Hybrid, Retriever
from cderetrieval.errors import LockedError, StoreError
from cderetrieval.files import write_json
from cderetrieval.retrieval.merge import _store
from cderetrieval.store import Store
from cderetrieval.testing import HashEncoder

MODELS = {"one": HashEncoder("one"), "two": HashEncoder("two")}
OLD = {"a": "owls hunt", "b": "bees hum", "c": "ants march"}
NEW = {"b": "bees make honey", "c": "ants march", "d": "moons rise"}


def write_part(directory, number, model, documents, stamp):
    """A part as version 0.1 wrote it: documents of two changes, the stamp of the last one."""
    (directory / f"part-{number}").mkdir(parents=True)
    with Store(directory / f"part-{number}" / "store.sqlite") as store, store.transaction():
        store.put_documents([(i, OLD[i], {"id": i, "text": OLD[i]}) for i in OLD])
        if stamp["change"] == "second":
            store.put_documents([(i, NEW[i], {"id": i, "text": NEW[i]}) for i in ("b", "d")])
            store.remove(["a"])
        for seqs, texts in store.pending():
            store.put_vectors(seqs, MODELS[model].encode_document(texts))
        store.set_setting("hybrid", stamp)
        store.set_setting("fingerprint", MODELS[model].fingerprint)
        settings = {"model": None, "key": "id", "on": ["text"], "index": "auto", "context_size": None, "seed": 0}
        store.set_setting("retriever", settings)


FIRST = {"change": "first", "previous": None, "first": 1}
SECOND = {"change": "second", "previous": "first", "first": 4}


def write_hybrid(directory, *stamps):
    for number, (name, stamp) in enumerate(zip(MODELS, stamps, strict=True)):
        write_part(directory, number, name, NEW, stamp)
    parts = [{"name": name, "model": None} for name in MODELS]
    settings = {"key": "id", "on": ["text"], "context_size": None, "seed": 0}
    fusion = {"method": "weighted", "weights": [0.3, 0.7]}
    write_json(directory / "hybrid.json", {"format": 1, "parts": parts, "fusion": fusion, "settings": settings})


def expected(documents):
    fresh = Hybrid(MODELS, on="text", fusion="weighted", weights=(0.3, 0.7))
    return fresh.add([{"id": i, "text": text} for i, text in documents.items()])


@pytest.mark.parametrize("stamps", [(FIRST, FIRST), (SECOND, SECOND), (FIRST, SECOND), (SECOND, FIRST)])
def test_parts_become_one_index(tmp_path, stamps):
    write_hybrid(tmp_path, *stamps)
    documents = NEW if SECOND in stamps else OLD
    for _ in range(2):
        with Hybrid.load(tmp_path, models=MODELS) as hybrid:
            assert {i: text for i, text, _ in hybrid.collection.rows()} == documents
            assert list(hybrid("bees honey", k=5)) == list(expected(documents)("bees honey", k=5))
            for part, model in enumerate(MODELS.values()):
                vectors = np.concatenate([chunk for _, chunk in hybrid.collection.iter_vectors(part=part)])
                texts = [text for _, text in hybrid.collection.texts()]
                np.testing.assert_array_equal(vectors, model.encode_document(texts))
            hybrid.collection.check()
    assert not (tmp_path / "part-0").exists()
    assert not (tmp_path / "hybrid.json").exists()


@pytest.mark.parametrize("step", ["merge.remove_parts", "updater.Updater._complete"])
def test_a_merge_that_is_cut_off_is_completed_by_the_next(tmp_path, monkeypatch, step):
    write_hybrid(tmp_path, FIRST, SECOND)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"cderetrieval.retrieval.{step}", stop)
    with pytest.raises(KeyboardInterrupt):
        Hybrid.load(tmp_path, models=MODELS)
    monkeypatch.undo()
    with Hybrid.load(tmp_path, models=MODELS) as hybrid:
        assert list(hybrid("bees honey", k=5)) == list(expected(NEW)("bees honey", k=5))
        hybrid.collection.check()
    with Hybrid.load(tmp_path, models=MODELS) as hybrid:
        assert len(hybrid.add([{"id": "e", "text": "eels"}])) == 4
        hybrid.save(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("part-", "hybrid"))], "no leftovers"


@pytest.mark.parametrize("stamps", [(FIRST, SECOND), (SECOND, FIRST)])
def test_a_part_that_is_behind_in_every_document_is_embedded_anew(tmp_path, stamps):
    write_hybrid(tmp_path, *stamps)
    ahead = Store(tmp_path / f"part-{stamps.index(SECOND)}" / "store.sqlite")
    with ahead, ahead.transaction():  # the change that one part lacks replaced them all
        ahead.put_documents([("c", "ants march", {"id": "c", "text": "ants march"})])
        for seqs, texts in ahead.pending():
            ahead.put_vectors(seqs, MODELS["one" if stamps[0] is SECOND else "two"].encode_document(texts))
    with Hybrid.load(tmp_path, models=MODELS) as hybrid:
        hybrid.collection.check()
        order = {i: text for i, text, _ in hybrid.collection.rows()}
        assert list(hybrid("bees honey", k=5)) == list(expected(order)("bees honey", k=5))


def test_two_processes_may_merge_at_once(tmp_path, monkeypatch):
    write_hybrid(tmp_path, FIRST, FIRST)

    def late(place):
        """Another process merges, and adds, before this one has locked the parts."""
        monkeypatch.undo()
        store = _store(place)
        with Hybrid.load(tmp_path, models=MODELS) as other:
            other.add([{"id": "new", "text": "eels"}])
        return store

    monkeypatch.setattr("cderetrieval.retrieval.merge._store", late)
    with Hybrid.load(tmp_path, models=MODELS) as hybrid:
        assert "new" in hybrid
        assert len(hybrid) == 4


def test_parts_that_do_not_belong_together_are_refused_and_left_alone(tmp_path):
    write_hybrid(tmp_path, FIRST, {"change": "x", "previous": "y", "first": 4})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.sqlite")}
    with pytest.raises(StoreError, match="do not belong together"):
        Hybrid.load(tmp_path, models=MODELS)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.sqlite")} == before


def test_one_that_is_being_written_is_left_alone(tmp_path):
    write_hybrid(tmp_path, FIRST, FIRST)
    store = Store(tmp_path / "part-1" / "store.sqlite")
    with store, store.transaction(), pytest.raises(LockedError, match="already open for writing"):
        Hybrid.load(tmp_path, models=MODELS)
    assert (tmp_path / "part-0" / "store.sqlite").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_one_that_can_only_be_read_is_read(tmp_path):
    write_hybrid(tmp_path, FIRST, SECOND)
    tmp_path.chmod(0o555)
    try:
        with Retriever.load(tmp_path, model=MODELS) as retriever:
            assert len(retriever) == 3
    finally:
        tmp_path.chmod(0o755)
    assert (tmp_path / "hybrid.json").exists()


def test_a_part_that_is_a_link_is_refused(tmp_path):
    write_hybrid(tmp_path / "index", FIRST, FIRST)
    (tmp_path / "index" / "part-1").rename(tmp_path / "elsewhere")
    (tmp_path / "index" / "part-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="part-1 is a symbolic link"):
        Hybrid.load(tmp_path / "index", models=MODELS)
