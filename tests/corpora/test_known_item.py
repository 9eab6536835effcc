import random

import pytest

from cderetrieval.corpora.known_item import known_item
from cderetrieval.errors import InputError

REST = "Twice a day the water of every coast rises and then falls again."
DOCUMENTS = [{"key": i, "title": f"All about coast {i}", "text": f"Coast {i} has tides. {REST} {i}"} for i in range(30)]


def test_title_to_document():
    dataset = known_item(DOCUMENTS, key="key", n_queries=5)
    assert dataset.name == "generated-title"
    assert len(dataset.queries) == 5
    assert len(dataset.corpus) == 30
    for query, text in dataset.queries.items():
        [document] = dataset.qrels[query]
        assert text == f"All about coast {document}"
    assert all("All about" not in row["text"] + row["title"] for row in dataset.corpus)


def test_first_sentence_to_rest():
    dataset = known_item(DOCUMENTS, key="key", on="text")
    assert dataset.queries["generated:7"] == "Coast 7 has tides."
    assert {"id": "7", "title": "", "text": f"{REST} 7"} in list(dataset.corpus)


def test_order_of_documents_does_not_matter_and_seed_does():
    shuffled = random.Random(0).sample(DOCUMENTS, len(DOCUMENTS))
    base = known_item(DOCUMENTS, key="key", n_queries=5, seed=1).queries
    assert known_item(shuffled, key="key", n_queries=5, seed=1).queries == base
    assert known_item(DOCUMENTS, key="key", n_queries=5, seed=2).queries != base


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("See J. Smith about tides. " + REST, "See J. Smith about tides."),
        ("Version 2.5 of tides\n\n" + REST, "Version 2.5 of tides"),
        ("Tides were named in BRCA2. " + REST, "Tides were named in BRCA2."),
        ("tides by j. smith . " + REST.lower(), "tides by j. smith ."),
        ("tides come and go. " + REST.lower(), "tides come and go."),
        ('Who said "Look at tides!" (Twice.) ' + REST, 'Who said "Look at tides!" (Twice.)'),
    ],
)
def test_sentence_ends(text, sentence):
    assert known_item([{"id": "a", "text": text}], on="text").queries == {"generated:a": sentence}


def test_ambiguous_and_empty_queries_are_not_asked():
    rows = [
        {"id": "a", "title": "Same title here", "text": REST},
        {"id": "b", "title": "Same title here", "text": REST},
        {"id": "c", "title": None, "text": REST},
        {"id": "d", "title": "Too short", "text": REST},
        {"id": "e", "title": "Title without text", "text": ""},
        {"id": "f", "title": "Coast rises and falls", "text": f"coast rises AND falls: {REST}"},
        {"id": "g", "title": "A good title", "text": REST},
        {"id": "h", "title": "word " * 61, "text": REST},
    ]
    dataset = known_item(rows)
    assert list(dataset.queries.values()) == ["A good title"]
    assert len(dataset.corpus) == 8


def test_errors():
    with pytest.raises(InputError, match=r"None of 1 documents .* name other fields"):
        known_item([{"id": 1, "text": "tides"}], on="text")
    with pytest.raises(InputError, match="document 0 has no field 'number'; its fields are: text"):
        known_item([{"text": "tides"}], key="number")
    with pytest.raises(InputError, match="occurs twice"):
        known_item([DOCUMENTS[0], DOCUMENTS[0], DOCUMENTS[1]], key="key")
    with pytest.raises(InputError, match="at least one query"):
        known_item(DOCUMENTS, key="key", n_queries=0)
