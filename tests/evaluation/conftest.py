import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from cderetrieval.corpora.beir_folder import write_beir
from cderetrieval.corpora.dataset import make_dataset

TOPICS = ("owl", "bee", "tide", "moon", "iron", "salt", "river", "stone", "amber", "maple", "comet", "heron")


class WordHashEncoder:
    """Bags of words in random directions: fast, deterministic, and it does find documents."""

    kind, dimension = "dense", 96

    def __init__(self, name="words"):
        self.name, self.n_encoded = name, 0
        self._words = {}

    @property
    def fingerprint(self):
        return hashlib.sha256(self.name.encode()).hexdigest()

    def encode_query(self, texts, *, show_progress=False):
        return self.encode_document(texts)

    def encode_document(self, texts, *, show_progress=False):
        self.n_encoded += len(texts)
        rows = np.stack([self._vector(text) for text in texts])
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def _vector(self, text):
        words = re.findall(r"\w+", text.lower()) or ["-"]
        return np.sum([self._word(word) for word in words], axis=0)

    def _word(self, word):
        if word not in self._words:
            seed = int.from_bytes(hashlib.sha256(f"{self.name}:{word}".encode()).digest()[:8], "big")
            self._words[word] = np.random.default_rng(seed).standard_normal(self.dimension)
        return self._words[word]


def toy_dataset(name="toy", n_documents=60, n_queries=20, seed=0):
    rng = np.random.default_rng(seed)
    documents = [
        {"id": f"d{i}", "title": f"{TOPICS[i % 12]} {i}", "text": " ".join(rng.choice(TOPICS, 12)) + f" number {i}"}
        for i in range(n_documents)
    ]
    queries = {f"q{i}": f"{TOPICS[i % 12]} {rng.choice(TOPICS)} number {i}" for i in range(n_queries)}
    qrels = {f"q{i}": {f"d{i}": 2, f"d{(i + 12) % n_documents}": 1, f"d{i + 1}": 0} for i in range(n_queries)}
    return make_dataset(name, documents, queries, qrels)


@pytest.fixture
def words():
    return WordHashEncoder()


@pytest.fixture
def make_words():
    return WordHashEncoder


@pytest.fixture
def toy():
    return toy_dataset()


@pytest.fixture
def make_toy():
    return toy_dataset


@pytest.fixture
def toy_folder(tmp_path):
    return write_beir(toy_dataset(), tmp_path / "toy")


@pytest.fixture
def shared_data():
    root = Path(os.environ.get("CDE_SHARED", Path(__file__).parents[3] / "shared")) / "data"
    if not root.is_dir():
        pytest.skip("no real data here")
    return root
