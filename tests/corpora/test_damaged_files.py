"""Damaged files: every reader gives the rows that are there, or an error that names the file; never a library's own."""

import contextlib
import gzip
import json
import os
import random
import zlib
from pathlib import Path

import pytest

from cderetrieval.corpora.beir_folder import read_beir, write_beir
from cderetrieval.corpora.blocks import cut, read_block
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.corpora.qrels import read_qrels
from cderetrieval.corpora.readers import read_documents
from cderetrieval.documents import document_rows
from cderetrieval.errors import CDEError, InputError, MissingDependencyError
from cderetrieval.evaluation.metrics import as_run
from cderetrieval.training.sources import Source, find_sources, read_rows

ROWS = [
    {
        "id": f"d{i}",
        "title": f"Über {i}",
        "text": f'said "{i}", and\twent on; naïve 🦉',
        "year": 1990 + i,
        "tags": ["a", str(i)],
    }
    for i in range(12)
]
PAIRS = [
    {"query": f"what is {i}", "document": f"it is {i}", "negatives": [f"no {i}"], "scores": [1, 0.5]} for i in range(9)
]
SEEDS = range(60)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows, path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
    return path.read_bytes()


def separated(mark):
    quoted = ('"' + text.replace('"', '""') + '"' for text in (f'said "{i}", and{mark}went on' for i in range(12)))
    return f"id{mark}text\n".encode() + "".join(f"d{i}{mark}{text}\n" for i, text in enumerate(quoted)).encode()


def whole(name, folder):
    """Bytes of a file that is read without complaint."""
    if name.endswith(".gz"):
        return gzip.compress(whole(name.removesuffix(".gz"), folder), mtime=0)
    if name.startswith("pairs"):
        return table(PAIRS, folder / "whole.parquet") if name.endswith("parquet") else lines(PAIRS)
    made = {
        "docs.jsonl": lambda: lines(ROWS),
        "docs.csv": lambda: separated(","),
        "docs.tsv": lambda: separated("\t"),
        "docs.txt": lambda: "".join(row["text"] + "\n" for row in ROWS).encode(),
        "docs.parquet": lambda: table(ROWS, folder / "whole.parquet"),
        "qrels.tsv": lambda: b"query-id\tcorpus-id\tscore\n" + b"".join(b"q%d\td%d\t1\n" % (i, i) for i in range(12)),
        "run.txt": lambda: b"".join(b"q%d Q0 d%d 1 0.5 tag\n" % (i, i) for i in range(12)),
        "data_config.json": lambda: b'[{"name": "a.jsonl", "weight": 3}, {"name": "b.jsonl.gz", "weight": 1}]',
    }
    return made[name]()


def read(path):
    """All rows of a file by every reader that takes it."""
    if path.name.startswith("qrels"):
        return read_qrels(path)
    if path.name.startswith("run"):
        return as_run(path)
    if path.name.startswith("data_config"):
        return find_sources([path])
    if path.name.startswith("pairs"):
        return list(read_rows(Source(str(path), "pairs")))
    found = list(document_rows(read_documents(path), "id", None if ".txt" not in path.name else ["text"]))
    if path.name.endswith((".csv", ".tsv")):
        return found
    with contextlib.suppress(CDEError):
        assert len([row for block in cut(path, 5) for row in read_block(block)]) == len(found)
    return found


def flipped(data, random):
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << random.randrange(8))]) + data[place + 1 :]


def cut_short(data, random):
    return data[: random.randrange(len(data))]


def doubled(data, random):
    start, end = sorted(random.randrange(len(data)) for _ in range(2))
    return data[:end] + data[start:end] + data[end:]


def dropped(data, random):
    start, end = sorted(random.randrange(len(data)) for _ in range(2))
    return data[:start] + data[end:]


def overwritten(data, random):
    place = random.randrange(len(data))
    junk = random.choice(
        [b"\0" * 9, b'"' * 3, b"\xff\xfe", b"\r", b"[" * 5_000, b"9" * 5_000, b"NaN", b"{", b"\n", b"\t,"]
    )
    return data[:place] + junk + data[place + random.randrange(len(junk)) :]


