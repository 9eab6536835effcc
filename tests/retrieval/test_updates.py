"""An index kept in step with a source: open or create, add what is new, sync, remove by filter, and who may write."""

import shutil
import subprocess
import sys
import threading
from datetime import date
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval import Hybrid, Retriever
from cderetrieval.corpora.files import read_files
from cderetrieval.errors import InputError, LockedError, MismatchError, StoreError
from cderetrieval.retrieval.changes import Changes
from cderetrieval.testing import HashEncoder, tiny_model, tiny_model_directory

ROWS = [{"id": n, "text": f"about {n}", "n": n} for n in range(8)]


class Counting(HashEncoder):
    """Counts the texts that it embeds."""

    embedded = 0

    def encode_document(self, texts, *, show_progress=False):
        self.embedded += len(texts)
        return super().encode_document(texts)


@pytest.fixture
def counting():
    encoder = Counting()
    retriever = Retriever(encoder).add(ROWS)
    encoder.embedded = 0
    return retriever, encoder


def test_unchanged_documents_are_not_embedded(counting):
    retriever, encoder = counting
    generation = retriever.collection.generation
    retriever.add(ROWS)
    assert (encoder.embedded, retriever.last_change) == (0, Changes(unchanged=8))
    assert retriever.collection.generation == generation, "nothing was written"
    retriever.add([*ROWS[:3], {**ROWS[3], "n": 3.0}, {**ROWS[4], "n": True}, {"id": 9, "text": "new"}])
    assert (encoder.embedded, retriever.last_change) == (1, Changes(1, 2, 3)), "fields alone need no model"
    assert retriever.get(3) == {**ROWS[3], "n": 3.0}
    assert type(retriever.get(3)["n"]) is float


def test_ready_vectors_always_replace(counting):
    retriever, _ = counting
    vectors = retriever.encoder.encode_document(["about 1", "about 0"])
    retriever.add(ROWS[:2], vectors=vectors)
    assert retriever.last_change == Changes(replaced=2)
    assert retriever.search("about 1", k=1)[0]["id"] == 0


@pytest.mark.parametrize("model", [HashEncoder(), tiny_model(), [HashEncoder("a"), HashEncoder("b")]], ids=type)
def test_sync(model):
    retriever = Retriever(model).add(ROWS)
    source = [{**ROWS[1], "n": 7}, *ROWS[2:5], {"id": "1", "text": "another one"}]
    assert retriever.sync(iter(source)) == Changes(1, 1, 3, 4)
    assert sorted(retriever.ids(), key=str) == [1, "1", 2, 3, 4]
    assert sorted(retriever, key=str) == sorted(source, key=str)
    assert retriever.sync(source) == Changes(unchanged=5)
    assert {hit["id"] for hit in retriever.search("about", k=99)} == {1, "1", 2, 3, 4}


@pytest.mark.parametrize("source", [[], [*ROWS[:2], {"id": 3}], [ROWS[0], ROWS[0]], iter(()), [{"id": 1, "text": ""}]])
def test_a_sync_that_fails_leaves_the_index_as_it_was(counting, source):
    retriever, _ = counting
    with pytest.raises(InputError):
        retriever.sync(source)
    assert list(retriever) == ROWS


def test_a_source_that_changes_the_index_it_is_read_for_is_refused(counting):
    retriever, _ = counting

    def source():
        retriever.remove(0)
        yield ROWS[0]

    with pytest.raises(InputError, match="what yields them cannot change it"):
        retriever.sync(source())
    assert len(retriever) == 8


def test_a_sync_without_changes_loads_no_model(tmp_path, monkeypatch):
    with Retriever(tiny_model_directory(), path=tmp_path) as retriever:
        retriever.add(ROWS)
    monkeypatch.setattr("cderetrieval.models.load.load", None)
    with Retriever.load(tmp_path) as retriever:
        assert retriever.sync(ROWS[:5]) == Changes(unchanged=5, removed=3)


