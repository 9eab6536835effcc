"""Headings and titles: reStructuredText's as Markdown has them, and the heading of a text that is its title."""

from __future__ import annotations

import re

from ..splitting import ATX, TITLE, heading_paths

_LINE = re.compile(r"([=\-`:.'\"~^_*+#<>])\1+\s*$")
_INDENTED = re.compile(r"^ {1,3}(?=#)")
_FRONT = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)\n\1[ \t]*(?:\n|\Z)", re.DOTALL)
_NAMED = re.compile(r"^title[ \t]*[:=][ \t]*(.+?)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")


def with_markdown_headings(text: str) -> str:
    r"""A reStructuredText in which underlined titles are ``#`` headings; their levels are in order of appearance.

    >>> with_markdown_headings("====\nOwls\n====\n\nFood\n----\n\nMice.\n")
    '# Owls\n\n## Food\n\nMice.\n'
    """
    lines, found = text.splitlines(), []
    styles: list[tuple[str, bool]] = []
    place = 0
    while place < len(lines):
        over = bool(_underlined(lines, place + 1)) and lines[place].rstrip() == lines[place + 2].rstrip()
        sign = _underlined(lines, place + over)
        if sign and (over or not _LINE.match(lines[place])):
            if (sign, over) not in styles:
                styles.append((sign, over))
            level = min(styles.index((sign, over)) + 1, 6)
            found.append(f"{'#' * level} {lines[place + over].strip()}")
            place += 2 + over
        else:
            found.append(_INDENTED.sub("    ", lines[place]))  # a comment in an example, and no heading
            place += 1
    return "\n".join(found) + ("\n" if text.endswith("\n") else "")


def _underlined(lines: list[str], place: int) -> str:
    """The sign that underlines a line; "" where none does."""
    if place + 1 >= len(lines) or not lines[place].strip() or not (line := _LINE.match(lines[place + 1])):
        return ""
    return line[1] if len(lines[place + 1].rstrip()) >= min(len(lines[place].strip()), 4) else ""


def without_front_matter(text: str) -> tuple[str, str]:
    r"""The title that the front matter of a Markdown file names, and the text below it.

    >>> without_front_matter("---\ntitle: 'Owls'\ntags: [birds]\n---\nThey hunt.")
    ('Owls', 'They hunt.')
    """
    front = _FRONT.match(text)
    if front is None:
        return "", text
    named = _NAMED.search(front[2])
    return named[1].strip("'\"") if named else "", text[front.end() :]


def without_title(text: str) -> tuple[str, str]:
    r"""The heading of a Markdown text that all others stand under, and the text without it; "" where there is none.

    >>> without_title("# Owls\n\n## Food\n\nMice."), without_title("# Owls\n\n# Bees\n")
    (('Owls', '## Food\n\nMice.'), ('', '# Owls\n\n# Bees\n'))
    """
    paths = heading_paths(text)
    start, title = next(paths, (0, ""))
    if not all(path.startswith(f"{title} > ") for _, path in paths):
        return "", text
    before, heading, stop = text[:start].strip(), text[start : _end(text, start)], _end(text, start)
    if not ATX.match(heading):
        stop = _end(text, stop)  # a line that is underlined
    if before and not heading.startswith("# ") and not text[start:stop].rstrip().endswith("="):
        return "", text  # of a section, after words that stand under none
    rest = "\n\n".join(filter(None, (before, text[stop:].lstrip("\n"))))
    title = _plain(title)
    return (title, rest) if title and rest.strip() else (title, text)


def _end(text: str, start: int) -> int:
    """Where the line ends that begins at a place."""
    return text.find("\n", start) + 1 or len(text)


def _plain(title: str) -> str:
    """A title without the signs of Markdown that mark links and code."""
    while (shorter := _LINK.sub(r"\1", title)) != title:
        title = shorter
    return " ".join(title.replace("`", "").replace("**", "").split())[:TITLE]
