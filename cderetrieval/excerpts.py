"""A passage as lines of a terminal: the sentence that shares most words with a query, and these words, are marked."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence

from .terminal import BOLD, UNDERLINE, Mark, printable

# Characters of a passage that are shown; of a longer one, from its best sentence on.
MOST = 1_000
PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|[。！？]|$)")  # noqa: RUF001
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
# English words that ask or join, and tell no sentence from another.
COMMON = (
    "a an and are as at be but by can could did do does for from had has have how i in is it its of on or should that "
    "the their there these they this those to was were what when where which who why will with would you your"
)
UNTELLING = frozenset(COMMON.split())

# The words of each text, as a model counts them.
Words = Callable[[Sequence[str]], list[list[str]]]


def plain_words(texts: Sequence[str]) -> list[list[str]]:
    """Words in small letters, without those that are in every English sentence.

    >>> plain_words(["How do Owls hunt?"])
    [['owls', 'hunt']]
    """
    found = (map(str.casefold, WORD.findall(text)) for text in texts)
    return [[word for word in some if word not in UNTELLING] for some in found]


def excerpt(passage: str, query: str, words: Words, width: int) -> Iterator[tuple[str, list[Mark]]]:
    """Lines of at most `width` characters, and what to mark in each."""
    text, sentences = _flat(passage)
    wanted, *found = (set(some) for some in words([query, *(text[a:b] for a, b in sentences)]))
    shared = [(len(wanted & own), sum(map(len, wanted & own))) for own in found]
    start, stop = sentences[shared.index(max(shared))]
    begin = start if stop > MOST else 0
    end = len(text) if len(text) - begin <= MOST else max(text.rfind(" ", begin, begin + MOST), begin + MOST // 2)
    places = [match.span() for match in WORD.finditer(text, begin, end)]
    marks = [Mark(start, stop, UNDERLINE)] if max(shared)[0] else []
    for (a, b), own in zip(places, words([text[a:b] for a, b in places]), strict=True):
        marks += [Mark(a, b, BOLD)] if wanted.intersection(own) else []
    before, after = "… " if begin else "", " …" if end < len(text) else ""
    shift = len(before) - begin
    return _wrapped(before + text[begin:end] + after, [mark.moved(shift) for mark in marks], width)


def _flat(passage: str) -> tuple[str, list[tuple[int, int]]]:
    """A passage in one line that a terminal only shows, and where its sentences are."""
    text, sentences = "", []
    for paragraph in PARAGRAPH.split(passage):
        line = printable(" ".join(paragraph.split()))
        sentences += [(len(text) + found.start(), len(text) + found.end()) for found in SENTENCE.finditer(line)]
        text += line + " " if line else ""
    return text.rstrip(), sentences or [(0, 0)]


def _wrapped(text: str, marks: list[Mark], width: int) -> Iterator[tuple[str, list[Mark]]]:
    place = 0
    for line in textwrap.wrap(text, width, break_on_hyphens=False):
        place = text.find(line, place)
        stop = place + len(line)
        here = (Mark(max(a, place), min(b, stop), style) for a, b, style in marks if a < stop and b > place)
        yield line, [mark.moved(-place) for mark in here]
        place = stop
