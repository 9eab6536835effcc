"""HTML, DOCX, notebooks and PDF as Markdown, in which headings stay headings.

A converter gets the bytes of one file, and neither its path nor an address. Nothing that a file refers to is read or
fetched: no image, no style sheet, no entity. Plug-ins of markitdown are off, since its converters are called alone.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Callable
from html import unescape
from typing import Any
from xml.sax.handler import ContentHandler

from ..errors import InputError, needs
from .file_kinds import DOCX, HTML, NOTEBOOK, PDF
from .pdf import pdf_to_markdown

# Bytes of a page: quotes in quotes become many times as long.
PAGE = 25_000_000
# What the parts of a DOCX may have together, unpacked.
UNPACKED = 1_000_000_000
# Parts of a page that stand on every page of its site, or are no text.
_AROUND = ("title", "nav", "aside", "footer", "script", "style", "noscript", "template", "svg", "form", "button")
_MARKS_OF_LINKS = ("", "#", "¶", "§", "🔗")
_TAG = re.compile(r"<[^<>]*>?")
_NO_LINKS = {"strip": ["a"]}


def to_markdown(data: bytes, kind: str) -> tuple[str, str]:
    """Text and title ("" where none is given) of a file of this kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _CONVERTERS[kind](data)


def _markitdown(name: str, data: bytes, ending: str, **options: Any) -> tuple[str, str]:
    """What a converter of markitdown makes of bytes."""
    with needs("markitdown", "files"):
        from markitdown import StreamInfo, converters
    info = StreamInfo(extension=ending, charset="utf-8")
    result = getattr(converters, name)().convert(io.BytesIO(data), info, **options)
    title = result.title if isinstance(result.title, str) else ""
    return result.markdown.replace("\xa0", " "), " ".join(title.split())


def _html(data: bytes) -> tuple[str, str]:
    """The main part of a page, without what is around it; html.parser alone would take hours for 1 MB of ``<a <a``."""
    with needs("markitdown", "files"):
        from bs4.dammit import UnicodeDammit
        from lxml import etree, html
    if len(data) > PAGE:
        raise InputError(f"it has more than {PAGE:,} bytes, and is no page that anybody reads; save its text")
    given = UnicodeDammit(data, ["utf-8"], is_html=True).unicode_markup or ""
    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    page = html.document_fromstring(given.encode("utf-8", "replace"), parser)
    title = " ".join((page.findtext(".//title") or "").split())
    if any(error.type_name == "ERR_RESOURCE_LIMIT" for error in parser.error_log):  # nested 256 deep
        return unescape(_TAG.sub(" ", given)), title
    body = next(iter([*page.iter("main"), *page.xpath("//*[@role='main']"), *page.iter("body")]), page)
    for link in body.iter("a"):
        if link.text_content().strip() in _MARKS_OF_LINKS and link.find(".//img") is None:
            link.tag = _AROUND[0]
    etree.strip_elements(body, *_AROUND, with_tail=False)
    text, _ = _markitdown("HtmlConverter", html.tostring(body, encoding="utf-8"), ".html", **_NO_LINKS)
    return text, title


def _docx(data: bytes) -> tuple[str, str]:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise InputError("it is no DOCX; one with a password, or an old .doc, has to be saved as DOCX without one")
    with needs("markitdown", "files"):
        from defusedxml import DefusedXmlException, sax
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > UNPACKED:
            raise InputError(f"it unpacks to more than {UNPACKED:,} bytes")
        for part in (part for part in parts if part.filename.lower().endswith((".xml", ".rels"))):
            try:
                sax.parse(archive.open(part), ContentHandler(), forbid_dtd=True)
            except DefusedXmlException as error:
                raise InputError(f"its part {part.filename!r} declares entities, which no DOCX may") from error
    return _markitdown("DocxConverter", data, ".docx", **_NO_LINKS)


_CONVERTERS: dict[str, Callable[[bytes], tuple[str, str]]] = {
    HTML: _html,
    PDF: pdf_to_markdown,
    DOCX: _docx,
    NOTEBOOK: lambda data: _markitdown("IpynbConverter", data, ".ipynb"),
}