def test_remove_by_filter(counting):
    retriever, _ = counting
    retriever.remove(filter={"$or": [{"n": {"<": 2}}, {"text": {"$contains": "7"}}]})
    assert retriever.ids() == [2, 3, 4, 5, 6]
    assert retriever.last_change == Changes(removed=3)
    retriever.remove(filter={"n": 99})
    for wrong in ({"filter": {}}, {"filter": {"$and": [{}]}}, {}, {"ids": 3, "filter": {"n": 3}}, {"ids": [3, 99]}):
        with pytest.raises(InputError, match=r"filter|99"):
            retriever.remove(**wrong)
    assert len(retriever) == 5


def test_one_query_has_one_list_of_hits(counting):
    retriever, _ = counting
    assert retriever.search("about 3", k=2) == retriever("about 3", k=2)[0]
    assert retriever.search(["about 3"], k=2) == retriever("about 3", k=2)
    assert retriever.search({"q": "about 3"}, filter={"n": 2}).query_ids == ["q"]


def test_ids_may_be_uuids_and_dates():
    first, day = UUID(int=1), date(2024, 2, 29)
    retriever = Retriever(HashEncoder()).add([{"id": first, "text": "a"}, {"id": day, "text": "b", "when": day}])
    assert retriever.ids() == [str(first), "2024-02-29"]
    assert first in retriever
    assert retriever.get([day, first, "x"]) == [
        {"id": "2024-02-29", "text": "b", "when": "2024-02-29"},
        {"id": str(first), "text": "a"},
        None,
    ]
    assert retriever.remove(first).search("b", filter={"when": {">": date(2024, 1, 1)}})[0]["id"] == "2024-02-29"


def test_rows_without_ids_are_known_by_their_content(caplog):
    rows = [{"text": "owls", "n": 1}, {"text": "bees"}, {"n": 1, "text": "owls"}]
    retriever = Retriever(HashEncoder()).add(rows)
    assert "1 documents without an id are repeated" in caplog.text
    assert retriever.sync([*rows, {"text": "owls", "n": True}, {"id": 7, "text": "ants"}]) == Changes(2, 0, 2, 0)
    found = retriever.search("bees", k=1, documents=True)[0]
    assert found["document"] == {"id": found["id"], "text": "bees"}
    for wrong in ([{"id": 1, "text": "a"}, {"text": "b"}], [{"text": "b", "id": None}]):
        with pytest.raises(InputError, match=r"document \d.*'id'"):
            retriever.add(wrong)
    with pytest.raises(InputError, match="no field 'key'"):
        Retriever(HashEncoder(), key="key").add(rows)


def test_a_folder_is_synced_and_what_cannot_be_read_stays(tmp_path):
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    for name in ("owls.md", "bees.txt", "sub/ants.md"):
        (folder / name).write_text(f"All about {name}.")
    retriever = Retriever(HashEncoder()).add_files(folder)
    assert retriever.sync(read_files(folder)) == Changes(unchanged=3)
    (folder / "owls.md").write_bytes(bytes(range(256)))
    (folder / "bees.txt").unlink()
    (folder / "sub" / "ants.md").write_text("Ants again.")
    files = read_files(folder)
    assert retriever.sync(files) == Changes(replaced=1, removed=1)
    assert len(files.skipped) == 1
    assert retriever.ids() == ["owls.md", "sub/ants.md"]


def test_an_unreadable_table_stops_no_sync_and_loses_no_row(tmp_path, caplog):
    for name in ("owls.md", "bees.md"):
        (tmp_path / name).write_text(f"All about {name}.")
    # ids of their own, of which one looks like a path; and numbers
    (tmp_path / "rows.csv").write_text("id,text\n1,one\nants.md,two\n")
    (tmp_path / "more.csv").write_text("text\nthree\nfour\n")
    retriever = Retriever(HashEncoder()).add_files(tmp_path)
    (tmp_path / "rows.csv").write_text('id,text\n1,one,"')
    (tmp_path / "more.csv").unlink()
    (tmp_path / "bees.md").unlink()
    (tmp_path / "cats.md").write_text("Cats are new.")
    assert retriever.sync(read_files(tmp_path)) == Changes(added=1, unchanged=1, removed=3)
    assert sorted(retriever.ids()) == ["1", "ants.md", "cats.md", "owls.md"]
    assert "2 documents were not found, and stay: they may be in" in caplog.text
    (tmp_path / "rows.csv").write_text("id,text\n1,one\n")
    assert retriever.sync(read_files(tmp_path)) == Changes(unchanged=3, removed=1)


