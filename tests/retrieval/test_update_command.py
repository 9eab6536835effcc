"""The commands that change an index: add, sync, remove, refresh; and filters on the command line."""

import json

import pytest

from cderetrieval.cli import main
from cderetrieval.testing import tiny_model_directory

ROWS = [{"id": n, "text": f"about {n}", "year": 2018 + n, "tags": ["odd" if n % 2 else "even"]} for n in range(6)]


@pytest.fixture
def write(tmp_path):
    def written(rows):
        path = tmp_path / "documents.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return written


@pytest.fixture
def index(tmp_path, write, capsys):
    out = str(tmp_path / "index")
    assert main(["index", write(ROWS), "--out", out, "--model", tiny_model_directory(), "--context-size", "4"]) == 0
    capsys.readouterr()
    return out


def said(capsys, *arguments, status=0):
    assert main(list(arguments)) == status
    found = capsys.readouterr()
    return found.err if status else found.out


def test_an_index_is_kept_in_step(index, write, capsys):
    changed = [ROWS[0], {**ROWS[1], "text": "new"}, {"id": "x", "text": "more"}]
    found = said(capsys, "add", index, write(changed))
    assert found.startswith("1 added, 1 replaced, 1 unchanged, 0 removed; 7 documents in Context(")
    assert said(capsys, "sync", index, write(ROWS[:4])).startswith("0 added, 1 replaced, 3 unchanged, 3 removed; 4 doc")
    assert said(capsys, "remove", index, "0").startswith("0 added, 0 replaced, 0 unchanged, 1 removed; 3 documents")
    assert "random" in said(capsys, "refresh", index, "--context", "random")
    assert " 1 removed; 2 documents" in said(capsys, "remove", index, "--filter", "year >= 2021")
    assert "ids are not in this index, the first is 'nine'" in said(capsys, "remove", index, "nine", status=2)
    assert "ids or filter=" in said(capsys, "remove", index, status=2)


def test_filters(index, capsys):
    for filters, ids in (
        (["year >= 2021", "tags contains odd"], {3, 5}),
        (['{"$or": [{"year": 2018}, {"tags": {"$contains": "odd"}}]}'], {0, 1, 3, 5}),
        (["year in [2018, 2019]"], {0, 1}),
    ):
        options = [word for text in filters for word in ("--filter", text)]
        lines = said(capsys, "search", index, "about", "--json", *options).splitlines()
        assert {json.loads(line)["id"] for line in lines} == ids
    assert "cannot be read; write FIELD" in said(capsys, "search", index, "about", "--filter", "2021", status=2)
