"""What the command line prints, and how it ends."""

import json
import logging
import os
import re
import subprocess
import sys
import unicodedata

import pytest

from cderetrieval import DocumentContext, Retriever
from cderetrieval.cli import main
from cderetrieval.excerpts import excerpt, plain_words
from cderetrieval.runtime import pick_device
from cderetrieval.terminal import BOLD, UNDERLINE, Formatter, Mark, printable, say
from cderetrieval.testing import tiny_dense_directory, tiny_model

# A terminal obeys each: colours and titles, a bell, overwriting, C1, direction, lines that are none, half a character.
HOSTILE = "a\x1b[2J\x1b]0;x\x07\rb\x08\x7f\x9b31m\u202egnp\u2066\u2028c\ud800\n1  0.99 forged\td\x00"
ALL = [
    *map(chr, (*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029)),
    "\ud800",
]


def is_shown(text, lines=True):
    """Whether a terminal only shows a text, whose ends of lines may be its own."""
    return not any(
        unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") or c in ALL for c in text if c != "\n" or not lines
    )


@pytest.fixture
def index(tmp_path):
    documents = [
        {"id": "good", "text": "owls hunt at night"},
        {"id": HOSTILE.replace("\ud800", ""), "text": "owls " + HOSTILE.replace("\ud800", ""), "title": "\x1b[31mred"},
    ]
    with Retriever("bm25", path=tmp_path / "index") as retriever:
        retriever.add(documents)
    return str(tmp_path / "index")


def test_every_control_character_becomes_visible():
    assert printable("plain text, ümlaut, 漢字, العربية") == "plain text, ümlaut, 漢字, العربية"
    for character in ALL:
        assert printable(f"<{character}>") == f"<\\u{ord(character):04x}>"


def test_search_prints_no_control_characters(index, capsys):
    assert main(["search", index, f"owls {HOSTILE}"]) == 0
    shown = capsys.readouterr()
    assert is_shown(shown.out + shown.err)
    query, *lines = shown.out.splitlines()
    assert "forged" in query
    assert sorted(line.startswith("      ") for line in lines) == [False] * 2 + [True] * (len(lines) - 2)
    assert "forged" in "".join(line for line in lines if line.startswith("      "))


BODY = (
    "What this tells of animals is made up. " * 3
    + "\n\n# Owls\n\nOwls hunt mice at night. They sleep by day.\n\n"
    + " ".join(f"Bee {i} hums." for i in range(60))
)


@pytest.fixture
def cut(tmp_path):
    (tmp_path / "docs.jsonl").write_text(json.dumps({"id": 7, "title": "Animals", "text": BODY}) + "\n")
    arguments = ["index", str(tmp_path / "docs.jsonl"), "--on", "title", "text", "--passages", "24"]
    assert main([*arguments, "--model", "bm25", "--out", str(tmp_path / "cut")]) == 0
    return str(tmp_path / "cut")


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def isatty(self):
        return True

    def flush(self):
        pass


@pytest.mark.parametrize("by", ["document", "passage"])
def test_search_shows_passages(cut, capsys, by):
    capsys.readouterr()
    assert main(["search", cut, "hunting mouse mice", "bees", "--by", by, "-k", "3"]) == 0
    query, first, *lines = capsys.readouterr().out.splitlines()
    assert query == "hunting mouse mice"
    assert first.split()[2:] == ["7", "Animals", ">", "Owls"]
    assert lines[0].startswith("      # Owls Owls hunt mice at night.")
    assert sum("  7  Animals" in line for line in lines) == (1 if by == "document" else 3)
    assert main(["search", cut, "mice", "--json", "--by", by]) == 0
    hit = json.loads(capsys.readouterr().out.splitlines()[0])
    assert list(hit) == ["query", "rank", "id", "similarity", "document", "passage"]
    assert BODY[hit["passage"]["start"] : hit["passage"]["end"]] == hit["passage"]["text"]


def test_a_terminal_marks_words_and_the_best_sentence(cut, index, capsys, monkeypatch):
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    marks = re.compile("\x1b\\[[0-9;]*m")
    for place, query in ((cut, "hunting mice"), (index, f"owls {HOSTILE}")):
        monkeypatch.setattr("sys.stdout", stream := Terminal())
        assert main(["search", place, query]) == 0
        assert is_shown(marks.sub("", stream.text))
        assert set(marks.findall(stream.text)) <= {"\x1b[0m", "\x1b[1m", "\x1b[4m", "\x1b[1;4m"}
        assert max(len(marks.sub("", line)) for line in stream.text.splitlines()[1:]) <= 40
        if place == cut:
            sentence = "\x1b[4mOwls \x1b[0m\x1b[1;4mhunt\x1b[0m\x1b[4m \x1b[0m\x1b[1;4mmice\x1b[0m\x1b[4m at night."
            assert sentence in stream.text
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setattr("sys.stdout", plain := Terminal())
        assert main(["search", place, query]) == 0
        monkeypatch.delenv("NO_COLOR")
        assert plain.text == marks.sub("", stream.text)
        assert not re.search("\n\x1b", stream.text), "the space before a line is not marked"


