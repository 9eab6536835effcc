"""PDF as Markdown, by PDFium: the text of each page, in which the lines that the outline names are headings."""

from __future__ import annotations

import re
import threading
from typing import Any

from ..errors import InputError, needs

# PDFium is not to be used by two threads at once.
_ONE = threading.Lock()
_NO_HEADING = re.compile(r"^ {0,3}(?=#)", re.MULTILINE)
_NUMBER = re.compile(r"^[\dA-Z.]+\s+")
# Where PDFium joined a word that was divided at the end of a line.
_JOINED = "\ufffe"


def pdf_to_markdown(data: bytes) -> tuple[str, str]:
    """Text and title ("" where none is given) of a PDF."""
    with needs("pypdfium2", "files"):
        import pypdfium2
    with _ONE:
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise InputError("it is encrypted; save a copy without a password") from error
            raise
        with document:
            outline = _outline(document)
            pages = [_marked(_text(page), outline.get(number, [])) for number, page in enumerate(document)]
            title = document.get_metadata_value("Title")
    return "\n\n".join(filter(None, pages)), " ".join(title.split())


def _text(page: Any) -> str:
    text: str = page.get_textpage().get_text_range()
    text = text.replace("\r\n", "\n").replace(_JOINED, "").replace("\0", "")
    return _NO_HEADING.sub("    ", text.strip())


def _outline(document: Any) -> dict[int, list[tuple[int, str]]]:
    """Level and words of the entries of the outline, by the number of their page."""
    found: dict[int, list[tuple[int, str]]] = {}
    for entry in document.get_toc(max_depth=6):
        target, title = entry.get_dest(), " ".join(entry.get_title().split())
        if target is not None and title:
            found.setdefault(target.get_index(), []).append((entry.level + 1, title))
    return found


def _marked(text: str, entries: list[tuple[int, str]]) -> str:
    """The text of a page, its headings marked as Markdown does."""
    lines = text.split("\n")
    for level, title in entries:
        for place, line in enumerate(lines):
            if title in (line.strip(), _NUMBER.sub("", line.strip())):
                lines[place] = f"\n{'#' * level} {line.strip()}\n"
                break
    return "\n".join(lines)
