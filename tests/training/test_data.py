import json
import logging
import multiprocessing

import numpy as np
import pytest

from cderetrieval.errors import ConfigError, InputError, StoreError
from cderetrieval.training import cache
from cderetrieval.training.data import load_pairs, usable_domains
from cderetrieval.training.sources import Source, find_sources, hub_sources


def test_a_folder_is_read_into_columns(pairs, example):
    assert len(pairs) == 84
    assert pairs.dataset_names == ["mined", "plain"]
    assert pairs.domain_names == ["mined/d", "mined/c", "plain/a", "plain/b"]
    row = pairs[41]
    expected = example(1, "a")
    assert (row["query"], row["document"], row["negatives"]) == (expected["query"], expected["document"], [])
    assert row["label"] == 41
    assert pairs.where(41) == "plain, line 2"


def test_negatives_are_the_first_of_their_own_row(pairs, folder, tmp_path, example):
    assert pairs[0]["negatives"] == example(100, "d", 2)["negatives"][:1]
    assert pairs[7]["negatives"] == example(107, "c", 2)["negatives"][:1]
    assert load_pairs([folder], tmp_path / "cache", negatives=5)[7]["negatives"] == example(107, "c", 2)["negatives"]
    assert load_pairs([folder], tmp_path / "cache")[7]["negatives"] == []


def test_a_second_call_reads_no_source_and_a_changed_source_is_other_data(
    pairs, folder, tmp_path, monkeypatch, example, write_jsonl
):
    monkeypatch.setattr("cderetrieval.training.data._write", None)
    assert load_pairs([folder], tmp_path / "cache").fingerprint == pairs.fingerprint
    monkeypatch.undo()
    write_jsonl(folder / "mined.jsonl", [example(k, "c") for k in range(30)])
    assert load_pairs([folder], tmp_path / "cache").fingerprint != pairs.fingerprint


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damaged_columns_are_made_again(pairs, folder, tmp_path, damage, caplog, example):
    file = pairs.directory / "document.bin"
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(bytes(data[:-1]) if damage == "truncate" else bytes(data))
    with caplog.at_level(logging.WARNING):
        again = load_pairs([folder], tmp_path / "cache")
    assert "damaged" in caplog.text
    assert again[41]["document"] == example(1, "a")["document"]


@pytest.mark.parametrize("damage", ["cut", "flip", "unsigned"])
def test_a_damaged_manifest_is_made_again(pairs, folder, tmp_path, damage, caplog):
    file = pairs.directory / "manifest.json"
    text = file.read_text()
    bare = json.loads(text)
    del bare["sha256"]
    made = {"cut": text[:90], "flip": text.replace(f'"rows": {len(pairs)}', '"rows": 3'), "unsigned": json.dumps(bare)}
    assert made[damage] != text
    file.write_text(made[damage])
    with caplog.at_level(logging.WARNING):
        again = load_pairs([folder], tmp_path / "cache")
    assert len(again) == len(pairs)
    assert "damaged" in caplog.text


def test_lists_and_data_config_of_older_models_are_read(tmp_path, write_jsonl):
    write_jsonl(tmp_path / "a" / "one.jsonl.gz", [["q1", "d1"], ["q2", "d2", "n2"]])
    write_jsonl(tmp_path / "two.jsonl", [{"texts": ["q3", "d3"]}])
    config = [{"name": "a/one.jsonl.gz", "lines": 2, "weight": 3}, {"name": "two.jsonl", "weight": 1}]
    (tmp_path / "data_config.json").write_text(json.dumps([*config, {"name": "unused.jsonl", "weight": 0}]))
    data = load_pairs([tmp_path / "data_config.json"], tmp_path / "cache", negatives=1)
    assert [data[row]["query"] for row in range(3)] == ["q1", "q2", "q3"]
    assert data[1]["negatives"] == ["n2"]
    assert data.weights == [3.0, 1.0]
    assert load_pairs([tmp_path], tmp_path / "cache").fingerprint == data.fingerprint


def test_parquet_with_other_field_names(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {"q": ["q1", "q2"], "pos": [["d1", "other"], ["d2"]], "neg": [["n1"], []], "kind": ["x", "y"]}
    )
    parquet.write_table(table, tmp_path / "shard.parquet")
    source = Source(
        str(tmp_path / "shard.parquet"),
        "shard",
        query="q",
        document="pos",
        negatives="neg",
        domain="kind",
        prompts={"x": ("ask: ", "read: "), "*": ("a: ", "b: ")},
    )
    data = load_pairs([source], tmp_path / "cache", negatives=1)
    assert data[0] == {
        "query": "q1",
        "document": "d1",
        "negatives": ["n1"],
        "prompts": ["ask: ", "read: "],
        "label": 0,
    }
    assert data[1]["prompts"] == ["a: ", "b: "]
    assert data.domain_names == ["shard/x", "shard/y"]