DAMAGES = [flipped, cut_short, doubled, dropped, overwritten]
NAMES = [
    *("docs.jsonl", "docs.csv", "docs.tsv", "docs.txt", "docs.parquet", "docs.jsonl.gz", "docs.csv.gz", "docs.txt.gz"),
    *("qrels.tsv", "run.txt", "pairs.jsonl", "pairs.jsonl.gz", "pairs.parquet", "data_config.json"),
]


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_named_or_harmless(tmp_path, name):
    data = whole(name, tmp_path)
    path = tmp_path / name
    path.write_bytes(data)
    read(path)
    for seed in SEEDS:
        draw = random.Random(seed)
        damaged = DAMAGES[seed % len(DAMAGES)](data, draw)
        if name.endswith(".gz") and seed % 2:  # damage below the compression
            damaged = gzip.compress(DAMAGES[seed % len(DAMAGES)](gzip.decompress(data), draw))
        path.write_bytes(damaged)
        with contextlib.suppress(CDEError):
            read(path)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_damaged_beir_folder_is_named_or_harmless(tmp_path, name):
    (tmp_path / "qrels").mkdir()
    files = {
        "corpus.jsonl": lines([{"_id": row["id"], "title": row["title"], "text": row["text"]} for row in ROWS]),
        "queries.jsonl": lines([{"_id": f"q{i}", "text": f"query {i}"} for i in range(12)]),
        "qrels/test.tsv": b"query-id\tcorpus-id\tscore\n" + b"".join(b"q%d\td%d\t1\n" % (i, i) for i in range(12)),
    }
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    assert len(read_beir(tmp_path).queries) == 12
    for seed in SEEDS:
        (tmp_path / name).write_bytes(DAMAGES[seed % len(DAMAGES)](files[name], random.Random(seed)))
        with contextlib.suppress(CDEError):
            read_beir(tmp_path)


VALUES = [
    *("null", "NaN", "Infinity", "-1", "1e999", "9" * 5_000, "true", '""', '" "', '"\\ud800"', '"\\u0000"', "[]", "{}"),
    *("[" * 100_000 + "]" * 100_000, "[" * 400 + "]" * 400, '{"a":' * 400 + "1" + "}" * 400, '["a"]', '[["a"]]', "0.5"),
    *('{"a": 1, "a": 2}', "1" + "0" * 400, '"' + "x" * 100_000 + '"'),
]


