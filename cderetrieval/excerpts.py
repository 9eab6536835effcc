"""What of a passage answers a query: the sentence that shares most words with it, and these words.

A terminal shows them in lines, a page in the text as it is.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .terminal import BOLD, UNDERLINE, Mark, printable

# Characters of a passage that are shown; of a longer one, from its best sentence on.
MOST = 1_000
PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|[。！？]|$)", re.DOTALL)  # noqa: RUF001
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


def words_of(searchers: Iterable[Any]) -> Words:
    """What cuts texts into words: a model of words, where there is one."""
    models = (searcher.model for searcher in searchers)
    found = next((model for model in models if getattr(model, "kind", "") == "lexical"), None)
    return plain_words if found is None else found.encode_query


def excerpt(passage: str, query: str, words: Words, width: int) -> Iterator[tuple[str, list[Mark]]]:
    """Lines of at most `width` characters, and what to mark in each."""
    text, sentences = _flat(passage)
    shared, (start, stop), wanted = _best(text, sentences, query, words)
    begin, end = shown_part(text, stop, start)
    marks = [Mark(start, stop, UNDERLINE)] if shared else []
    marks += [Mark(*place, BOLD) for place in _matches(text, begin, end, wanted, words)]
    before, after = "… " if begin else "", " …" if end < len(text) else ""
    shift = len(before) - begin
    return _wrapped(before + text[begin:end] + after, [mark.moved(shift) for mark in marks], width)


def marked(passage: str, query: str, words: Words) -> dict[str, Any]:
    r"""Where the best sentence of a passage is (None: no word is shared), the words in it, and the part to show.

    >>> marked("Bees hum.\n\nOwls hunt. They see.", "hunting owls hunt", plain_words)
    {'sentence': (11, 21), 'words': [(11, 15), (16, 20)], 'part': (0, 31)}
    """
    shared, (start, stop), wanted = _best(passage, _sentences(passage), query, words)
    begin, end = shown_part(passage, stop, start)
    found = _matches(passage, begin, end, wanted, words)
    return {"sentence": (start, stop) if shared else None, "words": found, "part": (begin, end)}


def shown_part(text: str, stop: int, start: int) -> tuple[int, int]:
    """Where to cut a long text, so that the sentence from `start` to `stop` is seen."""
    begin = start if stop > MOST else 0
    end = len(text) if len(text) - begin <= MOST else max(text.rfind(" ", begin, begin + MOST), begin + MOST // 2)
    return begin, end


def _best(
    text: str, sentences: Sequence[tuple[int, int]], query: str, words: Words
) -> tuple[int, tuple[int, int], set[str]]:
    """How many words the best sentence shares with a query, where it is, and the words of the query."""
    wanted, *found = (set(some) for some in words([query, *(text[a:b] for a, b in sentences)]))
    shared = [(len(wanted & own), sum(map(len, wanted & own))) for own in found]
    return max(shared)[0], sentences[shared.index(max(shared))], wanted


def _matches(text: str, begin: int, end: int, wanted: set[str], words: Words) -> list[tuple[int, int]]:
    places = [match.span() for match in WORD.finditer(text, begin, end)]
    cut = words([text[a:b] for a, b in places])
    return [place for place, own in zip(places, cut, strict=True) if wanted.intersection(own)]


def _sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text are; none goes over an empty line."""
    found, start = [], 0
    for stop, following in [*(gap.span() for gap in PARAGRAPH.finditer(text)), (len(text), 0)]:
        found += [match.span() for match in SENTENCE.finditer(text, start, stop)]
        start = following
    return found or [(0, 0)]


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
