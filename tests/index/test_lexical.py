import math
import random

import numpy as np
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.errors import InputError, StoreError
from cderetrieval.index.lexical import LexicalIndex
from cderetrieval.models.bm25 import BM25

WORDS = ["owl", "bee", "tide", "moon", "iron", "salt", "river", "stone"]
PLAIN = BM25(None)


class Texts:
    """A store of texts by number, that counts what is read."""

    def __init__(self, texts=None):
        self.texts, self.read = dict(texts or {}), 0

    @property
    def live(self):
        return np.array(sorted(self.texts), dtype=np.int64)

    def after(self, number, chunk=3):
        later = [n for n in sorted(self.texts) if n > number]
        for start in range(0, len(later), chunk):
            part = later[start : start + chunk]
            self.read += len(part)
            yield np.array(part), [self.texts[n] for n in part]

    def sync(self, index):
        index.sync(self.live, self.after)
        return index


def reference(texts, query, k1=1.5, b=0.75):
    """BM25 as the formula stands, document number to score."""
    words = {number: text.split() for number, text in texts.items()}
    mean = sum(map(len, words.values())) / len(words)
    scores = dict.fromkeys(words, 0.0)
    for term in query:
        n = sum(term in document for document in words.values())
        idf = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
        for number, document in words.items():
            tf = document.count(term)
            scores[number] += idf * tf / (tf + k1 * (1 - b + b * len(document) / mean)) if tf else 0.0
    return scores


def assert_equals_reference(index, texts, query, k, **numbers):
    scores, seqs = index.search([query], k)
    expected = {n: round(s, 5) for n, s in reference(texts, query, **numbers).items() if s > 0}
    found = seqs[0][seqs[0] >= 0].tolist()
    assert len(found) == min(k, len(expected))
    assert scores[0][: len(found)] == pytest.approx([expected[n] for n in found], abs=2e-5)
    assert all(np.diff(scores[0][: len(found)]) <= 0)
    assert found == sorted(found, key=lambda n: (-round(float(scores[0][found.index(n)]), 6), n))
    missed = sorted((s for n, s in expected.items() if n not in found), reverse=True)
    assert not missed or not found or missed[0] <= scores[0][len(found) - 1] + 2e-5
    assert (seqs[0][len(found) :] == -1).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=8), min_size=1, max_size=12),
    st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=5),
    st.integers(1, 15),
    st.sampled_from([(1.5, 0.75), (0.9, 0.4), (0.0, 0.0)]),
)
def test_scores_are_those_of_the_formula(documents, query, k, numbers):
    k1, b = numbers
    store = Texts({2 * i + 1: " ".join(words) for i, words in enumerate(documents)})
    index = store.sync(LexicalIndex(BM25(None, k1=k1, b=b)))
    if any(store.texts.values()):
        assert_equals_reference(index, store.texts, query, k, k1=k1, b=b)
    else:
        assert (index.search([query], k)[1] == -1).all()


def test_add_remove_and_replace_equal_a_fresh_index():
    rng = random.Random(0)
    store, index, number = Texts(), LexicalIndex(PLAIN), 0
    query = [["owl", "bee", "owl"]]
    for _ in range(30):
        for _ in range(rng.randint(0, 4)):
            number += rng.randint(1, 3)
            store.texts[number] = " ".join(rng.choices(WORDS, k=rng.randint(0, 9)))
        for gone in rng.sample(sorted(store.texts), min(len(store.texts), rng.randint(0, 3))):
            del store.texts[gone]
        store.sync(index)
        assert index.count == len(store.texts)
        fresh = store.sync(LexicalIndex(PLAIN))
        for found, expected in zip(index.search(query, 50), fresh.search(query, 50), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_only_new_texts_are_read_and_weights_wait_for_a_search():
    store = Texts({n: "owl bee" for n in range(1, 11)})
    index = store.sync(LexicalIndex(PLAIN))
    assert store.read == 10
    store.texts[11] = "moon"
    store.sync(index)
    assert store.read == 11
    first = index.weights()
    store.sync(index)
    assert (index.weights() is first, store.read) == (True, 11)
    del store.texts[3]
    store.sync(index)
    assert (index.weights() is first, store.read) == (False, 11)


def test_equal_scores_stand_in_order_of_insertion_at_any_k():
    store = Texts({n: "owl" for n in range(1, 40)} | {50: "owl owl"})
    index = store.sync(LexicalIndex(PLAIN))
    for k in (1, 2, 5, 39):
        assert index.search([["owl"]], k)[1][0].tolist() == [50, *range(1, 40)][:k]


def test_only_what_a_mask_lets_pass():
    store = Texts({1: "owl", 2: "owl bee", 5: "owl owl"})
    index = store.sync(LexicalIndex(PLAIN))
    scores, seqs = index.search([["owl"]], 3)
    mask = np.array([True, False, True])
    found_scores, found = index.search([["owl"]], 3, mask)
    assert found.tolist() == [[5, 1]]
    assert found_scores[0, :2].tolist() == [scores[0, seqs[0].tolist().index(n)] for n in (5, 1)]


def test_texts_that_the_index_should_have_had_make_it_start_over(caplog):
    store = Texts({1: "owl", 5: "bee"})
    index = store.sync(LexicalIndex(PLAIN))
    store.texts[3] = "owl moon"
    store.sync(index)
    assert "built again" in caplog.text
    assert index.search([["moon"]], 1)[1].tolist() == [[3]]


def test_letters_that_no_document_has_are_said_once(caplog):
    store = Texts({1: "owl", 2: "\u0441\u043e\u0432\u0430"})
    index = store.sync(LexicalIndex(PLAIN))
    index.search([["bee"], ["7"], ["\u043a\u043e\u0442"], ["owl", "\u732b"]], 1)
    assert "letters" not in caplog.text
    store.texts[3] = "\u732b"
    store.sync(index).search([["\u9c7c"], ["\u092e"], ["\u05d0"]], 1)
    assert caplog.text.count("finds nothing") == 1
    assert "Query 1 finds nothing: its letters are DEVANAGARI, no document's are." in caplog.text


def test_bad_input():
    index = LexicalIndex(PLAIN)
    with pytest.raises(InputError, match="k=0 must be 1 or more"):
        index.search([["owl"]], 0)
    assert index.search([["owl"]], 3)[0].shape == (1, 0)
    with pytest.raises(StoreError, match="texts of 2 documents"):
        index.sync(np.array([1, 2]), lambda after: iter([(np.array([1]), ["owl"])]))
    with pytest.raises(StoreError, match="texts of 1 documents"):
        index.sync(np.array([1]), lambda after: iter([]))
