import subprocess
import sys

import pytest

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

import Stemmer

from cderetrieval.errors import ConfigError, InputError, MissingDependencyError
from cderetrieval.models import bm25
from cderetrieval.models.bm25 import BM25
from cderetrieval.models.load import load
from cderetrieval.types import Encoder


def test_it_is_an_encoder_without_vectors():
    model = BM25()
    assert isinstance(model, Encoder)
    assert (model.kind, model.dimension) == ("lexical", 0)
    assert model.encode_document(["Bees, bees!"]) == model.encode_query(["bee BEE"]) == [["bee", "bee"]]


def test_names():
    assert load("bm25").fingerprint == BM25().fingerprint
    assert load("bm25:german").encode_query(["Die Häuser und das Haus"]) == [["haus", "haus"]]
    assert load("bm25:none").encode_query(["the owls"]) == [["the", "owls"]]
    assert repr(load("bm25:none")) == "BM25(None, k1=1.5, b=0.75)"


def test_all_that_changes_a_ranking_changes_the_fingerprint():
    models = [BM25(), BM25("german"), BM25(None), BM25(k1=0.9), BM25(b=0.4)]
    assert len({model.fingerprint for model in models}) == len(models)
    assert BM25().fingerprint == BM25("english", k1=1.5, b=0.75).fingerprint


def test_text_of_every_kind():
    texts = ["", "!?", "na\u00efve caf\u00e9", "half a pair \ud83d", "\u6f22\u5b57 owls", "x" * 100_000, "the"]
    words = BM25().encode_document(texts)
    assert len(words) == len(texts)
    assert words[0] == words[1] == words[6] == []
    assert words[2] == ["na\u00efv", "caf\u00e9"]
    assert words[3] == ["half", "pair"]
    assert "owl" in words[4]


@pytest.mark.parametrize("language", [None, *Stemmer.algorithms()])
def test_every_language_that_is_taken_has_words_of_every_script(language):
    [words] = BM25(language).encode_query(["xyz 7 \u732b\u732b \u0939\u093f\u0928\u094d\u0926\u0940"])
    assert {"7", "\u732b", "\u732b\u732b"} < set(words)
    assert len(words) == 6


@pytest.mark.parametrize("language", sorted(bm25.STOP_WORDS))
def test_stop_words_are_left_out_however_they_are_written(language):
    assert len(BM25(language)._stop_words) > 30
    texts = {"german": "und DASS da\u00df fu\u0308r", "english": "A an THE", "russian": "\u0418 \u044f"}
    assert BM25(language).encode_query([texts.get(language, "")]) == [[]]


def test_words_as_they_stand():
    assert BM25(None).encode_query(["The C of 2 owls"]) == [["the", "c", "of", "2", "owls"]]


def test_turkish_has_two_letters_i():
    cut = BM25("turkish").encode_query
    assert cut(["ILIK"]) == cut(["\u0131l\u0131k"]) != cut(["ilik"])
    assert cut(["\u0130L", "I\u0307L"]) == cut(["il", "il"])


def test_a_change_of_words_changes_the_fingerprint_and_the_versions(monkeypatch):
    before, versions = BM25(), BM25().versions()
    assert before.fingerprint not in before.other_fingerprints
    monkeypatch.setattr("cderetrieval.models.words.VERSION", 99)
    assert BM25().fingerprint != before.fingerprint
    assert BM25().versions() != versions
    assert BM25().other_fingerprints == BM25("english").other_fingerprints != BM25(None).other_fingerprints


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "klingon"}, "language='klingon' is unknown; use None or one of arabic"),
        ({"k1": -1}, "k1=-1 must be at least 0"),
        ({"b": 1.5}, "b=1.5 from 0 to 1"),
        ({"k1": float("nan")}, "k1=nan must be"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ConfigError, match=message):
        BM25(**arguments)


def test_texts_that_are_none():
    with pytest.raises(InputError, match="text 1 is int, not a string"):
        BM25().encode_query(["owls", 3])
    with pytest.raises(ConfigError, match="language='' is unknown"):
        load("bm25:")


@pytest.mark.parametrize("package", ["bm25s", "Stemmer", "regex"])
def test_what_to_install_is_said(monkeypatch, package):
    monkeypatch.delitem(sys.modules, "cderetrieval.models.words", raising=False)
    monkeypatch.delattr("cderetrieval.models.words", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    name = {"Stemmer": "PyStemmer"}.get(package, package)
    with pytest.raises(MissingDependencyError, match=rf'{name} is not installed.*pip install "cderetrieval\[bm25\]"'):
        bm25.BM25()
    if package == "Stemmer":
        assert BM25(None).encode_query(["owls"]) == [["owls"]]


def test_the_library_does_not_talk():
    code = (
        "import logging; logging.basicConfig(level=logging.WARNING); from cderetrieval.models.bm25 import BM25;"
        "BM25().scorer().index(([[0], [1]], {'owl': 0, 'bee': 1}), show_progress=False)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("", "")


def test_no_torch_is_needed():
    code = "import sys; from cderetrieval.models.load import load; load('bm25'); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
