import gzip
import json
import os
from pathlib import Path

import pytest

from cderetrieval.corpora import SpanDataset, read_spans
from cderetrieval.errors import InputError

OWLS = "Owls hunt at night. Thëy eat mice.😀"  # 35 characters, 39 bytes
DOCUMENTS = [
    {"_id": "d1", "title": "Owls", "text": OWLS, "sections": [{"heading": "Hunt", "start": 0, "end": 19}], "page": 7},
    {"_id": 2, "text": "Bees make honey.", "paragraphs": [[0, 16]]},
]
QUERIES = [{"_id": "q1", "text": "food of owls"}, {"_id": 2, "text": "honey"}, {"_id": "q3", "text": "without spans"}]
SPANS = [
    {"query": "q1", "document": "d1", "start": 20, "end": 35, "note": "to the end"},
    {"query": 2, "document": 2, "start": 0, "end": 16},
    {"query": "q1", "document": 2, "start": 10, "end": 15},
]
SHARED = Path(os.environ.get("CDE_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "docs" / "eval"


def folder(path, documents=DOCUMENTS, queries=QUERIES, spans=SPANS, **qrels):
    for name, rows in (("documents", documents), ("queries", queries), ("spans", spans)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    for split, text in qrels.items():
        (path / "qrels").mkdir(exist_ok=True)
        (path / "qrels" / f"{split}.tsv").write_text(text)
    return path


def test_reads_documents_queries_and_spans(tmp_path):
    dataset = read_spans(folder(tmp_path))
    assert isinstance(dataset, SpanDataset)
    assert dataset.documents == (
        {"id": "d1", "title": "Owls", "text": OWLS, "sections": [{"heading": "Hunt", "start": 0, "end": 19}]},
        {"id": "2", "title": "", "text": "Bees make honey.", "paragraphs": [[0, 16]]},
    )
    assert dataset.queries == {"q1": "food of owls", "2": "honey"}
    assert dataset.spans == {"q1": [("d1", 20, 35), ("2", 10, 15)], "2": [("2", 0, 16)]}
    assert dataset.texts == {"d1": OWLS, "2": "Bees make honey."}
    assert repr(dataset) == "SpanDataset(2 documents, 2 queries, 3 spans)"


def test_a_split_chooses_queries(tmp_path):
    dataset = read_spans(folder(tmp_path, unnamed="query-id\tcorpus-id\tscore\nq1\td1\t1\n"), "unnamed")
    assert dataset.queries == {"q1": "food of owls"}
    assert dataset.spans == {"q1": [("d1", 20, 35), ("2", 10, 15)]}
    assert len(dataset.documents) == 2


@pytest.mark.parametrize(
    ("qrels", "split", "message"),
    [
        ({"test": "q1\td1\t1\n"}, "dev", r"no split 'dev'; it has test"),
        ({}, "dev", "has no judgements"),
        ({"dev": "q3\td1\t1\n"}, "dev", r"dev.tsv judges query 'q3', which has no span in spans.jsonl"),
        ({"dev": ""}, "dev", "dev.tsv judges nothing"),
        ({"dev": "q1\td1\tone\n"}, "dev", "dev.tsv, line 1: grade 'one'"),
    ],
)
def test_a_bad_split_is_named(tmp_path, qrels, split, message):
    folder(tmp_path, **qrels)
    with pytest.raises(InputError, match=message):
        read_spans(tmp_path, split)


def test_another_file_of_spans_and_compressed_files(tmp_path):
    folder(tmp_path)
    (tmp_path / "spans.jsonl").rename(tmp_path / "spans-dev.jsonl")
    text = (tmp_path / "documents.jsonl").read_bytes()
    (tmp_path / "documents.jsonl").unlink()
    (tmp_path / "documents.jsonl.gz").write_bytes(gzip.compress(text))
    assert len(read_spans(tmp_path, spans="spans-dev.jsonl").spans) == 2
    with pytest.raises(InputError, match=r"has no spans.jsonl; a folder of spans holds documents.jsonl, queries.jsonl"):
        read_spans(tmp_path)


@pytest.mark.parametrize("name", ["documents", "queries", "spans"])
def test_a_missing_file_and_a_line_that_is_no_json(tmp_path, name):
    path = folder(tmp_path) / f"{name}.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "{cut", encoding="utf-8")
    with pytest.raises(InputError, match=rf"{name}.jsonl, line \d: not JSON"):
        read_spans(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=f"has no {name}.jsonl"):
        read_spans(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"end": 36}, "start 20 and end 36 are no span of document 'd1', whose text has 35 characters"),
        ({"end": 10**30}, "are no span"),
        ({"start": -1}, "start -1 and end 35 are no span"),
        ({"start": 35}, "start 35 and end 35 are no span"),
        ({"start": 30, "end": 20}, "start 30 and end 20 are no span"),
        ({"start": 1.0}, "start and end must be whole numbers, found 1.0 and 35"),
        ({"start": "1"}, "must be whole numbers, found '1' and 35"),
        ({"end": True}, "must be whole numbers, found 20 and True"),
        ({"end": None}, "must be whole numbers, found 20 and None"),
        ({"document": "d9"}, "document 'd9' is not in documents.jsonl"),
        ({"query": "q9"}, "query 'q9' is not in queries.jsonl"),
        ({"query": None}, "the row has no usable query: None"),
        ({"document": ["d1"]}, r"the row has no usable document: \['d1'\]"),
    ],
)
def test_a_bad_span_is_named(tmp_path, changed, message):
    folder(tmp_path, spans=[*SPANS, {**SPANS[0], **changed}])
    with pytest.raises(InputError, match=f"spans.jsonl, line 4: .*{message}"):
        read_spans(tmp_path)


@pytest.mark.parametrize("field", ["query", "document", "start", "end"])
def test_a_missing_field_is_named(tmp_path, field):
    folder(tmp_path, spans=[{name: value for name, value in SPANS[0].items() if name != field}])
    with pytest.raises(InputError, match=rf"spans.jsonl, line 1: .*(no usable {field}|whole numbers)"):
        read_spans(tmp_path)


def test_the_same_span_twice_and_none(tmp_path):
    folder(tmp_path, spans=[*SPANS, {**SPANS[1], "query": "2"}])
    with pytest.raises(InputError, match=r"spans.jsonl, line 4: the same span is also in line 2"):
        read_spans(tmp_path)
    folder(tmp_path, spans=[])
    with pytest.raises(InputError, match=r"spans.jsonl holds no spans"):
        read_spans(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"_id": "2"}, "line 3: id '2' is also in line 2"),
        ({"_id": None}, "line 3: the row has no usable _id"),
        ({"text": 7}, "line 3: 'text' must be text"),
        ({"sections": {}}, r"line 3: 'sections' must be a list, found \{\}"),
        ({"sections": [["a", 0, 3]]}, r'line 3, sections\[0\]: expected {"heading", "start", "end"}, found'),
        ({"sections": [{"start": 0, "end": 3}]}, r"line 3, sections\[0\]: expected"),
        (
            {"sections": [{"heading": "a", "start": 0, "end": 3}, {"heading": "b"}]},
            r"sections\[1\]: start and end must",
        ),
        ({"sections": [{"heading": "a", "start": 0, "end": 99}]}, r"sections\[0\]: start 0 and end 99 are no span"),
        ({"paragraphs": [[0, 3], [3]]}, r"line 3, paragraphs\[1\]: expected \[start, end\], found \[3\]"),
        ({"paragraphs": [[3, 3]]}, r"paragraphs\[0\]: start 3 and end 3 are no span of document 'd3'"),
    ],
)
def test_a_bad_document_is_named(tmp_path, changed, message):
    folder(tmp_path, documents=[*DOCUMENTS, {"_id": "d3", "text": "Tides.", **changed}])
    with pytest.raises(InputError, match=f"documents.jsonl, .*{message}"):
        read_spans(tmp_path)


def test_no_documents(tmp_path):
    with pytest.raises(InputError, match=r"documents.jsonl holds no documents"):
        read_spans(folder(tmp_path, documents=[]))


@pytest.mark.parametrize(
    ("row", "message"),
    [({"_id": "q1", "text": "a"}, "line 4: id 'q1' is also in line 1"), ({"_id": "q4"}, "line 4: .*no field 'text'")],
)
def test_a_bad_query_is_named(tmp_path, row, message):
    folder(tmp_path, queries=[*QUERIES, row])
    with pytest.raises(InputError, match=f"queries.jsonl, {message}"):
        read_spans(tmp_path)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("anthropic-codebases", (90, 248, 306)),
        ("chunking-evaluation", (231, 472, 790)),
        ("squad-articles", (48, 10570, 10570)),
    ],
)
def test_real_folders(name, counts):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name} is not on this machine")
    dataset = read_spans(SHARED / name)
    assert (len(dataset.documents), len(dataset.queries), sum(map(len, dataset.spans.values()))) == counts
