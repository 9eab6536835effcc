"""Words of a text in any script, as BM25 counts them.

A word is a run of letters, digits and underscores with the marks that belong to them, folded: composed (NFC), without
case, letters in their plain form where Unicode has them in another (full and half width, ligatures, Arabic presentation
forms), digits of every script as 0 to 9, and without what is not seen (soft hyphens, joiners) or may be left out (vowel
points of Arabic and Hebrew, stress in Cyrillic). Accents stay.

Scripts without spaces, and Korean, whose endings stick to words, are cut without a dictionary, as Lucene's CJK analyzer
does: each pair of neighbouring characters is a word, and so is each character that can be one by itself. Characters are
Unicode's extended grapheme clusters, by the library regex.
"""

from __future__ import annotations

import re
from itertools import pairwise
from unicodedata import category, decimal, decomposition, normalize

import regex

# Counts up with all that changes the words of a text: indexes saved by an older one are built again.
VERSION = 2

# Scripts without spaces, and Korean; U+30FC lengthens a vowel in Japanese and belongs to no script.
_PACKED = (
    r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}\p{Line_Break=SA}\p{Javanese}\p{Balinese}\u30FC]"
    r"&&[\p{L}\p{M}\p{Nl}]]"
)
_FIRST = rf"[[\p{{L}}\p{{N}}_]--{_PACKED}]"
_NEXT = rf"[[\p{{L}}\p{{N}}\p{{M}}_]--{_PACKED}]"
# A letter alone beside an apostrophe is what is left of another word: don't, l'eau, O'Brien.
_ANY = regex.compile(
    rf"(?V1){_PACKED}[{_PACKED}\p{{M}}]*|{_FIRST}{_NEXT}+|[0-9]|(?<!{_NEXT}')[{_FIRST}--_](?!'{_FIRST})"
)
# The same words, 3 times as fast, of a text that holds neither marks nor packed scripts.
_PLAIN = re.compile(r"\w\w+|[0-9]|(?<!\w')[^\W_](?!'\w)")
_NOT_PLAIN = re.compile("[^\0-\u02ff\u0370-\u0482\u048a-\u052f\u2000-\u20cf\u2100-\u2bff]")
_IS_PACKED = regex.compile(rf"(?V1){_PACKED}")
_CHARACTER = regex.compile(r"\X")
_ALONE = regex.compile(r"(?V1)[\p{Han}\p{Hangul}]|..")
_BEYOND_ASCII = re.compile(r"[^\0-\x7f]+")
_UNSEEN = regex.compile(
    r"(?V1)[\p{Default_Ignorable_Code_Point}--\u200B]"  # U+200B is a space between words of Thai and Khmer
    r"|[\u0591-\u05BD\u05BF\u05C1\u05C2\u05C4\u05C5\u05C7]"  # points of Hebrew
    r"|[\u0610-\u061A\u0640\u064B-\u0652\u0670\u06D6-\u06DC\u06DF-\u06E4\u06E7\u06E8\u06EA-\u06ED\u08D3-\u08FF]"
)
# What is left of acute and grave after NFC marks the stress of a Cyrillic word, in dictionaries and encyclopedias.
_STRESS = re.compile("[\u0300\u0301](?<=[\u0400-\u052f].)")
_APOSTROPHES = "\u2019\u2018\u00b4\u02bc\u05f3\uff07"
# Letters in another form; raised, lowered, circled and squared ones are no spelling of a word ("Lego\u2122").
_FORMS = ("<wide>", "<narrow>", "<initial>", "<medial>", "<final>", "<isolated>", "<vertical>", "<font>", "<compat>")


def words(text: str, *, dotless: bool = False) -> list[str]:
    """Words of a text, in order, repeated as they are; pairs follow the characters of their run."""
    text = fold(text, dotless=dotless)
    if not _NOT_PLAIN.search(text):
        return _PLAIN.findall(text)
    found: list[str] = []
    for word in _ANY.findall(text):
        if _IS_PACKED.match(word):
            found += _of_packed(word)
        else:
            found.append(word)
    return found


def fold(text: str, *, dotless: bool = False) -> str:
    """A text of which spellings that mean the same are the same."""
    if dotless:
        text = normalize("NFC", text).replace("I", "\u0131")
    if text.isascii():
        return text.lower()
    # With a dot over the small letter, capital I with a dot would stay apart from i.
    text = normalize("NFC", text).casefold().replace("i\u0307", "i")
    text = _BEYOND_ASCII.sub(lambda run: run[0].translate(_PLAIN_FORM), text)
    return _STRESS.sub("", normalize("NFC", text))


class _PlainForms(dict[int, str]):
    """Code point to what is written in its place, found out when it is first seen."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = _plain_form(chr(code))
        return plain


_PLAIN_FORM = _PlainForms()


def _plain_form(char: str) -> str:
    kind = category(char)
    if kind == "Me" or _UNSEEN.match(char):
        return ""
    if char in _APOSTROPHES:
        return "'"
    if kind == "Nd":
        return str(decimal(char))
    if (kind[0] == "L" or "\u2e80" <= char <= "\u2fdf") and decomposition(char).startswith(_FORMS):
        return normalize("NFKC", char).casefold()
    return char


def _of_packed(run: str) -> list[str]:
    characters = _CHARACTER.findall(run)
    alone = [character for character in characters if _ALONE.match(character)]
    return alone + [first + second for first, second in pairwise(characters)] or characters
