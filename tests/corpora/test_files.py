"""Files, folders, globs and standard input as documents; what cannot be read is named and skipped."""

import gzip
import io
import json
import logging
import os
import re
import sys
from collections import Counter

import pytest

from cderetrieval import Retriever
from cderetrieval.corpora import read_files
from cderetrieval.errors import InputError

from .formats import docx, encrypted_pdf, notebook, pdf

NOTES = {
    "owls.md": b"# Owls\n\nThey hunt.\n\n## Food\n\nMice.\n",
    "front.md": b"---\r\ntitle: 'Swifts'\r\ntags: [birds]\r\n---\r\nThey sleep in the air.\r\n",
    "bees.rst": b"Bees\n====\n\nHive\n----\n\nA box.\n",
    "trains.txt": b"Trains run\non rails.\n",
    "README": "Café, in UTF-16".encode("utf-16"),
    "old.log.gz": gzip.compress(b"a line of a log\n"),
    "deep/er/ants.html": b"<title>Ants</title><p>Ants carry leaves.</p>",
    "deep/lions.pdf": pdf([["Lions sleep."]]),
    "deep/fish.docx": docx([("Heading1", "Fish"), ("", "They swim.")]),
    "deep/plot.ipynb": notebook(("markdown", "# Plots"), ("code", "plot()")),
    "clock.py": b'# Comment\ndef tick():\n    return "tock"\n',
    "config.json": b'{"port": 80}',
}
TABLES = {
    "one.json": b'{"id": "o", "text": "one object"}',
    "list.json": b'[{"text": "no id"}, {"id": 5, "text": "five"}]',
    "lines.json": b'{"id": "l1", "text": "x"}\n{"id": "l2", "text": "y"}\n',
    "rows.jsonl": b'{"_id": "r1", "text": "x"}\n',
    "rows.csv": b"text,year,zip,price\ntrees,2019,02134,1.5\ngrass,,10115,2\n",
    "rows.tsv.gz": gzip.compress(b"id\ttext\n7\ttides\n"),
}


def folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def by_id(files):
    return {row["id"]: row for row in files}


def test_every_format_becomes_one_document_with_its_headings(tmp_path):
    found = by_id(files := read_files(folder(tmp_path, NOTES)))
    assert list(found) == sorted(NOTES)
    texts = {name: (row["title"], row["text"], row["kind"]) for name, row in found.items()}
    assert texts == {
        "owls.md": ("Owls", "They hunt.\n\n## Food\n\nMice.\n", "markdown"),
        "front.md": ("Swifts", "They sleep in the air.\n", "markdown"),
        "bees.rst": ("Bees", "## Hive\n\nA box.\n", "restructuredtext"),
        "trains.txt": ("trains", "Trains run\non rails.\n", "text"),
        "README": ("README", "Café, in UTF-16", "text"),
        "old.log.gz": ("old", "a line of a log\n", "text"),
        "deep/er/ants.html": ("Ants", "Ants carry leaves.", "html"),
        "deep/lions.pdf": ("lions", "Lions sleep.", "pdf"),
        "deep/fish.docx": ("Fish", "They swim.", "docx"),
        "deep/plot.ipynb": ("Plots", "```python\nplot()\n```", "notebook"),
        "clock.py": ("clock", NOTES["clock.py"].decode(), "code"),
        "config.json": ("config", '{"port": 80}', "json"),
    }
    assert found["deep/lions.pdf"]["path"] == f"{tmp_path.as_posix()}/deep/lions.pdf"
    assert files.read.total() == files.documents == len(NOTES)
    assert repr(files).startswith("12 documents from 12 files (1 code, 1 docx, 1 html, 1 json, 2 markdown")


def test_modified_is_a_time_that_sorts(tmp_path):
    path = folder(tmp_path, {"a.md": b"owls"}) / "a.md"
    os.utime(path, (0, 1_700_000_000))
    assert next(iter(read_files(path)))["modified"] == "2023-11-14T22:13:20+00:00"


def test_rows_are_documents_with_their_own_ids_and_fields(tmp_path):
    found = by_id(read_files(folder(tmp_path, TABLES)))
    assert list(found) == ["l1", "l2", "list.json#1", 5, "o", "rows.csv#2", "rows.csv#3", "r1", "7"]
    assert found["rows.csv#2"] == {"id": "rows.csv#2", "text": "trees", "year": 2019, "zip": "02134", "price": 1.5}
    assert found["rows.csv#3"]["year"] is None
    assert found["r1"] == {"id": "r1", "text": "x"}
    assert list(by_id(read_files(tmp_path / "rows.csv"))) == ["2", "3"]


