"""Small training data of two data sets and four domains, and vectors of a surrogate that counts letters."""

import gzip
import json

import numpy as np
import pytest

from cderetrieval.training.data import load_pairs

WORDS = ["amber", "birch", "cedar", "dune", "ember", "frost", "grove", "heath", "inlet", "jade", "kelp", "lichen"]


def make_example(number, domain, negatives=0):
    rng = np.random.default_rng(number)
    first, second, third = rng.choice(WORDS, 3, replace=False)
    row = {"query": f"{first} {number}", "document": f"the {first} and the {second} of {number}", "domain": domain}
    if negatives:
        row["negatives"] = [f"no {third} {number} {k}" for k in range(negatives)]
    return row


def write_rows(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


class LetterCounts:
    """An encoder without weights: how often each letter occurs."""

    dimension = 26
    kind = "dense"
    fingerprint = "letters"

    def encode_query(self, texts, *, show_progress=False):
        counts = np.array([[text.count(chr(97 + k)) for k in range(26)] for text in texts], dtype=np.float32)
        counts = counts.reshape(len(texts), 26) + 1e-3
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    encode_document = encode_query


@pytest.fixture
def example():
    return make_example


@pytest.fixture
def write_jsonl():
    return write_rows


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path / "data" / "plain.jsonl.gz", [make_example(k, "a" if k < 20 else "b") for k in range(44)])
    write_rows(tmp_path / "data" / "mined.jsonl", [make_example(100 + k, "c" if k % 2 else "d", 2) for k in range(40)])
    return tmp_path / "data"


@pytest.fixture
def pairs(folder, tmp_path):
    return load_pairs([folder], tmp_path / "cache", negatives=1)


@pytest.fixture
def letters():
    return LetterCounts()
