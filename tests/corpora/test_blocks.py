"""A corpus read in blocks is the corpus, whatever the size of a block."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.corpora.blocks import corpus_files, cut, read_block
from cderetrieval.corpora.readers import read_documents
from cderetrieval.errors import InputError

DOCUMENTS = [{"id": f"d{i}", "text": f"owl {i}\u2028 \u00e9\r"} for i in range(11)]


def write(folder, name, documents=DOCUMENTS):
    path = folder / name
    text = "".join(
        json.dumps(row, ensure_ascii=False) + ("\r\n" if i % 3 else "\n\n") for i, row in enumerate(documents)
    )
    if name.endswith(".parquet"):
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(documents), path, row_group_size=4)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson.gz", "a.parquet", "a.txt"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 100])
def test_blocks_make_the_corpus(tmp_path, name, size):
    path = write(tmp_path, name)
    blocks = list(cut(path, size))
    assert [row for block in blocks for row in read_block(block)] == list(read_documents(path))
    backwards = [list(read_block(block)) for block in reversed(blocks)]
    assert [row for rows in reversed(backwards) for row in rows] == list(read_documents(path))


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), max_size=9)),
    size=st.integers(1, 7),
    end=st.sampled_from(["", "\n", "\n\n"]),
)
def test_any_lines(tmp_path_factory, lines, size, end):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(("\n".join(lines) + end).encode())
    assert [row for block in cut(path, size) for row in read_block(block)] == list(read_documents(path))


def test_the_files_of_a_corpus(tmp_path):
    for name in ("b.jsonl", "a.parquet", "c.jsonl.gz"):
        write(tmp_path, name)
    (tmp_path / "README.md").write_text("not documents")
    assert [path.name for path in corpus_files([tmp_path])] == ["a.parquet", "b.jsonl", "c.jsonl.gz"]
    write(tmp_path, "corpus.jsonl", [{"_id": "7", "title": "", "text": "bees"}])
    [path] = corpus_files([tmp_path])
    assert path.name == "corpus.jsonl"
    [block] = cut(path, 5)
    assert list(read_block(block)) == [{"id": "7", "title": "", "text": "bees"}]


def test_errors_name_the_file_and_the_line(tmp_path):
    path = write(tmp_path, "a.jsonl", DOCUMENTS[:4])
    with open(path, "a") as file:
        file.write("{half")
    *_, block = cut(path, 2)
    with pytest.raises(InputError, match=r"a\.jsonl, line 7: not JSON"):
        list(read_block(block))
    assert str(block).endswith("a.jsonl, lines 7 to 7")
    path.unlink()
    with pytest.raises(InputError, match="every worker must see the corpus"):
        read_block(block)


def test_unfit_corpora_are_refused(tmp_path):
    path = write(tmp_path, "a.jsonl")
    (tmp_path / "a.csv").write_text("id,text\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"not '\.csv'. Convert it first"):
        corpus_files([tmp_path / "a.csv"])
    with pytest.raises(InputError, match="given twice"):
        corpus_files([path, path])
    with pytest.raises(InputError, match=r"holds no \.jsonl or \.parquet"):
        corpus_files([tmp_path / "empty"])
    with pytest.raises(InputError, match="does not exist"):
        corpus_files([tmp_path / "nowhere"])
