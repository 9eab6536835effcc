"""What is said of passages, ``passages=``, and how a document becomes passages: spans of its text.

A document that fits the model is one passage and has no spans. One that does not is cut (:mod:`.splitting`), by a
function of the user's, or where it came cut: as a list of passages in one of its fields. Where nothing was said and a
text is at most twice what the model reads, the text as far as it is read, its *head*, stands beside the passages: what
one vector of nearly all of a text does well, it still does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from .errors import ConfigError, InputError, MismatchError
from .splitting import BLOCK, TITLE, Span, Starts, split, with_headings
from .values import shown

AUTO, FUNCTION = "auto", "function"
# Fewest word pieces of a passage that may be asked for.
MIN_SIZE = 8
# A text of at most so many times what the model reads keeps its head beside its passages. Of longer ones it is one
# passage of many, and by measurement none that matters.
HEADED = 2
# Field of the passages of a document that is a list, and of one that has no text but these.
FIELD = "passages"
SEPARATOR = "\n\n"
LISTS = (list, tuple, np.ndarray)
WORDS = re.compile(r"\w+|[^\w\s]")

Cut = Callable[[str], Iterable[Any]]
# What `passages=` takes: "auto", None, a number of word pieces, a field, a function.
PassagesLike = str | int | Cut | None


@dataclass(frozen=True)
class Passages:
    """How documents are cut: ``"auto"``, None (not at all), a number of word pieces, or the name of a field.

    >>> Passages.parse(200).how, Passages.parse(None).how, Passages.parse(str.splitlines).how
    (200, None, 'function')
    """

    how: str | int | None = AUTO
    function: Cut | None = None
    # Spans of the documents that come next, in order, where they were cut before.
    ready: Iterator[list[Span]] | None = None

    @classmethod
    def parse(cls, value: PassagesLike | Passages) -> Passages:
        """From what a user writes."""
        if isinstance(value, Passages):
            return value
        if callable(value):
            return cls(FUNCTION, value)
        if isinstance(value, bool) or not isinstance(value, str | int | None):
            raise ConfigError(
                f"passages={shown(value)} must be 'auto', None, a number of word pieces, the name of a field that "
                "holds a list of passages, or a function of a text that returns (start, end) pairs."
            )
        if isinstance(value, int) and value < MIN_SIZE:
            raise ConfigError(f"passages={value} is too short; passages have at least {MIN_SIZE} word pieces.")
        if value in ("", FUNCTION):
            raise ConfigError(f"passages={value!r} names no field; pass the function itself, or 'auto'.")
        return cls(value)

    @classmethod
    def stored(cls, how: Any) -> Passages:
        """From what a collection keeps; one from before passages keeps nothing."""
        return cls(FUNCTION) if how == FUNCTION else cls.parse(how)

    def with_function(self, function: Cut) -> Passages:
        """The same with its function, which no file holds."""
        if self.how != FUNCTION or not callable(function):
            raise MismatchError(f"this index was made with passages={self.how!r}: leave out passages=.")
        return replace(self, function=function)

    @property
    def field(self) -> str | None:
        """The field that holds a list of passages."""
        return self.how if isinstance(self.how, str) and self.how not in (AUTO, FUNCTION) else None


def field_of(payload: Mapping[str, Any], on: Sequence[str] | None, passages: Passages) -> str | None:
    """The field in which a document came cut, if it did: where other fields are its text, "passages" is one of many."""
    if passages.field is not None:
        return passages.field
    is_text = payload.get("text") is None if on is None else FIELD in on
    return FIELD if is_text and isinstance(payload.get(FIELD), LISTS) else None


def listed(value: Any, field: str) -> list[tuple[str, str]]:
    """Text and heading of each passage of a field; errors name the passage."""
    if not isinstance(value, LISTS) or not len(value):
        raise InputError(f"field {field!r} is {shown(value)}; a list of passages is expected.")
    found = []
    for number, one in enumerate(value):
        text, heading = (one.get("text"), one.get("heading", "")) if isinstance(one, Mapping) else (one, "")
        if not isinstance(text, str) or not text.strip() or not isinstance(heading, str | None):
            raise InputError(
                f"field {field!r}: passage {number} is {shown(one)}; a passage is a text that is not empty, or a "
                "dictionary with 'text' and 'heading'."
            )
        found.append((text.strip(), heading or ""))
    return found


class Reader(NamedTuple):
    """How a model reads: where its tokens begin, how many it takes of a text, and how many a passage may have."""

    starts: Starts
    fits: int
    limit: int

    def share(self, text: str) -> float:
        """Tokens as a share of those that fit, judged by the first block; a token has a character at least."""
        if len(text) <= self.fits:
            return len(text) / self.fits
        blocks = max(1.0, len(text) / BLOCK)
        return max(blocks * len(self.starts(text[:BLOCK])) / self.fits, HEADED if blocks > 1 else 0)


class Splitter:
    """Cuts documents into spans that all readers can read, and counts them."""

    def __init__(self, passages: Passages, on: Sequence[str] | None, readers: Sequence[Reader]) -> None:
        self.passages = passages
        self._on = on
        self._readers = readers
        # How many documents were cut, into how many passages, and how many heads are among these.
        self.documents = self.spans = self.heads = 0

    def __call__(self, text: str, payload: Mapping[str, Any]) -> list[Span]:
        """The spans of a document; none where it is one passage."""
        found = self._cut(text, payload) if self.passages.ready is None else next(self.passages.ready)
        if found:
            self.documents, self.spans = self.documents + 1, self.spans + len(found)
            self.heads += found[0].head
        return found

    def _cut(self, text: str, payload: Mapping[str, Any]) -> list[Span]:
        field, keeps_head = field_of(payload, self._on, self.passages), False
        start = len(title_of(text, payload, self._on, self.passages))
        if field is not None:
            spans = _places(listed(payload[field], field), start)
        elif self.passages.function is not None:
            spans = _spans_by(self.passages.function, text, start)
        else:
            share, _, reader = max((one.share(text), -number, one) for number, one in enumerate(self._readers))
            if share <= 1:
                return []
            spans = split(text, reader.limit, reader.starts)
            keeps_head = self.passages.how == AUTO and share <= HEADED
        if len(spans) == 1 and not text[start : spans[0].start].strip() and not text[spans[0].stop :].strip():
            return []
        if spans[0].start == start:  # the title is found with the first passage
            spans[0] = spans[0]._replace(start=0)
        title = text[:start].strip()[:TITLE]
        named = [span._replace(heading=" > ".join(filter(None, (title, span.heading)))) for span in spans]
        return [Span(0, len(text), title, head=True), *named] if keeps_head else named


def words(text: str) -> list[int]:
    """Where the words and signs of a text begin: what is counted where a model has no tokens."""
    return [found.start() for found in WORDS.finditer(text)]


def _places(passages: list[tuple[str, str]], start: int) -> list[Span]:
    """Where passages are in a text that joins them."""
    spans = []
    for text, heading in passages:
        spans.append(Span(start, start + len(text), heading))
        start += len(text) + len(SEPARATOR)
    return spans


def _spans_by(function: Cut, text: str, start: int) -> list[Span]:
    """What a user's function says of a text, checked."""
    body = text[start:]
    try:
        answer = [tuple(one) for one in function(body)]
    except Exception as error:
        raise InputError(f"passages= raised {type(error).__name__}: {error}") from error
    if not answer:
        raise InputError("passages= returned no passage; return [(0, len(text))] for one.")
    spans: list[tuple[int, int]] = []
    for number, pair in enumerate(answer):
        if len(pair) != 2 or not all(isinstance(place, Integral) and not isinstance(place, bool) for place in pair):
            raise InputError(f"passages= returned {shown(pair)} as passage {number}; return pairs (start, end).")
        first, stop = map(int, pair)
        last = spans[-1][1] if spans else 0
        if not last <= first < stop <= len(body):
            raise InputError(
                f"passages= returned ({first}, {stop}) as passage {number} of a text of {len(body)} characters. "
                f"Passages follow each other: it starts at {last} or later, and ends after that within the text."
            )
        if not body[first:stop].strip():
            raise InputError(f"passages= returned ({first}, {stop}) as passage {number}, which is all white space.")
        spans.append((first, stop))
    return with_headings(text, [(start + first, start + stop) for first, stop in spans])