def test_an_excerpt_of_a_long_text_begins_at_its_best_sentence():
    text = " ".join(f"Bee {i} hums." for i in range(1_000)) + " Owls hunt mice. " + "x" * 3_000
    lines = list(excerpt(text, "owls hunting mice", plain_words, 30))
    assert lines[0][0].startswith("… Owls hunt mice. x")
    assert lines[-1][0].endswith("…")
    assert [lines[0][0][a:b] for a, b, _ in lines[0][1]] == ["Owls hunt mice.", "Owls", "mice"]
    assert list(excerpt("日本の猫。犬は走る。", "犬", plain_words, 30)) == [
        ("日本の猫。犬は走る。", [Mark(5, 10, UNDERLINE), Mark(5, 6, BOLD)])
    ]
    assert list(excerpt("", "owls", plain_words, 30)) == []


@pytest.mark.parametrize(
    ("passages", "message"), [("3", "at least 8"), ("-1", "at least 8"), ("", "names no field"), ("nowhere", "nowhere")]
)
def test_bad_passages_are_named(tmp_path, capsys, passages, message):
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "text": "owls"}\n')
    arguments = ["index", str(tmp_path / "docs.jsonl"), "--model", "bm25", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--passages", passages]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("strong", "must be 'auto', 'none'"),
        ("lead=x", "lead='x' must be"),
        ("lead=1,mix=2", "no 'mix'"),
        ("prefix", "'prefix'"),
        ("=1", "no ''"),
    ],
)
def test_bad_document_contexts_are_named(tmp_path, capsys, context, message):
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "text": "owls"}\n')
    arguments = ["index", str(tmp_path / "docs.jsonl"), "--model", "bm25", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--document-context", context]) == 2
    assert message in capsys.readouterr().err


def test_passages_and_what_they_take_in_are_kept(tmp_path):
    (tmp_path / "docs.jsonl").write_text(json.dumps({"id": "a", "text": "Owls hunt mice. " * 40}) + "\n")
    documents, out = str(tmp_path / "docs.jsonl"), str(tmp_path / "out")
    model = tiny_dense_directory()
    arguments = ["index", documents, "--model", str(model), "--out", out, "--passages", "20"]
    assert main([*arguments, "--document-context", "lead=0.5, prefix=8"]) == 0
    with Retriever.load(out) as retriever:
        assert retriever.collection.passages.how == 20
        kept = DocumentContext.parse(retriever.collection.get_setting("document"))
        assert kept == DocumentContext(lead=0.5, prefix=8)
    assert main(["index", documents, "--model", str(model), "--out", out + "2", "--passages", "none"]) == 0
    with Retriever.load(out + "2") as retriever:
        assert len(retriever("owls", by="passage")[0]) == 1


def test_json_is_ascii_and_gives_ids_back(index, capsys):
    assert main(["search", index, "owls", "--json"]) == 0
    shown = capsys.readouterr().out
    assert is_shown(shown)
    assert shown.isascii()
    assert {json.loads(line)["id"] for line in shown.splitlines()} == {"good", HOSTILE.replace("\ud800", "")}


@pytest.mark.parametrize(
    "arguments",
    [["search", HOSTILE.replace("\x00", ""), "owls"], ["index", "x" + HOSTILE, "--out", "y"], ["context", HOSTILE]],
)
def test_errors_print_no_control_characters(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (1, 2)
    shown = capsys.readouterr().err
    assert is_shown(shown)
    assert all(line.startswith(("error: ", "  ", "Traceback")) for line in shown.splitlines())


def test_the_parser_prints_no_control_characters(capsys):
    with pytest.raises(SystemExit):
        main(["search", "--bogus" + HOSTILE, "-k", HOSTILE])
    assert is_shown(capsys.readouterr().err)


def test_log_lines_print_no_control_characters():
    record = logging.LogRecord("x", logging.INFO, "file", 1, "%s is evaluated", (HOSTILE,), None)
    shown = Formatter("%(levelname)s: %(message)s").format(record)
    assert is_shown(shown)
    assert [line[:2] for line in shown.splitlines()] == ["IN", "  "]


def test_tables_print_no_control_characters(tmp_path, capsys):
    folder = tmp_path / "toy"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "owls"}\n{"_id": "b", "text": "bees"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "bees"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tb\t1\n")
    name = "\x1b[2Jm\rx"
    assert main(["eval", "--model", f"{name}=bm25", "--data", f"\x9bt\u202ex={folder}", "--ask", f"bees{HOSTILE}"]) == 0
    shown = capsys.readouterr()
    assert is_shown(shown.out + shown.err)
    assert "\\u001b[2Jm\\u000dx" in shown.out


def run(arguments, **environment):
    command = [sys.executable, "-m", "cderetrieval", *arguments]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)


@pytest.mark.parametrize("code_page", ["ascii", "cp1252", "latin-1:strict"])
def test_a_console_of_another_code_page_shows_what_it_can(index, code_page):
    found = run(["search", index, "owls ≈ 漢字"], PYTHONIOENCODING=code_page)
    assert found.returncode == 0, found.stderr
    assert b"\\u6f22" in found.stdout


@pytest.mark.parametrize("arguments", [["search", "owls"], ["search", "owls", "--json"], ["--help"]])
def test_a_reader_that_leaves_early_ends_the_command_quietly(index, arguments):
    read, write = os.pipe()
    os.close(read)
    first, *others = arguments
    command = [sys.executable, "-m", "cderetrieval", first, *([] if first == "--help" else [index]), *others]
    found = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (found.returncode, found.stderr) == (141, b"")


def test_a_closed_output_is_no_error(index):
    command = f'"{sys.executable}" -m cderetrieval search "{index}" owls >&-'
    found = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False)
    assert (found.returncode, found.stderr) == (0, b"")


