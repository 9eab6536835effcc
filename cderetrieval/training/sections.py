"""Training pairs from whole documents: queries that name a document, passages that often do not.

A line ``{"title", "sections": [{"heading", "text"}, ...]}`` becomes a pair for each passage. Queries are, in turn, the
heading with the title, words of the passage with the title, and words of the passage alone. From half of the documents
the words of the title are withheld, but for the first passage: so is text written, and only a model that knows the
document can find such a passage. All choices follow from the text of the document.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..passages import words
from ..splitting import split
from ..values import shown

SECTIONS = "sections"
# Most and fewest words of a passage, and the share of documents whose passages do not name them.
LONGEST, SHORTEST, WITHHELD = 120, 12, 0.5
# Queries by the heading; the others are words of the passage, with the title or (this share of them) without.
BY_HEADING, UNNAMED = 0.4, 0.6
FORMS = ("{heading} of {title}", "{title} {heading}", "what is the {heading} of {title}?", "{heading} ({title})")
STAND_INS = ("it", "they", "this")
# A word of a title that is part of a name where it has a capital.
WORD = re.compile(r"\w{4,}")


def is_document(values: Any) -> bool:
    """Whether a line holds a whole document."""
    return isinstance(values, Mapping) and SECTIONS in values


def pairs_of(document: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """Query and passage for each passage of a document; errors name the section."""
    title, sections = _title(document, where), list(sections_of(document, where))
    text = "\0".join(text for _, text, _ in sections)
    chance = random.Random(hashlib.sha256(f"{title}\0{text}".encode("utf-8", "surrogatepass")).digest())
    withheld = chance.random() < WITHHELD
    number = 0
    for heading, section, _ in sections:
        for span in split(section, LONGEST, words):
            passage = section[span.start : span.stop].strip()
            if len(passage.split()) < SHORTEST:
                continue
            shown_text = without_name(passage, title, chance.choice(STAND_INS)) if withheld and number else passage
            yield _query(title, heading.split(" > ")[-1].strip(), shown_text, chance), shown_text
            number += 1


def without_name(text: str, title: str, stand_in: str) -> str:
    """A text whose title, and every longer word of it that is capitalised there, is replaced.

    >>> without_name("Owls of Crete hunt at night; Crete has many.", "Owls of Crete", "they")
    'they hunt at night; they has many.'
    """
    bare = bare_title(title)
    named = sorted({word for word in WORD.findall(bare) if word != word.lower()}, key=len, reverse=True)
    pattern = "|".join(rf"\b{re.escape(name)}\b" for name in (bare, *named) if name)
    return re.sub(pattern, stand_in, text, flags=re.IGNORECASE) if pattern else text


def _query(title: str, heading: str, passage: str, chance: random.Random) -> str:
    title = bare_title(title)
    if heading and chance.random() < BY_HEADING:
        return chance.choice(FORMS).format(heading=chance.choice((heading, heading.lower())), title=title)
    some = passage.split()
    count = chance.randint(4, 10)
    start = chance.randint(0, max(0, len(some) - count))
    found = " ".join(some[start : start + count])
    return found if chance.random() < UNNAMED else f"{title} {found}"


def bare_title(title: str) -> str:
    """A title without what stands in brackets."""
    return " ".join(re.sub(r"\([^()]*\)", "", title).split()) or title


def _title(document: Mapping[str, Any], where: str) -> str:
    title = document.get("title")
    if not isinstance(title, str) or not title.strip():
        raise InputError(f"{where}: a document with {SECTIONS!r} needs a 'title', found {shown(title)}.")
    return title.strip()


def sections_of(document: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, list[str]]]:
    """Heading, text and given queries of each section; errors name it."""
    sections = document[SECTIONS]
    if not isinstance(sections, Sequence) or isinstance(sections, str) or not sections:
        raise InputError(f"{where}: field {SECTIONS!r} must be a list of sections, found {shown(sections)}.")
    for number, section in enumerate(sections):
        text, heading = (section.get("text"), section.get("heading")) if isinstance(section, Mapping) else (None, None)
        if not isinstance(text, str) or not isinstance(heading, str | None):
            raise InputError(
                f"{where}: section {number} is {shown(section)}; a section is an object with 'text' and 'heading'."
            )
        queries = section.get("queries") or []
        if not isinstance(queries, list) or not all(isinstance(one, str) and one.strip() for one in queries):
            raise InputError(
                f"{where}: section {number}: 'queries' must be a list of texts that are not empty, found "
                f"{shown(queries)}."
            )
        yield heading or "", text, queries
