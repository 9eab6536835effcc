import re
import sys
import unicodedata

import pytest

pytest.importorskip("regex")

from hypothesis import given, settings
from hypothesis import strategies as st

from cderetrieval.models import words as module
from cderetrieval.models.words import words

FORMER = re.compile(r"(?u)\b\w\w+\b")
ASCII = st.text(st.characters(max_codepoint=127), max_size=60)
ANY = st.text(st.characters(exclude_categories=["Cn", "Co"]), max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The C and R languages", ["the", "c", "and", "r", "languages"]),
        ("type 2, vitamin D", ["type", "2", "vitamin", "d"]),
        ("don't L'eau O'Brien rock'n'roll isn\u2019t", ["don", "eau", "brien", "rock", "roll", "isn"]),
        ("'C' 5' 3'UTR", ["c", "5", "3", "utr"]),
        ("state-of-the-art covid-19 covid19 c++ C#", ["state", "of", "the", "art", "covid", "19", "covid19", "c", "c"]),
        ("foo_bar __x _ 3.14 1,000", ["foo_bar", "__x", "3", "14", "1", "000"]),
        ("", []),
        ("\t !? \U0001f355 \u2764\ufe0f \u2026", []),
        ("1\ufe0f\u20e3", ["1"]),
        ("pizza\U0001f355pasta", ["pizza", "pasta"]),
        ("half \ud83d pair", ["half", "pair"]),
        ("Lego\u2122 m\u00b2 \u00bd", ["lego", "m\u00b2", "\u00bd"]),
        ("TNF-\u03b1 \u03b2 5 \u00b5m", ["tnf", "\u03b1", "\u03b2", "5", "\u03bcm"]),
        ("a" * 100_000, ["a" * 100_000]),
    ],
)
def test_words_with_spaces(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("Ti\u1ebfng Vi\u1ec7t", unicodedata.normalize("NFD", "ti\u1ebfng vi\u1ec7t")),
        ("H\u00e4user", "HA\u0308USER"),
        ("Stra\u00dfe", "STRASSE"),
        ("\u039f\u0394\u039f\u03a3", "\u03bf\u03b4\u03bf\u03c2"),
        ("\u0390", "\u03b9\u0308\u0301"),
        ("\u0130stanbul", "istanbul"),
        ("I\u0307stanbul", "istanbul"),
        ("\ufb01nding", "finding"),
        ("co\u00adoperate", "cooperate"),
        ("\uff21\uff22\uff13\uff0d\uff39\uff34", "ab3-yt"),
        ("\uff76\uff9e\uff72\uff84\uff9e\uff70", "\u30ac\u30a4\u30c9\u30fc"),
        ("\u304b\u3099", "\u304c"),
        ("\u845b\U000e0100\u57ce", "\u845b\u57ce"),
        ("\u2f08\u9593", "\u4eba\u9593"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", "\ud55c\uae00"),
        ("\u0661\u0662\u0663 \u06f4 \u0967 \u0e52", "123 4 1 2"),
        ("\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f", "\u0645\u062d\u0645\u062f"),
        ("\u0633\u0640\u0640\u0644\u0627\u0645", "\u0633\u0644\u0627\u0645"),
        ("\ufedf\ufe8e", "\u0644\u0627"),
        ("\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
        ("\u0645\u06cc\u200c\u0631\u0648\u0645", "\u0645\u06cc\u0631\u0648\u0645"),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u0937"),
        ("\u200fowl\ufeff", "owl"),
        ("\u0958", "\u0915\u093c"),
        ("\u0437\u0430\u0301\u043c\u043e\u043a", "\u0437\u0430\u043c\u043e\u043a"),
        ("\u043f\u2019\u044f\u0442\u044c", "\u043f\u02bc\u044f\u0442\u044c"),
        ("\u05d2\u05f3\u05d9\u05e8\u05e4\u05d4", "\u05d2'\u05d9\u05e8\u05e4\u05d4"),
        ("l\u00b4eau", "l'eau"),
    ],
)
def test_spellings_that_mean_the_same(one, other):
    assert words(one) == words(other) != []


def test_accents_stay():
    assert words("na\u00efve") != words("naive")
    assert words("Bl\u00e5b\u00e6r") == ["bl\u00e5b\u00e6r"]
    assert words("\u0438\u0306\u043e\u0434") == words("\u0439\u043e\u0434") != words("\u0438\u043e\u0434")


def test_the_small_letter_of_i_in_turkish():
    assert words("ISPARTA \u0130zmir", dotless=True) == ["\u0131sparta", "izmir"] == words("\u0131sparta izmir")
    assert words("ISPARTA") == ["isparta"]


@pytest.mark.parametrize(
    "word",
    [
        "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u09ac\u09be\u0982\u09b2\u09be",
        "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
        "\u0c24\u0c46\u0c32\u0c41\u0c17\u0c41",
        "\u0dc3\u0dd2\u0d82\u0dc4\u0dbd",
        "\u1275\u130d\u122d\u129b",
        "\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8",
        "\u0439\u043e\u0434",
        "\u0928",
    ],
)
def test_a_word_keeps_its_marks(word):
    assert words(f"{word}, {word}") == [word, word]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u732b\u5403\u9c7c\u3002", "\u732b \u5403 \u9c7c \u732b\u5403 \u5403\u9c7c"),
        ("\u732b", "\u732b"),
        ("\u30c7\u30fc\u30bf", "\u30c7\u30fc \u30fc\u30bf"),
        ("\u306e", "\u306e"),
        ("\u98df\u3079\u308b", "\u98df \u98df\u3079 \u3079\u308b"),
        ("\u4eba\u3005", "\u4eba \u3005 \u4eba\u3005"),
        ("\u5b66\u6821", "\u5b66 \u6821 \u5b66\u6821"),
        ("\ubb3c\uc740", "\ubb3c \uc740 \ubb3c\uc740"),
        ("\u0e19\u0e49\u0e33", "\u0e19\u0e49\u0e4d \u0e19\u0e49\u0e4d\u0e32"),
        ("\u0e1b\u0e25\u0e32", "\u0e1b\u0e25 \u0e25\u0e32"),
        ("\u7b2c2\u6b21covid19\u611f\u67d3", "\u7b2c 2 \u6b21 covid19 \u611f \u67d3 \u611f\u67d3"),
        ("T\u30b7\u30e3\u30c4", "t \u30b7\u30e3 \u30e3\u30c4"),
        ("\u304b\u309a\u304d", "\u304b\u309a \u304b\u309a\u304d"),
        ("\u30ab\u30e9\u30fb\u30b1", "\u30ab\u30e9 \u30b1"),
    ],
)
def test_scripts_without_spaces(text, expected):
    assert words(text) == expected.split()


@given(ASCII)
def test_english_words_are_as_they_were_but_for_those_of_one_character(text):
    assert [word for word in words(text) if len(word) > 1] == FORMER.findall(text.lower())


@settings(max_examples=300)
@given(ANY)
def test_both_ways_to_cut_a_text_agree(text):
    text = module.fold(text)
    if not module._NOT_PLAIN.search(text):
        assert module._ANY.findall(text) == module._PLAIN.findall(text)


@settings(max_examples=300)
@given(ANY)
def test_any_text(text):
    found = words(text)
    assert all(found)
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text)) == found
    assert words(" ".join([text, text])) == found * 2


def test_no_plain_text_holds_a_mark_or_a_script_without_spaces():
    plain = "".join(c for c in map(chr, range(sys.maxunicode)) if not module._NOT_PLAIN.match(c))
    assert not module._IS_PACKED.search(plain)
    assert not any(map(unicodedata.combining, plain))
