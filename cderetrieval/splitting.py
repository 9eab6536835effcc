"""Cut a long text into passages of like length that fit a model: at headings, then paragraphs, then sentences.

    tokens of the text --count--> n = tokens / limit, rounded up --> semantic-text-splitter (Markdown) at len(text) / n
    characters --> a passage that has too many tokens all the same is cut again

A text that fits is one passage. Characters decide where to cut and tokens whether a passage fits: the tokenizer reads
the text once, and its offsets count the tokens of every span. Texts of many megabytes are cut block by block.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

# Where tokens begin in a text, in order.
Starts = Callable[[str], list[int]]
# Characters that are cut at a time: 30,000 tokens. A text without any space takes the splitter quadratic time.
BLOCK, WITHOUT_SPACE = 120_000, 8_000
# Shortest passage as a share of the longest: below it, the next paragraph or sentence is taken in as well.
FILLED = 0.6
# A passage below this share of the limit is joined with its neighbour, where both fit.
SHORT = 0.25
# Characters of a title or heading that are kept with each passage.
TITLE = 200
FENCE = re.compile(r"^\s{0,3}(```+|~~~+)")
ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S.*)")
# What a comment in a program ends with, and no heading.
COMMENT = (".", ",", ":", ";")
SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")


class Span(NamedTuple):
    """A passage: characters `start` to `stop` of its document's text, and the headings that it stands under.

    `head`: it stands for the whole text, as far as the model reads it, beside the passages.
    """

    start: int
    stop: int
    heading: str = ""
    head: bool = False


def split(text: str, limit: int, starts: Starts) -> list[Span]:
    """Passages of at most `limit` tokens that cover a text, without the white space around them.

    >>> from cderetrieval.passages import words
    >>> [span[:2] for span in split("Owls hunt. They eat mice. Bees make honey.", 6, words)]
    [(0, 10), (11, 25), (26, 42)]
    """
    if len(text) <= limit:  # a token has a character at least
        return [Span(0, len(text))]
    found: list[tuple[int, int]] = []
    for start, stop in blocks(text):
        block = text[start:stop]
        tokens = starts(block)
        found += [(start + a, start + b) for a, b in _joined(list(_cut(block, limit, tokens)), limit, tokens)]
    return with_headings(text, found) if len(found) > 1 else [Span(0, len(text))]


def with_headings(text: str, spans: list[tuple[int, int]]) -> list[Span]:
    """The spans, each with the path of the headings that it stands under, ``"Birds > Owls"``."""
    paths = list(heading_paths(text))
    places = [place for place, _ in paths]
    return [Span(a, b, paths[i - 1][1] if (i := bisect_left(places, a + 1)) else "") for a, b in spans]


def heading_paths(text: str) -> Iterator[tuple[int, str]]:
    """Where each heading of a Markdown or reStructuredText text begins, and its path from the first level down."""
    path: list[tuple[int, str]] = []
    place, fence, before = 0, "", ""
    for line in text.splitlines(keepends=True):
        marked = FENCE.match(line)
        if marked and (not fence or marked[1].startswith(fence)):
            fence = "" if fence else marked[1]
        level, title, start = 0, "", place
        if not fence and (found := ATX.match(line)) and not line.rstrip().endswith(COMMENT):
            level, title = len(found[1]), _unclosed(found[2].rstrip())
        elif not fence and before.strip() and (found := SETEXT.match(line.rstrip("\r\n"))):
            level, title, start = 1 if line.lstrip()[0] == "=" else 2, before.strip(), place - len(before)
        if level:
            path = [*[(above, name) for above, name in path if above < level], (level, title[:TITLE].strip())]
            yield start, " > ".join(name for _, name in path)
        place, before = place + len(line), line if len(line) < 200 else ""


def _unclosed(title: str) -> str:
    """A heading without the signs that close it, ``## Owls ##``."""
    bare = title.rstrip("#")
    return bare.rstrip() if bare[-1:].isspace() else title


def blocks(text: str) -> Iterator[tuple[int, int]]:
    """Cut a text into blocks, each at the last paragraph, line or space in its second half, else in the middle."""
    start = 0
    while start < len(text):
        stop = min(start + BLOCK, len(text))
        if text.find(" ", start, start + WITHOUT_SPACE) < 0 and text.find("\n", start, start + WITHOUT_SPACE) < 0:
            stop = min(start + WITHOUT_SPACE, len(text))
        if stop < len(text):
            middle = (start + stop) // 2
            stop = next((at + 1 for end in ("\n\n", "\n", " ") if (at := text.rfind(end, middle, stop)) > 0), stop)
        yield start, stop
        start = stop


def _cut(text: str, limit: int, starts: list[int]) -> Iterator[tuple[int, int]]:
    """Spans of a block that hold at most `limit` of its tokens."""
    from semantic_text_splitter import MarkdownSplitter

    parts = -(-len(starts) // limit)
    if parts <= 1:
        if text.strip():
            yield _trimmed(text, 0, len(text))
        return
    most = -(-len(text) // parts)
    while True:
        cut = MarkdownSplitter((max(1, int(FILLED * most)), most)).chunk_indices(without_surrogates(text))
        if len(cut) > 1 or most <= 1:
            break
        most //= 2
    for at, chunk in cut:
        stop = at + len(chunk)
        own = starts[bisect_left(starts, at) : bisect_left(starts, stop)]
        if len(own) <= limit or len(chunk) <= 1:
            yield at, stop
        else:
            yield from ((at + a, at + b) for a, b in _cut(chunk, limit, [start - at for start in own]))


def _joined(spans: list[tuple[int, int]], limit: int, starts: list[int]) -> list[tuple[int, int]]:
    """Spans, a short one together with the next, or with the one before it: a heading alone is no passage."""
    joined: list[tuple[int, int]] = []
    short = False
    for start, stop in spans:
        first = bisect_left(starts, joined[-1][0]) if joined else 0
        tokens, last = bisect_left(starts, stop) - bisect_left(starts, start), bisect_left(starts, stop)
        if joined and last - first <= limit and (short or tokens < SHORT * limit):
            joined[-1] = joined[-1][0], stop
            tokens = last - first
        else:
            joined.append((start, stop))
        short = tokens < SHORT * limit
    return joined


def without_surrogates(text: str) -> str:
    """The text for libraries in Rust, which take no half of a surrogate pair; as long as it was."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "?", text)


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    inner = text[start:stop]
    return start + len(inner) - len(inner.lstrip()), start + len(inner.rstrip())
