"""Indexes that earlier code wrote still open, answer the same, and can be changed."""

import json
import shutil
from itertools import chain
from pathlib import Path

import pytest

import cderetrieval
from cderetrieval.testing import HashEncoder

from .golden.indexes import write

EXPECTED = {path.parent.name: json.loads(path.read_text()) for path in sorted(write.HERE.glob("*/expected.json"))}
MILVUS = [pytest.mark.slow]
INDEXES = [
    pytest.param(version, name, id=f"{version}-{name}", marks=MILVUS if name == "milvus_lite" else ())
    for version, kinds in EXPECTED.items()
    for name in kinds
]


@pytest.mark.parametrize(("version", "name"), INDEXES)
def test_an_index_of_an_earlier_version_opens_answers_and_changes(version, name, tmp_path, monkeypatch):
    if name == "milvus_lite":
        pytest.importorskip("milvus_lite")
    monkeypatch.chdir(write.HERE)  # models are named relative to it
    expected = EXPECTED[version][name]
    shutil.unpack_archive(write.HERE / version / f"{name}.zip", tmp_path / Path(expected["location"]).parts[0])
    options = {"model": HashEncoder()} if name == "ready_vectors" else {}
    with getattr(cderetrieval, expected["class"]).load(f"{tmp_path}/{expected['location']}", **options) as index:
        # Weighted scores of these depended on what else a call asked: on the most that a sparse part found.
        near = 2e-3 if name in ("hybrid_of_four", "hybrid_saved") else 1e-4
        assert_same(write.answers(name, index), expected["before"], near)
        write.change(name, index)
        assert_same(write.answers(name, index), expected["after"], near)


def assert_same(answers, expected, near):
    """Ids are equal and in the same order, scores near each other."""
    answers = answers[: len(expected)]  # the first version had no filters
    pairs = zip(chain(*answers), chain(*expected), strict=True)
    for hits, wanted in pairs:
        assert [name for name, _ in hits] == [name for name, _ in wanted]
        assert [score for _, score in hits] == pytest.approx([score for _, score in wanted], abs=near)
