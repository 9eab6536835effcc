"""The directory of an index: links in it, permissions, what killed processes left, and places that only can be read."""

import os
import stat

import pytest

from cderetrieval import Context, Hybrid, Retriever
from cderetrieval.errors import StoreError
from cderetrieval.files import as_path
from cderetrieval.store import Store
from cderetrieval.testing import HashEncoder, tiny_model

DOCUMENTS = [{"id": i, "text": f"text number {i}"} for i in range(20)]


def make(directory, model=None, **options):
    return Retriever(model or HashEncoder(), on="text", path=directory, **options).add(DOCUMENTS, show_progress=False)


def modes(directory):
    return {p.name: stat.S_IMODE(p.stat().st_mode) for p in directory.rglob("*") if p.is_file()}


@pytest.fixture
def index(tmp_path):
    make(tmp_path / "index").close()
    return tmp_path / "index"


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "elsewhere" / "precious"
    path.parent.mkdir()
    path.write_text("not yours")
    yield path
    assert path.read_text() == "not yours"
    assert os.listdir(path.parent) == ["precious"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["writer.lock", "store.sqlite-wal", "store.sqlite-shm", "store.sqlite-journal"])
def test_what_a_link_leads_to_is_not_written(index, victim, name, link):
    (index / name).unlink(missing_ok=True)
    link(victim, index / name)
    with pytest.raises(StoreError, match=name), Retriever.load(index, model=HashEncoder()) as retriever:
        retriever.remove(3)


def test_a_link_that_leads_nowhere_makes_no_file_there(index, tmp_path):
    (index / "writer.lock").unlink()
    (index / "writer.lock").symlink_to(tmp_path / "new")
    with Retriever.load(index, model=HashEncoder()) as retriever, pytest.raises(StoreError, match=r"writer\.lock"):
        retriever.remove(3)
    assert not (tmp_path / "new").exists()


def test_a_pipe_as_lock_is_refused(index):
    (index / "writer.lock").unlink()
    os.mkfifo(index / "writer.lock")
    with Retriever.load(index, model=HashEncoder()) as retriever, pytest.raises(StoreError, match=r"writer\.lock"):
        retriever.remove(3)


def test_a_journal_that_names_another_file_is_refused(index, victim):
    (index / "store.sqlite-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(str(victim), "ascii"))
    with pytest.raises(StoreError, match="journal was not written by this package"):
        Retriever.load(index)


def test_caches_and_logs_that_are_links_are_replaced(index, victim, tmp_path):
    for name in ("index.json", "index.faiss", "index.safetensors"):
        (index / name).unlink()
        (index / name).symlink_to(victim)
    with Retriever.load(index, model=HashEncoder()) as retriever:
        retriever.remove(3)
    assert not any(path.is_symlink() for path in index.iterdir())
    with Store(index / "store.sqlite") as store:
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "store.sqlite-wal").symlink_to(victim)
        with pytest.raises(StoreError, match="wal"):
            store.backup(tmp_path / "copy" / "store.sqlite")


def test_a_store_that_is_a_link_is_only_read(index, tmp_path):
    make(tmp_path / "other").close()
    before = {p.name: p.read_bytes() for p in (tmp_path / "other").iterdir()}
    (index / "store.sqlite").unlink()
    (index / "store.sqlite").symlink_to(tmp_path / "other" / "store.sqlite")
    with Retriever.load(index, model=HashEncoder()) as retriever:
        assert retriever(["text number 7"], k=1)[0][0]["id"] == 7
        with pytest.raises(StoreError, match="symbolic link"):
            retriever.remove(3)
    with Store() as store, pytest.raises(StoreError, match="symbolic link"):
        store.backup(index / "store.sqlite")
    assert {p.name: p.read_bytes() for p in (tmp_path / "other").iterdir()} == before


def test_a_part_that_is_a_link_is_refused(index, tmp_path):
    hybrid = Hybrid({"a": HashEncoder(), "b": HashEncoder()}, on="text", path=tmp_path / "hybrid")
    hybrid.add(DOCUMENTS, show_progress=False).close()
    (tmp_path / "hybrid" / "part-0").rename(tmp_path / "moved")
    (tmp_path / "hybrid" / "part-0").symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="part-0 is a symbolic link"):
        Hybrid.load(tmp_path / "hybrid", models={"a": HashEncoder(), "b": HashEncoder()})


def test_the_directory_itself_may_be_a_link(index, tmp_path):
    (tmp_path / "link").symlink_to(index)
    with Retriever.load(tmp_path / "link", model=HashEncoder()) as retriever:
        assert len(retriever.remove(3)) == 19


@pytest.mark.parametrize("model", [HashEncoder(), "bm25"])
def test_all_files_of_an_index_are_private(tmp_path, model):
    with make(tmp_path / "index", model) as retriever:
        assert {"store.sqlite-wal", "store.sqlite-shm"} <= set(modes(tmp_path / "index"))
        assert set(modes(tmp_path / "index").values()) == {0o600}
        retriever.save(tmp_path / "copy")
    for name in ("index", "copy"):
        found = modes(tmp_path / name)
        assert {"store.sqlite", "index.json", "writer.lock"} < set(found)
        assert set(found.values()) == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "index").glob("weights-*")} <= {0o700}


@pytest.mark.parametrize("model", [HashEncoder(), "bm25"])
def test_all_files_follow_the_permissions_that_a_user_gave_the_store(tmp_path, model):
    make(tmp_path / "index", model).close()
    (tmp_path / "index" / "store.sqlite").chmod(0o640)
    with Retriever.load(tmp_path / "index", model=model) as retriever:
        retriever.remove(3)
        retriever.save(tmp_path / "copy")
    for name in ("index", "copy"):
        assert set(modes(tmp_path / name).values()) == {0o640}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "index").glob("weights-*")} <= {0o750}


def test_a_hybrid_and_a_context_are_private_too(tmp_path):
    with Hybrid({"a": HashEncoder(), "b": HashEncoder()}, on="text") as hybrid:
        hybrid.add(DOCUMENTS, show_progress=False).save(tmp_path / "hybrid")
    Context.random(tiny_model(), size=4).save(tmp_path / "c.safetensors")
    assert set(modes(tmp_path).values()) == {0o600}


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make("~/a").save("~/b").close()
    assert len(Retriever.load("~/b", model=HashEncoder())) == 20
    context = Context.random(tiny_model(), size=4)
    context.save("~/c.safetensors")
    assert Context.load("~/c.safetensors") == context
    with Hybrid({"a": HashEncoder(), "b": HashEncoder()}, on="text", path="~/h") as hybrid:
        hybrid.add(DOCUMENTS, show_progress=False).save("~/i")
    Hybrid.load("~/i", models={"a": HashEncoder(), "b": HashEncoder()}).close()
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c.safetensors", "h", "i"]
    assert as_path("a~") == as_path("./a~")
