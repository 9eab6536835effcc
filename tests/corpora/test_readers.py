import gzip
import json

import pytest

from cderetrieval.corpora.readers import read_documents
from cderetrieval.errors import InputError

ROWS = [{"id": "a", "title": "Tides", "text": "line one\nline two"}, {"id": "b", "title": "", "text": 'said "yes", so'}]
CSV = 'id,title,text\na,Tides,"line one\nline two"\nb,,"said ""yes"", so"\n'


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl(tmp_path):
    path = write(tmp_path / "docs.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    assert list(read_documents(path)) == ROWS


def test_jsonl_gz(tmp_path):
    path = tmp_path / "docs.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    assert list(read_documents(path)) == ROWS
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match="not a whole gzip file"):
        list(read_documents(path))


def test_csv_and_tsv(tmp_path):
    assert list(read_documents(write(tmp_path / "docs.csv", "\ufeff" + CSV))) == ROWS
    path = write(tmp_path / "docs.tsv", "id\ttext\na\tone, two\n")
    assert list(read_documents(path)) == [{"id": "a", "text": "one, two"}]


def test_csv_with_a_long_field(tmp_path):
    path = write(tmp_path / "docs.csv", f"id,text\na,{'x' * 300_000}\n")
    assert len(next(read_documents(path))["text"]) == 300_000


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"id": i, "text": f"text {i}"} for i in range(3_000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "docs.parquet")
    assert list(read_documents(tmp_path / "docs.parquet")) == rows
    write(tmp_path / "bad.parquet", "no parquet")
    with pytest.raises(InputError, match=r"bad\.parquet, after row 0: not readable as Parquet"):
        list(read_documents(tmp_path / "bad.parquet"))


def test_text_lines_get_their_numbers(tmp_path):
    path = write(tmp_path / "docs.txt", "one\n\nthree\u2028still three\n")
    assert list(read_documents(path)) == [{"id": "1", "text": "one"}, {"id": "3", "text": "three\u2028still three"}]
    assert next(read_documents(path, key="name"))["name"] == "1"


def test_beir_folder_offers_id(tmp_path):
    write(tmp_path / "corpus.jsonl", '{"_id": "d1", "text": "tides"}\n')
    assert list(read_documents(tmp_path)) == [{"id": "d1", "text": "tides"}]


def test_another_key(tmp_path):
    path = write(tmp_path / "docs.csv", "sku,text\n7,tides\n,moons\n")
    rows = read_documents(path, key="sku")
    assert next(rows) == {"sku": "7", "text": "tides"}
    with pytest.raises(InputError, match="row 3: no value for key 'sku'; the fields are sku, text"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("docs.jsonl", '{"id": 1}\n{"id": 2\n', "line 2: not JSON"),
        ("docs.jsonl", '{"text": "no id"}\n', "row 1: no value for key 'id'; the fields are text"),
        ("docs.csv", "id,text\n1,a\n2,b,c\n", "line 3: .* columns, the header has 2"),
        ("docs.csv", "id,text\n1\n", "line 2: 1 columns, the header has 2"),
        ("docs.csv", 'id,text\n1,"open\n', "after line .*"),
    ],
)
def test_bad_row_is_named(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match=f"{name}, {message}"):
        list(read_documents(path))


def test_unknown_ending_and_missing_file_fail_at_once(tmp_path):
    with pytest.raises(InputError, match=r"'\.docx' is not supported; use one of \.jsonl, .*\.parquet, \.txt"):
        read_documents(write(tmp_path / "docs.docx", ""))
    with pytest.raises(InputError, match="does not exist"):
        read_documents(tmp_path / "docs.csv")
    with pytest.raises(InputError, match=r"corpus\.jsonl does not exist"):
        read_documents(tmp_path)