def test_lines_of_plain_text_when_asked(tmp_path):
    path = folder(tmp_path, {"a.txt": b"one\n\nthree\n", "b.md": b"two\nlines\n"})
    assert list(read_files(path / "a.txt", lines=True)) == [{"id": "1", "text": "one"}, {"id": "3", "text": "three"}]
    assert list(by_id(read_files(path, lines=True))) == ["a.txt#1", "a.txt#3", "b.md"]
    assert len(list(read_files(path / "a.txt"))) == 1


def test_a_beir_folder_is_its_corpus(tmp_path):
    rows = {"corpus.jsonl": b'{"_id": "d", "text": "owls"}\n', "queries.jsonl": b'{"_id": "q", "text": "q"}\n'}
    assert list(by_id(read_files(folder(tmp_path, rows)))) == ["d"]


def test_hidden_files_links_and_what_programs_keep_are_left_out(tmp_path):
    outside = folder(tmp_path / "outside", {"secret.md": b"secret"})
    hidden = (".hidden.md", ".git/a.md", "node_modules/a.md", "__pycache__/a.md", "env/pyvenv.cfg", "env/lib/a.md")
    kept = folder(tmp_path / "notes", dict.fromkeys(("z.md", *hidden, "i/store.sqlite", "i/model.json", "p.png"), b"x"))
    (kept / "link.md").symlink_to(outside / "secret.md")
    (kept / "folder").symlink_to(outside)
    (kept / "circle").symlink_to(kept)
    (kept / "inside.md").symlink_to(kept / "z.md")
    os.mkfifo(kept / "pipe.md")
    files = read_files(kept)
    assert list(by_id(files)) == ["z.md"]
    assert files.left_out == Counter({"links": 4, ".png": 1, ".md": 1})
    assert list(by_id(read_files(kept / "link.md"))) == [f"{kept.as_posix()}/link.md"], "it was named itself"


BAD = {
    "encrypted.pdf": (encrypted_pdf(), "encrypted; save a copy without a password"),
    "damaged.pdf": (b"%PDF-1.4\n junk", "is damaged"),
    "scan.pdf": (pdf([[]]), "no text was found in it; one that was scanned needs OCR"),
    "binary.txt": (bytes(range(256)), "binary, and no text"),
    "latin.md": (b"caf\xe9", "not text in UTF-8; convert it"),
    "half.docx": (docx([("", "owls")])[:200], "no DOCX"),
    "half.jsonl": (b'{"id": "h1", "text": "whole"}\n{"id": "h2"', "half.jsonl, line 2: not JSON"),
    "half.json": (b'[{"id": "h1"', "is damaged"),
    "cells.ipynb": (b'{"cells": 5}', "is damaged"),
    "deep.json": (b"[" * 100_000, "is damaged"),
    "long.md.gz": (gzip.compress(bytes(100_001)), "more than 100,000 bytes"),
    "long.md": (b"x" * 100_001, "more than 100,000 bytes; divide it"),
    "numbers.csv": (b"a,b\n1,2\n", "has no field 'text'"),
    "gap.csv": (b"id,text\n1,\n", "row 0 (id '1') has no text; skip_empty=True leaves it out"),
    "twice.jsonl": (b'{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\n', "rows 0 and 1 have the id 1"),
    "z.jsonl": (b'{"id": "owls.md", "text": "x"}\n', "its id 'owls.md' is also one of"),
}


def test_what_cannot_be_read_is_named_and_skipped(tmp_path, caplog):
    files = read_files(
        folder(tmp_path, {**NOTES, **{name: data for name, (data, _) in BAD.items()}}), max_bytes=100_000
    )
    assert list(by_id(files)) == sorted(NOTES)
    assert {path.rpartition("/")[2] for path in files.skipped} == set(BAD)
    for name, (_, reason) in BAD.items():
        told = [record.message for record in caplog.records if re.search(rf"/{name}\b(?!\.)", record.message)]
        assert len(told) == 1
        assert told[0].startswith("skipped: ")
        assert reason in told[0]
    assert "16 skipped" in repr(files)