def test_say_takes_streams_without_encoding(tmp_path):
    class Stream:
        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

    stream = Stream()
    say("a\x07 漢", stream)
    assert stream.text == "a\\u0007 漢\n"


def test_an_interrupt_ends_with_130(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cderetrieval.retrieval.retriever.Retriever.load", interrupt)
    assert main(["search", "somewhere", "owls"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "mps", "xla", "hpu"])
def test_a_device_that_is_not_there_is_named(device, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "text": "owls"}\n')
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "index"
    arguments = ["index", str(tmp_path / "docs.jsonl"), "--model", str(tmp_path / "model"), "--out", str(out)]
    assert main([*arguments, "--device", device]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: device=")
    assert len(shown.splitlines()) == 1
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("inside", ["", "/inside/it"])
def test_an_out_that_is_a_file_is_named_before_long_work(inside, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    documents, place = str(tmp_path / "docs.jsonl"), f"{tmp_path}/file{inside}"
    for arguments in (
        ["index", documents, "--model", "nothing/there"],
        ["embed", documents, "--model", "nothing/there"],
        ["eval", "--model", "nothing/there", "--data", documents],
        ["train", "minilm", "--data", documents],
    ):
        assert main([*arguments, "--out", place]) == 2, arguments
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --out {place}: {tmp_path}/file is a file"), line
    assert (tmp_path / "file").read_text() == "mine"


def test_an_out_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert main(["index", "missing.jsonl", "--model", "nothing/there", "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.startswith(f"error: --out {tmp_path}/new cannot be written")
    monkeypatch.undo()
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "text": "owls"}\n')
    assert main(["index", str(tmp_path / "docs.jsonl"), "--model", "bm25", "--out", "/proc/nothing/here"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_is_indexed_and_counted(tmp_path, capsys):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "owls.md").write_text("# Owls\n\nThey hunt mice.\n")
    (notes / "bees.txt").write_text("Bees\nmake honey.\n")
    (notes / "bad.txt").write_bytes(b"\0")
    (notes / "owl.png").write_bytes(b"\0")
    assert main(["index", str(notes), "--model", "bm25", "--out", str(tmp_path / "i")]) == 0
    shown = capsys.readouterr()
    assert "2 documents from 2 files (1 markdown, 1 text); 1 skipped (" in shown.out
    assert shown.out.endswith("bad.txt: it is binary, and no text); left out: 1 .png\n")
    assert main(["search", str(tmp_path / "i"), "mice"]) == 0
    assert "owls.md  Owls" in capsys.readouterr().out
    arguments = [str(notes / "bees.txt"), "--lines", "--model", "bm25", "--out", str(tmp_path / "lines")]
    assert main(["index", *arguments]) == 0
    assert "2 documents from 1 file (1 text)" in capsys.readouterr().out
    assert main(["index", str(notes), "--strict", "--model", "bm25", "--out", str(tmp_path / "j")]) == 2
    assert "bad.txt: it is binary, and no text" in capsys.readouterr().err