def test_hub_data_are_known_by_name(tmp_path, write_jsonl):
    write_jsonl(tmp_path / "quora-00000-of-00002.jsonl", [{"query": "q", "pos": ["d"], "neg": ["n"]}])
    write_jsonl(tmp_path / "arxiv_title.jsonl", [{"query": "q", "pos": ["d"]}])
    write_jsonl(tmp_path / "nq.jsonl", [{"query": "q", "pos": ["d"]}])
    sources = hub_sources("bge-full-data", tmp_path)
    data = load_pairs(sources, tmp_path / "cache", negatives=3)
    assert data.domain_names == ["arxiv_title/arxiv_title", "nq/nq", "quora/quora"]
    assert [data[row]["prompts"] for row in range(3)] == [
        ["clustering: ", "clustering: "],
        ["search_query: ", "search_document: "],
        ["search_query: ", "search_query: "],
    ]
    with pytest.raises(InputError, match="bge-full-data, nomic-supervised"):
        find_sources(["hub:nothing"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "pairs.jsonl, line 2: not JSON"),
        ('"text"', "line 2: expected an object or a list"),
        ('{"query": "q"}', "line 2: no field 'document'; it has query"),
        ('{"query": "q", "document": " "}', "line 2: field 'document' must be a text that is not empty"),
        ('{"query": 3, "document": "d"}', "line 2: field 'query' must be a text"),
        ('{"query": "q", "document": "d", "domain": ""}', "line 2: an empty domain"),
        ('{"query": "q", "document": "d", "negatives": ["n", ""]}', "line 2: field 'negatives'"),
        ('["only"]', "line 2: a list needs a query and a document"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "q", "document": "d"}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        load_pairs([path], tmp_path / "cache")
    assert [file for file in (tmp_path / "cache").iterdir() if file.is_dir()] == []


def test_missing_and_empty_sources_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        load_pairs([tmp_path / "none.jsonl"], tmp_path / "cache")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no pair"):
        load_pairs([tmp_path / "empty.jsonl"], tmp_path / "cache")
    with pytest.raises(InputError, match="no training data"):
        load_pairs([], tmp_path / "cache")
    (tmp_path / "data_config.json").write_text('[{"name": "empty.jsonl", "weight": "much"}]')
    with pytest.raises(InputError, match=r"entry 1: weight='much'"):
        find_sources([tmp_path])


def test_a_full_disk_is_named_and_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cderetrieval.training.data.append", full)
    with pytest.raises(StoreError, match="the disk is full"):
        load_pairs([folder], tmp_path / "cache")
    assert [file for file in (tmp_path / "cache").iterdir() if file.is_dir()] == []


def test_small_domains(pairs):
    with pytest.raises(ConfigError, match=r"1 domains are smaller than a batch of 21: .*plain/a \(20\)|3 domains"):
        usable_domains(pairs, 21)
    skipped = usable_domains(pairs, 21, "skip")
    assert set(skipped) == {-1, 3}
    merged = usable_domains(pairs, 21, "merge")
    assert np.bincount(merged[merged >= 0]).tolist() == [0, 0, 0, 24, 40]
    with pytest.raises(ConfigError, match="no domain has 500 pairs"):
        usable_domains(pairs, 500, "skip")


def _build(arguments):
    root, log = arguments

    def build(directory):
        with open(log, "a") as file:
            file.write("x")
        (directory / "file").write_text("content")
        return {}

    return str(cache.cached_directory(root, "thing", {"a": 1}, build)[0])


def test_of_several_processes_one_builds(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(_build, [(tmp_path / "cache", tmp_path / "log")] * 8)
    assert len(set(found)) == 1
    assert (tmp_path / "log").read_text() == "x"


def test_docstrings_are_pairs_for_whoever_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CDE_CACHE", str(tmp_path / "docs"))
    data = load_pairs(["pydocs:tqdm"], tmp_path / "cache")
    assert data.domain_names == ["pydocs-tqdm/tqdm"]
    assert len(data) >= 3
    assert data[0]["query"] not in data[0]["document"]
    with pytest.raises(InputError, match="no_such_package"):
        find_sources(["pydocs:no_such_package"])