def test_open_makes_an_index_and_opens_it_again(tmp_path):
    place, model = tmp_path / "index", tiny_model_directory()
    options = {"on": "text", "context_size": 4, "passages": 64, "index": "Flat"}
    with Retriever.open(place, model, **options) as retriever:
        assert len(retriever) == 0
    for wanted in (model, None):
        with Retriever.open(place, wanted, **options) as retriever:
            retriever.add(ROWS)
    for name, value in {
        "on": "title",
        "key": "k",
        "context_size": 5,
        "passages": None,
        "index": "auto",
        "seed": 1,
    }.items():
        with pytest.raises(MismatchError, match=rf"made with {name}="):
            Retriever.open(place, model, **{name: value})
    with pytest.raises(MismatchError, match="document_context"):
        Retriever.open(place, model, document_context={"prefix": 7})
    with pytest.raises(MismatchError, match="fingerprint"):
        Retriever.open(place, HashEncoder())
    with pytest.raises(MismatchError, match="was built with"):
        Retriever.open(place, [model, "bm25"])
    with pytest.raises(TypeError):
        Retriever.open(place, model, nonsense=3)


def test_open_of_several_models(tmp_path):
    models = {"a": HashEncoder("a"), "b": HashEncoder("b")}
    with Retriever.open(tmp_path, models, fusion="weighted", index={"a": "Flat", "b": "auto"}) as retriever:
        retriever.add(ROWS)
    with Hybrid.open(tmp_path, models, fusion="weighted", index={"a": "Flat", "b": "auto"}) as retriever:
        assert len(retriever) == 8
    with pytest.raises(MismatchError, match="fusion"):
        Retriever.open(tmp_path, models, fusion="rrf")
    with pytest.raises(MismatchError, match="fingerprint"):
        Retriever.open(tmp_path, {**models, "b": HashEncoder("c")})


def test_two_that_create_one_index_at_a_time(tmp_path):
    first, second, third = (Retriever.open(tmp_path, HashEncoder(), on=on) for on in ("text", "text", "title"))
    first.add(ROWS[:2])
    assert len(second.add(ROWS[2:])) == 8
    with pytest.raises(MismatchError, match="with other settings"):
        third.add([{"id": 1, "title": "x"}])
    assert len(first) == 8


def test_save_over_an_index(tmp_path, counting):
    retriever, _ = counting
    retriever.save(tmp_path / "copy")
    with Retriever.load(tmp_path / "copy", model=Counting()) as old:
        retriever.remove([0, 1])
        with pytest.raises(StoreError, match="pass overwrite=True"):
            retriever.save(tmp_path / "copy")
        retriever.save(tmp_path / "copy", overwrite=True)
        with pytest.raises(StoreError, match="Open it again"):
            old("about 3")
    with Retriever.load(tmp_path / "copy", model=Counting()) as new:
        assert [hit["id"] for hit in new.search("about 3", k=9)] == [
            hit["id"] for hit in retriever.search("about 3", 9)
        ]
    (tmp_path / "copy" / "server.json").write_text('{"index": "milvus://a:1/b"}')
    with pytest.raises(StoreError, match="Remove it first"):
        retriever.save(tmp_path / "copy", overwrite=True)


NIGHTLY = """
import sys
from cderetrieval import Retriever
from cderetrieval.testing import HashEncoder
with Retriever.open(sys.argv[1], HashEncoder()) as retriever:
    print(retriever.sync([{"id": n, "text": f"night {n}"} for n in range(4)]))
"""


def test_a_service_that_added_once_does_not_block_a_nightly_update_and_follows_it(tmp_path):
    def nightly():
        return subprocess.run(
            [sys.executable, "-c", NIGHTLY, str(tmp_path)], capture_output=True, text=True, timeout=60
        )

    with Retriever.open(tmp_path, HashEncoder()) as service:
        service.add(ROWS)("about 3")
        assert "0 added, 4 replaced, 0 unchanged, 4 removed" in nightly().stdout
        assert service.search("night 2", k=9)[0]["id"] == 2
        assert len(service.add([{"id": 9, "text": "about 9"}])) == 5
        with service.exclusive():
            assert "LockedError" in nightly().stderr
            service.remove(9)
        assert "4 unchanged" in nightly().stdout