@pytest.mark.parametrize("field", ["id", "title", "text", "year", "query", "document", "negatives", "scores", "domain"])
def test_wrong_values_are_named_or_harmless(tmp_path, field):
    pair = field in ("query", "document", "negatives", "scores", "domain")
    for value in VALUES:
        row = {"query": '"a"', "document": '"b"'} if pair else {"id": '"a"', "title": '"b"', "text": '"c"'}
        line = "{" + ", ".join(f'"{name}": {text}' for name, text in {**row, field: value}.items()) + "}\n"
        path = tmp_path / ("pairs.jsonl" if pair else "docs.jsonl")
        path.write_text(line)
        with contextlib.suppress(CDEError):
            read(path)
        (tmp_path / "corpus.jsonl").write_text(line)
        (tmp_path / "queries.jsonl").write_text(line)
        (tmp_path / "qrels").mkdir(exist_ok=True)
        (tmp_path / "qrels" / "test.tsv").write_text("a\ta\t1\n")
        with contextlib.suppress(CDEError):
            read_beir(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("docs.jsonl.gz", b"plain", "docs.jsonl.gz is not a whole gzip file"),
        ("docs.csv.gz", gzip.compress(b"id,text\n1,a\n", mtime=0)[:-9], "docs.csv.gz is not a whole gzip file"),
        ("docs.jsonl", b"[" * 100_000, "docs.jsonl, line 1: not JSON"),
        ("docs.jsonl", b'{"id": 1, "text": "a", "n": ' + b"9" * 5_000 + b"}", "docs.jsonl, line 1: not JSON"),
        (
            "docs.jsonl",
            b'{"id": 1, "text": "a", "text": "b"}',
            "line 1: not JSON .two fields of one object are named 'text'",
        ),
        ("docs.jsonl", '{"id": 1, "text": "a"}'.encode("utf-16"), "docs.jsonl, line 1: not UTF-8"),
        ("docs.csv", "id,text\n1,a\n".encode("utf-16"), "docs.csv, line 1: (not UTF-8|a NUL byte)"),
        ("docs.csv", b"id,text\n1,a\n2,b\xff\n3,c\n", "docs.csv, line 3: not UTF-8"),
        ("docs.csv", b"id,text\n1,a\n2,b\0\n3,c\n", "docs.csv, line 3: a NUL byte"),
        ("docs.csv", b"id,text,text\n1,a,b\n", "docs.csv, line 1: 2 columns are named 'text'"),
        ("docs.tsv", b"id\ttext\ttext\n1\ta\tb\n", "docs.tsv, line 1: 2 columns are named 'text'"),
        ("docs.csv", b"id,text,,\n1,a,b,c\n", "docs.csv, line 1: 2 columns are named ''"),
        ("qrels.tsv", b"q\td\t1\rq\td2\t1", "qrels.tsv, line 1: a carriage return"),
        ("qrels.tsv", b"q\td\t" + b"9" * 400, "line 1: grade .* is (too large|not a whole number)"),
        ("docs.parquet", b"PAR1" + b"\0" * 20 + b"PAR1", "docs.parquet, after row 0: not readable as Parquet"),
        ("pairs.parquet", b"no parquet", "pairs.parquet, after row 0: not readable as Parquet"),
        ("data_config.json", b"[" * 100_000, "data_config.json is not valid JSON"),
        ("data_config.json", b'[{"name": "a", "weight": 1' + b"0" * 400 + b"}]", "entry 1: weight="),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_a_damaged_deflate_stream(tmp_path):
    data = bytearray(gzip.compress(lines(ROWS * 50)))
    data[100:140] = bytes(40)
    with pytest.raises((zlib.error, OSError)):
        gzip.decompress(bytes(data))
    (tmp_path / "docs.jsonl.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"docs\.jsonl\.gz .*Mend or remove the file"):
        read(tmp_path / "docs.jsonl.gz")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe\.csv is not a file"):
        list(read_documents(tmp_path / "pipe.csv"))
    (tmp_path / "folder.jsonl").mkdir()
    for call in (
        read_documents,
        read_qrels,
        lambda path: list(read_rows(Source(str(path), "x"))),
        lambda p: list(cut(p, 5)),
    ):
        with pytest.raises(InputError, match=r"folder\.jsonl"):
            call(tmp_path / "folder.jsonl")
    (tmp_path / "empty.csv").write_bytes(b"")
    assert list(read_documents(tmp_path / "empty.csv")) == []


def test_names_that_are_no_paths():
    for name in ("x" * 5_000 + ".csv", "a\0.csv"):
        with pytest.raises(InputError, match="does not exist"):
            read_documents(name)


def test_judgements_of_one_split_twice(tmp_path):
    (tmp_path / "qrels").mkdir()
    for name in ("test.tsv", "test.txt"):
        (tmp_path / "qrels" / name).write_text("q\td\t1\n")
    with pytest.raises(InputError, match=r"has test\.tsv and test\.txt for one split"):
        read_beir(tmp_path)


def test_what_is_written_is_read_again(tmp_path):
    documents = [{"id": "a\ud800", "text": "lone \ud800"}, {"id": '5" disk', "text": "b\0\r\n"}]
    made = make_dataset("x", documents, {"q": "what\n"}, {"q": {'5" disk': -1}})
    again = read_beir(write_beir(made, tmp_path / "x"))
    assert (list(again.corpus), again.queries, again.qrels) == (list(made.corpus), made.queries, made.qrels)
    assert again.revision == made.revision
    for name in ("a\tb", "a\nb", " a", '"a"'):
        with pytest.raises(InputError, match="does not fit into the columns"):
            write_beir(make_dataset("x", [{"id": name, "text": "a"}], {"q": "a"}, {"q": [name]}), tmp_path / "y")


def test_the_errors_of_others_pass(tmp_path):
    (tmp_path / "docs.jsonl").write_bytes(lines(ROWS))
    rows = read_documents(tmp_path / "docs.jsonl")
    next(rows)
    with pytest.raises(ZeroDivisionError):
        rows.throw(ZeroDivisionError())


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    import sys

    (tmp_path / "docs.parquet").write_bytes(b"PAR1")
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (
        lambda p: list(read_documents(p)),
        lambda p: list(cut(p, 5)),
        lambda p: list(read_rows(Source(str(p), "x"))),
    ):
        with pytest.raises(MissingDependencyError, match="pyarrow is not installed"):
            call(tmp_path / "docs.parquet")


def test_parquet_with_two_columns_of_one_name(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "docs.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names=["id", "text", "text"]), path)
    with pytest.raises(InputError, match=r"docs\.parquet: 2 columns are named 'text'"):
        list(read_documents(path))


# Quotes of tables


def documents(path, data):
    Path(path).write_bytes(data)
    return [tuple(row.values()) for row in read_documents(path)]


def test_a_stray_quote_of_a_tsv_stands_for_itself(tmp_path):
    rows = documents(
        tmp_path / "a.tsv", b'id\ttext\n1\t"owls hunt\n2\tbees\n3\t5" disk\n4\tants say "hi"\n5\t"whole ""field"""\n'
    )
    assert rows == [
        ("1", '"owls hunt'),
        ("2", "bees"),
        ("3", '5" disk'),
        ("4", 'ants say "hi"'),
        ("5", 'whole "field"'),
    ]
    rows = documents(tmp_path / "b.tsv", b'id\ttext\n1\t"owls\n2\tbees"\n3\tants\n')
    assert rows == [("1", '"owls'), ("2", 'bees"'), ("3", "ants")]
    rows = documents(tmp_path / "e.tsv", b'id\ttext\n1\t"owls\na b\t bees\n3\tants"\n')
    assert rows == [("1", '"owls'), ("a b", " bees"), ("3", 'ants"')]
    assert documents(tmp_path / "c.tsv", b'id\ttext\n1\ta\n2\t"last') == [("1", "a"), ("2", '"last')]
    assert documents(tmp_path / "f.tsv", b'id\t"text\n1\ta\n2\tb"\n3\tc\n') == [("1", "a"), ("2", 'b"'), ("3", "c")]
    assert documents(tmp_path / "d.tsv", b'id\ttext\n1\t"one\ntwo\n\nthree"\n2\tb\n') == [
        ("1", "one\ntwo\n\nthree"),
        ("2", "b"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'id,text\n1,"owls hunt\n2,bees\n3,cats\n4,a 5"\n5,ants\n', "line 2: a quote opens here and swallows 3 lines"),
        (
            b'id,title,text\n1,"owls,hunt\n2,bees,hum\n3,cats 5",purr\n4,a,b\n',
            "line 2: a quote opens here and swallows 2 lines",
        ),
        (b'id,text\n1,"owls hunt\n2,bees\n3,cats\n', "after line 3: .*the row that begins in line 2"),
        (b'id,text\n1,"owls hunt\n2,"bees"\n3,cats\n', "after line 2: .*the row that begins in line 2"),
        (b'id,text\n1,"owls" hunt\n2,bees\n', "after line 1: "),
        (b'id,"text\n1,owls\n2,bees"\n3,ants\n', "line 1: a quote opens here and swallows 2 lines"),
        (b'text,id\n"owls hunt,1\nbees hum,2\na 5",3\n', "line 2: a quote opens here and swallows 2 lines"),
        (
            b'id,title,text\na,"one, two","owls\nb,three,bees\nc,four,a 5"\n',
            "line 2: a quote opens here and swallows 2",
        ),
    ],
)
def test_a_stray_quote_of_a_csv_is_named(tmp_path, data, message):
    with pytest.raises(InputError, match=f"a.csv, {message}"):
        documents(tmp_path / "a.csv", data)


def test_a_stray_quote_in_each_line_costs_no_more_than_the_line(tmp_path):
    rows = documents(tmp_path / "a.tsv", b"id\ttext\n" + b'1\t"owls hunt\n' * 200_000)
    assert rows == [("1", '"owls hunt')] * 200_000  # each line put back is not asked for through all before it


def test_fields_of_several_lines_stay(tmp_path):
    text = 'Dear Sir,\nHello, world\n\nOwls, bees, and "ants"\r\nYours, me'
    quoted = text.replace('"', '""')
    rows = documents(tmp_path / "a.csv", f'id,text\n1,"{quoted}"\n2,"a\nb"\n3,"x, y\nz, w"\n'.encode())
    assert rows == [("1", text), ("2", "a\nb"), ("3", "x, y\nz, w")]
    assert documents(tmp_path / "b.csv", b"id,text\r1,a\r2,b\r") == [("1", "a"), ("2", "b")]
    assert documents(tmp_path / "c.csv", b'\xef\xbb\xbf"id","text"\r\n1,5" disk\r\n') == [("1", '5" disk')]
    for row in ('"line one\nline two",1', '"one, or two\nthree",1', '"one\ntwo\nthree",1', '"a, b\nc, d",1'):
        [found] = documents(tmp_path / "e.csv", f"text,id\n{row}\n".encode())
        assert found == (row[1:-3], "1")
    for text in ("one\ntwo", "a, b\nc, d", "a\n\nb", "x=f(a,b)\ny=g(a,b)"):
        [found] = documents(tmp_path / "f.csv", f'id,text,label\n1,"{text}",x\n'.encode())
        assert found == ("1", text, "x")
    named = documents(tmp_path / "g.csv", b'id,"text\n(long, or short)"\n1,a\n')  # a name of two lines
    assert named == [("1", "a")]
    pandas = documents(tmp_path / "d.csv", b",id,text\n0,1,a\n")  # the index of a frame has no name
    assert pandas == [("0", "1", "a")]