@pytest.mark.parametrize("name", BAD)
def test_strict_ends_at_what_cannot_be_read(tmp_path, name):
    paths = [folder(tmp_path, {"owls.md": b"x", name: BAD[name][0]})]
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        list(read_files(paths, strict=True, max_bytes=100_000))


def test_rows_without_text_are_left_out_when_asked(tmp_path):
    path = folder(tmp_path, {"gap.csv": b"id,text\n1,\n2,owls\n"})
    files = read_files(path, skip_empty=True)
    assert list(by_id(files)) == ["2"]
    assert files.left_out["rows without text"] == 1


def test_a_folder_or_file_without_permission_is_named(tmp_path, caplog):
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden here")
    folder(tmp_path, {"a.md": b"a", "b.md": b"b", "c/d.md": b"d"})
    (tmp_path / "b.md").chmod(0)
    (tmp_path / "c").chmod(0)
    try:
        assert list(by_id(read_files(tmp_path))) == ["a.md"]
    finally:
        (tmp_path / "c").chmod(0o700)
    assert sorted(record.message.rpartition("/")[2].split()[0] for record in caplog.records) == ["b.md", "c"]


def test_empty_files_and_programs_are_counted_without_a_word(tmp_path, caplog):
    files = read_files(folder(tmp_path, {"a.md": b"a", "__init__.py": b"\n", "program": b"\x7fELF\0\0"}))
    assert len(list(files)) == 1
    assert files.left_out == Counter({"empty": 1, "without an ending": 1})
    assert caplog.records == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no document was found: there is no file\. Files that are read: \.md"),
        ({"a.png": b"x", "b.md": b""}, r"no document was found: left out: 1 \.png, 1 empty\. Files that are read"),
        ({"a.pdf": b"x"}, r"no document was found: 1 skipped \(.*a\.pdf is damaged .*\)\.$"),
    ],
)
def test_nothing_to_read_is_an_error(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        list(read_files(folder(tmp_path, files)))
    with pytest.raises(InputError, match=message), Retriever("bm25") as retriever:
        retriever.add_files(tmp_path)


def test_paths_that_lead_nowhere_fail_at_once(tmp_path):
    for path, message in ((tmp_path / "a.md", "a.md does not exist"), (f"{tmp_path}/*.md", "matches no file")):
        with pytest.raises(InputError, match=message):
            read_files(path)
    with pytest.raises(InputError, match="no path was given"):
        read_files([])
    for wrong in (5, None, [None], [b"a.md"]):
        with pytest.raises(InputError, match="is no path; name files or folders"):
            read_files(wrong)
    for name in ("x" * 5_000, "a\0b"):
        with pytest.raises(InputError, match="does not exist"):
            read_files(name)


def test_ids_are_paths_below_the_folder_or_as_named(tmp_path, monkeypatch):
    monkeypatch.chdir(folder(tmp_path, {"a/x.md": b"1", "a/b/y.md": b"2", "c/x.md": b"3"}))
    assert list(by_id(read_files("a/"))) == ["b/y.md", "x.md"]
    assert list(by_id(read_files(["./c/x.md", "a/**/*.md"]))) == ["c/x.md", "a/b/y.md", "a/x.md"]
    assert list(by_id(read_files(["a", "a", "a/b"]))) == ["b/y.md", "x.md"], "each file once"
    with pytest.raises(InputError, match=r"a/x\.md and c/x\.md would both have the id 'x\.md'.*a folder above both"):
        read_files(["a", "c"])


def test_a_name_that_is_no_text_can_be_stored(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff\n.md", "w") as file:
        file.write("owls")
    with Retriever("bm25") as retriever:
        assert retriever.add_files(tmp_path)("owls")[0][0]["id"] == "\\xff\n.md"


STREAMS = {
    "markdown": (b"# Owls\n\nThey hunt.", [{"id": "stdin", "title": "Owls", "text": "They hunt."}]),
    "pdf": (pdf([["Lions sleep."]]), [{"id": "stdin", "title": "stdin", "text": "Lions sleep."}]),
    "html": (b"\xef\xbb\xbf <p>Ants", [{"id": "stdin", "title": "stdin", "text": "Ants"}]),
    "docx": (docx([("Heading1", "Fish"), ("", "Swim.")]), [{"id": "stdin", "title": "Fish", "text": "Swim."}]),
    "json": (b'{"id": 1, "text": "x"}\n{"id": 2, "text": "y"}\n', [{"id": 1, "text": "x"}, {"id": 2, "text": "y"}]),
    ".csv": (b"id,text\n7,tides\n", [{"id": "7", "text": "tides"}]),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_standard_input(monkeypatch, kind):
    data, rows = STREAMS[kind]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    files = read_files("-", stdin_as=kind if kind.startswith(".") else None)
    found = [{name: row[name] for name in rows[0]} for row in files]
    assert found == rows
    assert "modified" not in next(iter(files))


def test_standard_input_of_an_unknown_kind(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x")))
    with pytest.raises(InputError, match=r"standard input cannot be read as '\.png'"):
        read_files("-", stdin_as="png")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        read_files("-")


def test_files_are_read_when_their_turn_comes(tmp_path):
    files = read_files(folder(tmp_path, {f"{n:03}.md": b"owls %d" % n for n in range(500)}))
    rows = iter(files)
    assert next(rows)["id"] == "000.md"
    (tmp_path / "499.md").write_text("bees")
    (tmp_path / "250.md").unlink()
    found = list(rows)
    assert len(found) == 498
    assert found[-1]["text"] == "bees"
    assert next(iter(files.skipped)).endswith("250.md")


def test_a_retriever_takes_its_own_fields(tmp_path):
    rows = {"a.csv": b"sku,body\n7,owls at night\n", "b.md": b"# no field of these"}
    with Retriever("bm25", key="sku", on="body") as retriever:
        retriever.add_files(folder(tmp_path, rows) / "a.csv", show_progress=False)
        assert retriever("owls", documents=True)[0][0]["document"] == {"sku": "7", "body": "owls at night"}
        with pytest.raises(InputError, match=r"no field 'body'; its fields are: sku, title, text, path"):
            retriever.add_files(tmp_path)
        assert len(retriever) == 1


def test_lists_of_passages_in_rows(tmp_path):
    rows = {"a.json": json.dumps([{"id": 1, "passages": ["owls", "bees"]}, {"id": 2, "text": "ants"}]).encode()}
    with Retriever("bm25") as retriever:
        hits = retriever.add_files(folder(tmp_path, rows))("bees")
    assert hits[0][0]["id"] == 1


def test_a_summary_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO, "cderetrieval")
    list(read_files(folder(tmp_path, {"a.md": b"a", "b.png": b""})))
    assert caplog.records[-1].message == "1 document from 1 file (1 markdown); left out: 1 .png"


def test_a_glob_goes_into_no_link(tmp_path):
    folder(tmp_path, {"a.md": b"a", "sub/b.md": b"b", "sub/deep/c.md": b"c", ".hidden/d.md": b"d"})
    for name in ("one", "two", "three"):  # followed, they would make a tree of 3 ** 40 folders
        (tmp_path / "sub" / name).symlink_to("..")
    for pattern in ("**/*.md", "**", "sub/../**/*.md"):
        found = [row["path"] for row in read_files(tmp_path / pattern)]
        assert [path.rpartition("/")[2] for path in found] == ["a.md", "b.md", "c.md"]
    assert len(list(read_files(tmp_path / "**/deep/**/*.md"))) == 1
    assert len(list(read_files(tmp_path / "s*/*.md"))) == 1


@pytest.mark.parametrize(
    ("paths", "how"), [("", {}), (["a", ""], {}), (".", {"max_bytes": 0}), (".", {"max_bytes": "1"})]
)
def test_arguments_that_mean_nothing(paths, how):
    with pytest.raises(InputError, match=r"no path was given|max_bytes="):
        read_files(paths, **how)


def test_a_table_that_changes_while_it_is_read(tmp_path):
    path = folder(tmp_path, {"a.csv": b"id,text,n\n" + b"7,owls,1\n"}) / "a.csv"
    rows = iter(read_files(path, on="text"))
    files = read_files(path)
    found = files._found(files._listing.sources[0])  # checked, and not yet read again
    path.write_bytes(b"id,body\n7,owls\n\xff")
    with pytest.raises(InputError, match=r"a\.csv"):
        list(found)
    with pytest.raises(InputError, match=r"a\.csv"):
        list(rows)
