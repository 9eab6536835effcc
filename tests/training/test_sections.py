"""Whole documents as training data."""

import pytest

from cderetrieval.errors import InputError
from cderetrieval.training.data import load_pairs
from cderetrieval.training.sections import pairs_of, without_name

HUNTING = "They hunt at night and hear a mouse under the snow from a great distance, as Ural owls of the north do."


def owls(number):
    intro = f"The Ural owl, number {number}, is a large bird of the forests of the north and the east of the land."
    sections = [("", intro), ("Hunting", f"{HUNTING} That was seen {number} times."), ("Sources", "None.")]
    return {
        "title": f"Ural owl {number} (bird)",
        "sections": [{"heading": heading, "text": text} for heading, text in sections],
    }


def test_a_document_becomes_a_pair_for_each_passage_and_half_of_them_withhold_their_names(write_jsonl, tmp_path):
    write_jsonl(tmp_path / "owls.jsonl", [owls(number) for number in range(40)])
    data = load_pairs([tmp_path / "owls.jsonl"], tmp_path / "cache")
    assert len(data) == 80  # what is very short is no passage
    assert data.where(3) == "owls, line 2"
    assert all("Ural owl" in data[row]["document"] for row in range(0, 80, 2))
    named = sum("Ural" in data[row]["document"] for row in range(1, 80, 2))
    assert 8 < named < 32
    queries = [data[row]["query"] for row in range(80)]
    assert 20 < sum("Ural owl" in query and "(bird)" not in query for query in queries) < 80
    again = load_pairs([tmp_path / "owls.jsonl"], tmp_path / "other")
    assert [again[row] for row in range(80)] == [data[row] for row in range(80)]


def test_a_long_section_becomes_several_passages():
    text = " ".join(f"Sentence number {n} says a little of something that is long." for n in range(60))
    found = list(pairs_of({"title": "Long", "sections": [{"heading": "All > Part", "text": text}]}, "here"))
    assert len(found) > 4
    assert all(len(passage.split()) <= 120 for _, passage in found)


def test_names_are_withheld_whole():
    assert without_name("C++ (2011) and c++ differ", "C++", "it") == "C++ (2011) and c++ differ"
    assert without_name("A catalogue of the Cats", "The Cats (musical)", "this") == "A catalogue of this"
    assert without_name("In Cretan caves, crete's owls", "owls of Crete", "it") == "In Cretan caves, it's owls"
    assert without_name("nothing of it is said", "On that", "it") == "nothing of it is said"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"sections": [{"text": "a"}]}, "needs a 'title'"),
        ({"title": " ", "sections": [{"text": "a"}]}, "needs a 'title'"),
        ({"title": "a", "sections": []}, "'sections' must be a list"),
        ({"title": "a", "sections": "text"}, "'sections' must be a list"),
        ({"title": "a", "sections": [{"heading": "b"}]}, "section 0"),
        ({"title": "a", "sections": [{"text": "b"}, {"text": "c", "heading": 3}]}, "section 1"),
        ({"title": "a", "sections": ["text"]}, "section 0"),
    ],
)
def test_a_document_that_cannot_be_used_is_named(document, message, write_jsonl, tmp_path):
    with pytest.raises(InputError, match=f"line 1.*{message}"):
        load_pairs([write_jsonl(tmp_path / "bad.jsonl", [document])], tmp_path / "cache")