def test_threads_add_and_search(tmp_path):
    found, errors = [], []
    with Retriever.open(tmp_path, HashEncoder()) as retriever:
        retriever.add(ROWS)

        def work(number):
            try:
                for turn in range(5):
                    retriever.add([{"id": f"{number}-{turn}", "text": f"thread {number} {turn}"}])
                    found.append(retriever.search(f"thread {number} {turn}", k=1)[0]["id"] == f"{number}-{turn}")
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (errors, found, len(retriever)) == ([], [True] * 20, 28)
        other = Retriever.load(tmp_path, model=HashEncoder())
        with retriever.exclusive(), pytest.raises(LockedError):
            other.add([{"id": 1, "text": "x"}])


def test_ids_that_are_named_twice_are_counted_once():
    retriever = Retriever(HashEncoder()).add(ROWS).remove([1, 1, 2])
    assert retriever.last_change.removed == 2


def test_names_that_are_no_text_in_fields_of_fields_change_nothing():
    rows = [{"id": 1, "text": "owls", "sizes": {1: "small", None: [{2: 3}]}}]
    retriever = Retriever(HashEncoder()).add(rows)
    assert retriever.sync(rows).unchanged == 1


def test_a_file_with_a_hash_in_its_name_stays_while_it_cannot_be_read(tmp_path):
    for name in ("a#b.md", "c.md"):
        (tmp_path / name).write_text("owls")
    retriever = Retriever("bm25").add_files(tmp_path)
    (tmp_path / "a#b.md").write_bytes(b"\0")
    assert retriever.sync(read_files(tmp_path)) == (0, 0, 1, 0)