def body_start(text: str, body: str) -> int:
    """Where the last field of a document begins in its text; what comes before it is the title."""
    body = body.strip()
    return len(text) - len(body) if body and text.endswith(body) else 0


def body_of(payload: Mapping[str, Any], on: Sequence[str] | None, passages: Passages) -> str:
    """The last field of a document, or the passages that it came as, joined."""
    field = field_of(payload, on, passages)
    value = joined(payload[field], field) if field is not None else payload.get("text" if on is None else on[-1])
    return value if isinstance(value, str) else ""


def title_of(text: str, payload: Mapping[str, Any], on: Sequence[str] | None, passages: Passages) -> str:
    """The title of a document: what comes before its last field."""
    return text[: body_start(text, body_of(payload, on, passages))]


def place(text: str, span: Span, body: str) -> tuple[int, int]:
    """Where a passage of a text begins and ends in the last field; the same place twice, where it is all title."""
    shift = body_start(text, body) - (len(body) - len(body.lstrip()))
    least = len(body) - len(body.lstrip()) if body.strip() else 0
    return max(span.start - shift, least), max(span.stop - shift, least) if body.strip() else 0


def shown_passage(text: str, span: Span, body: str) -> dict[str, Any]:
    """A passage as a hit shows it: text, heading, and start and end in the last field."""
    start, end = place(text, span, body)
    shown = body[start:end] or text[span.start : span.stop]
    return {"text": shown, "start": start, "end": end, "heading": span.heading}


def joined(passages: Any, field: str) -> str:
    """The text of a document that came cut."""
    return SEPARATOR.join(text for text, _ in listed(passages, field))


def passages_of(text: str) -> str | int | None:
    """What ``--passages`` says, as a retriever takes it."""
    return None if text == "none" else int(text) if text.removeprefix("-").isdecimal() else text
