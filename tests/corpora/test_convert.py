"""Converters keep headings, and do nothing that a file asks for."""

import contextlib
import json
import socket
import time

import pytest

from cderetrieval.corpora.convert import to_markdown
from cderetrieval.errors import InputError, MissingDependencyError

from .formats import OFFICE, docx, encrypted_pdf, notebook, pdf

PAGE = b"""<!doctype html><html><head><title>Owls - a site</title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav><main><h1>Owls<a href="#owls">#</a></h1><p>They <b>hunt</b> with
<a href="https://x.example/y">ears</a>.</p><h2>Food</h2><p>Mice.</p><pre>find(mice)</pre>
<script>fetch("https://x.example")</script></main><footer>Cookies</footer></body></html>"""
SECRET = "a secret of this machine"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No network: a connection, or the look-up of a name, fails the test."""

    def refuse(*_, **__):
        raise AssertionError("a converter reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_html_keeps_headings_and_leaves_out_what_is_around_them():
    text, title = to_markdown(PAGE, "html")
    assert title == "Owls - a site"
    assert text == "# Owls\n\nThey **hunt** with\nears.\n\n## Food\n\nMice.\n\n```\nfind(mice)\n```"


def test_docx_keeps_headings():
    data = docx([("Heading1", "Owls"), ("", "They hunt."), ("Heading2", "Food"), ("", "Mice.")])
    assert to_markdown(data, "docx")[0] == "# Owls\n\nThey hunt.\n\n## Food\n\nMice."


def test_pdf_takes_headings_from_its_outline():
    pages = [["1 Owls", "They hunt at night."], ["Bees", "# no heading", "They make honey."]]
    text, _ = to_markdown(pdf(pages, [("Owls", 0), ("Bees", 1)]), "pdf")
    assert text.split("\n") == [
        *("", "# 1 Owls", "", "They hunt at night.", "", "", "# Bees", "", "    # no heading", "They make honey.")
    ]
    assert to_markdown(pdf(pages), "pdf")[0].startswith("1 Owls\nThey hunt")


def test_notebook_keeps_headings_and_code():
    text, title = to_markdown(notebook(("markdown", ["# Owls\n", "Ears."]), ("code", "hunt()")), "notebook")
    assert (text, title) == ("# Owls\nEars.\n\n```python\nhunt()\n```", "Owls")


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (encrypted_pdf(), "pdf", "encrypted; save a copy without a password"),
        (b"PK\x03\x04 no archive", "docx", "no DOCX; one with a password"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "docx", "or an old .doc"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(data, kind, message):
    with pytest.raises(InputError, match=message):
        to_markdown(data, kind)


ENTITIES = '<!DOCTYPE d [<!ENTITY a "{}"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file://{}">]>'


def test_entities_of_a_docx_are_refused(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    prolog = ENTITIES.format("owls" * 9, tmp_path / "secret")
    with pytest.raises(InputError, match=r"'word/document\.xml' declares entities"):
        to_markdown(docx([("", "&b;&f;")], prolog=prolog), "docx")
    wide = prolog.encode("utf-16") + b""
    with pytest.raises(InputError, match=r"'word/footnotes\.xml' declares entities"):
        to_markdown(
            docx([("", "owls")], parts=[("word/footnotes.xml", wide + "<a>&b;</a>".encode("utf-16-le"))]), "docx"
        )


def test_a_docx_that_unpacks_to_gigabytes_is_refused(monkeypatch):
    monkeypatch.setattr("cderetrieval.corpora.convert.UNPACKED", 1_000_000)
    with pytest.raises(InputError, match="unpacks to more than 1,000,000 bytes"):
        to_markdown(docx([("", "owls")], parts=[("word/media/zeros", bytes(2_000_000))]), "docx")


@pytest.mark.parametrize("target", ["https://x.example/owl.png", "{}"])
def test_an_image_elsewhere_is_not_read(tmp_path, target):
    (tmp_path / "secret").write_text(SECRET)
    where = target.format((tmp_path / "secret").as_uri())
    relation = f'<Relationship Id="r9" Type="{OFFICE}/image" Target="{where}" TargetMode="External"/>'
    picture = (
        '<w:p><w:r><w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/'
        'wordprocessingDrawing"><a:graphic xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main">'
        '<a:graphicData><pic:pic xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture"><pic:blipFill>'
        f'<a:blip xmlns:r="{OFFICE}" r:link="r9"/></pic:blipFill></pic:pic></a:graphicData></a:graphic></wp:inline>'
        "</w:drawing></w:r></w:p>"
    )
    text, _ = to_markdown(docx([("", "owls")], extra=picture, relations=relation), "docx")
    assert "owls" in text
    assert SECRET not in text


def test_references_of_html_and_notebooks_are_not_followed(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    where = (tmp_path / "secret").as_uri()
    page = (
        f'<!DOCTYPE html [<!ENTITY f SYSTEM "{where}">]><base href="https://x.example/"><link href="a.css">'
        f'<iframe src="{where}"></iframe><img src="https://x.example/owl.png" alt="an owl"><object data="{where}">'
        "</object><p>owls &f;</p>"
    )
    text, _ = to_markdown(page.encode(), "html")
    assert "owls" in text
    assert SECRET not in text
    data = json.loads(notebook(("markdown", f"![owl](https://x.example/owl.png) <img src='{where}'> owls")))
    text, _ = to_markdown(json.dumps(data | {"metadata": {"title": ["no text"]}}).encode(), "notebook")
    assert "owls" in text
    assert SECRET not in text


def test_deeply_nested_html_is_read_as_text():
    text, _ = to_markdown(b"<div>" * 5_000 + b"owls &amp; bees" + b"</div>" * 5_000, "html")
    assert text.strip() == "owls & bees"


@pytest.mark.parametrize("part", [b"<a ", b'<a b="', b"<!--", b"<p>", b"<b>x", b"<", b"<a>#</a>x", b"x</i>", b"<p>x"])
def test_hostile_html_takes_no_longer_than_its_length(part):
    begin = time.process_time()
    with contextlib.suppress(Exception):  # some hold no text
        to_markdown(part * (100_000 // len(part)), "html")
    assert time.process_time() - begin < 5  # html.parser takes minutes for some


def test_a_page_of_many_megabytes_is_refused():
    with pytest.raises(InputError, match="more than 25,000,000 bytes"):
        to_markdown(b"<p>owls</p>" * 2_500_000, "html")


@pytest.mark.parametrize(("kind", "module"), [("html", "lxml"), ("docx", "defusedxml"), ("pdf", "pypdfium2")])
def test_a_missing_package_is_named(monkeypatch, kind, module):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    data = {"html": PAGE, "docx": docx([("", "owls")]), "pdf": pdf([["owls"]])}[kind]
    with pytest.raises(MissingDependencyError, match=r'pip install "cderetrieval\[files\]"'):
        to_markdown(data, kind)