def test_a_folder_that_cannot_be_read_may_hold_tables(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.md", "b.md", "sub/c.md"):
        (tmp_path / name).write_text("owls")
    (tmp_path / "sub" / "rows.csv").write_text("id,text\njar,honey\n")
    retriever = Retriever("bm25").add_files(tmp_path)
    shutil.move(tmp_path / "sub", tmp_path.with_name("elsewhere"))
    (tmp_path / "b.md").unlink()

    def files():
        found = read_files(tmp_path)
        found._listing.unreadable[f"{tmp_path}/sub"] = "cannot be read (Permission denied)"
        return found

    assert retriever.sync(files()) == (0, 0, 1, 1)
    assert retriever.ids() == ["a.md", "sub/c.md", "jar"]


@pytest.mark.parametrize("model", ["bm25", Counting()])
def test_fields_alone_are_replaced_without_a_model_and_seen_by_others(model, tmp_path):
    rows = [{"id": n, "title": "owls", "text": f"night {n}", "year": 2000} for n in range(700)]
    retriever = Retriever.open(tmp_path, model)
    retriever.sync(rows)
    before = retriever("night 7")
    with retriever, Retriever.load(tmp_path, model=model) as other:
        assert other("night 7", filter={"year": 2001}) == [[]]
        numbers = retriever.collection.live_seqs().tolist()
        embedded = getattr(model, "embedded", 0)
        changed = [{**row, "year": 2001} if row["id"] % 2 else row for row in rows]
        assert retriever.sync(changed) == (0, 350, 350, 0)
        assert retriever.sync(changed) == (0, 0, 700, 0)
        assert (retriever.collection.live_seqs().tolist(), getattr(model, "embedded", 0)) == (numbers, embedded)
        hit = other("night 7", filter={"year": 2001}, documents=True)[0][0]
        assert (hit["id"] % 2, hit["document"]) == (1, changed[hit["id"]])

        mixed = [{**rows[2], "text": "new"}, {**rows[4], "year": 4}, {"id": "new", "text": "x"}, {**rows[6], "year": 6}]
        assert retriever.add(mixed).last_change == (1, 3, 0, 0)
        assert retriever.get([2, 4, "new", 6]) == mixed
        assert retriever.add([rows[2], rows[4], rows[6]]).remove("new").last_change == (0, 0, 0, 1)
        before = retriever("night 7")

        def broken():
            yield {**rows[7], "year": 1}
            yield {"id": "new", "text": "x"}
            raise OSError

        with pytest.raises(OSError):
            retriever.add(broken())
        assert retriever.get(7) == changed[7]
    with Retriever.load(tmp_path, model=model) as again:
        assert sorted(again, key=lambda row: row["id"]) == changed
        assert again("night 7") == before


@pytest.mark.parametrize("change", ["add", "sync"])
def test_fields_are_replaced_between_documents_that_are_embedded(change, tmp_path, monkeypatch):
    """Documents are compared some at a time, while those before them are being put."""
    monkeypatch.setattr("cderetrieval.retrieval.changes.CHUNK", 2)
    rows = [{"id": n, "text": f"night {n}", "year": 2000} for n in range(7)]
    with Retriever(HashEncoder(), path=tmp_path).add(rows) as retriever:
        rows[0], rows[3] = {**rows[0], "text": "new"}, {**rows[3], "year": 2001}
        rows += [{"id": 7, "text": "newer", "year": 2002}]
        rows[6] = {**rows[6], "year": 2003}
        getattr(retriever, change)(rows)
        assert retriever.last_change == (1, 3, 4, 0)
        assert retriever.get(list(range(8))) == rows
        retriever.collection.check()


VERSIONS = st.dictionaries(
    st.integers(0, 6), st.tuples(st.sampled_from(["owl", "bee " * 30]), st.integers(0, 1)), min_size=1
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "sync", "remove"]), VERSIONS), max_size=6))
def test_any_history_ends_with_what_a_dictionary_holds(history):
    """Documents that are new, changed in text or in a field, as they were, or gone, two at a time."""
    held = {}
    with pytest.MonkeyPatch.context() as patch, Retriever(HashEncoder(), passages=10) as retriever:
        patch.setattr("cderetrieval.retrieval.changes.CHUNK", 2)
        for change, versions in history:
            rows = {n: {"id": n, "text": text, "year": year} for n, (text, year) in versions.items()}
            gone = set()
            if change == "remove":
                gone, rows = held.keys() & rows.keys(), {}
                retriever.remove(gone)
            else:
                getattr(retriever, change)(iter(rows.values()))
                gone = held.keys() - rows.keys() if change == "sync" else gone
            same = sum(held.get(n) == row for n, row in rows.items())
            added = len(rows.keys() - held.keys())
            assert retriever.last_change == (added, len(rows) - added - same, same, len(gone))
            held = {n: row for n, row in (held | rows).items() if n not in gone}
            assert {row["id"]: row for row in retriever} == held
            retriever.collection.check()
        if held:
            found = {hit["id"]: round(hit["similarity"], 5) for hit in retriever("owl bee", k=9)[0]}
            anew = Retriever(HashEncoder(), passages=10).add(list(held.values()))("owl bee", k=9)[0]
            assert found == {hit["id"]: round(hit["similarity"], 5) for hit in anew}


def test_another_model_may_not_replace_fields(tmp_path):
    with Retriever.open(tmp_path, HashEncoder()) as own, Retriever.open(tmp_path, HashEncoder("another")) as other:
        own.add(ROWS)
        with pytest.raises(MismatchError):
            other.add([{**ROWS[0], "more": 1}])
        assert list(own) == ROWS


def test_fields_that_cannot_be_kept_name_their_row():
    retriever = Retriever(HashEncoder()).add(ROWS)
    with pytest.raises(InputError, match=r"row 1: field 'more' cannot be stored"):
        retriever.add([{"id": 9, "text": "new"}, {**ROWS[0], "more": {1, 2}}])
    assert list(retriever) == ROWS


def test_fields_by_which_a_document_is_read_replace_all_of_it():
    rows = [{"id": 1, "passages": ["owls", "bees fly"]}]
    retriever = Retriever("bm25").add(rows)
    rows[0]["passages"] = ["owls", {"text": "bees fly", "heading": "insects"}]
    before = retriever.collection.live_seqs().tolist()
    assert retriever.sync(rows).replaced == 1
    assert retriever.collection.live_seqs().tolist() != before
