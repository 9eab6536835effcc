"""What a file is, by the ending of its name; ``.gz`` after it says that it is compressed."""

from __future__ import annotations

from pathlib import Path

from .readers import ending_of

MARKDOWN, RST, TEXT, CODE = "markdown", "restructuredtext", "text", "code"
HTML, PDF, DOCX, NOTEBOOK, JSON, ROWS = "html", "pdf", "docx", "notebook", "json", "table"
# Kinds that are text as they stand.
PLAIN = (MARKDOWN, RST, TEXT, CODE)

# A name without an ending, README or Makefile, is text.
_ENDINGS = {
    MARKDOWN: ".md .markdown .mdown .mdx .qmd .rmd",
    RST: ".rst .rest",
    TEXT: ".txt .text .log .org .adoc .asciidoc .tex .srt .vtt .eml",
    HTML: ".html .htm .xhtml",
    PDF: ".pdf",
    DOCX: ".docx",
    NOTEBOOK: ".ipynb",
    JSON: ".json",
    ROWS: ".jsonl .ndjson .csv .tsv .parquet",
    CODE: ".py .pyi .pyx .r .jl .js .jsx .mjs .ts .tsx .vue .java .kt .scala .groovy .clj .c .h .cc .cpp .cxx .hpp .cu "
    ".cs .fs .go .rs .zig .swift .m .rb .php .pl .lua .hs .ml .ex .erl .el .sh .bash .zsh .fish .ps1 .bat .sql .proto "
    ".graphql .css .scss .less .xml .yaml .yml .toml .ini .cfg .conf .cmake .mk .gradle .tf .nix",
}
_KINDS = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()} | {"": TEXT}
# What the first bytes of standard input tell; anything else is Markdown, of which plain text is a case.
_BEGINNINGS = {b"%PDF-": ".pdf", b"PK\x03\x04": ".docx", b"{": ".json", b"[{": ".json", b"<": ".html"}


def kind_of(path: Path) -> str | None:
    """The kind of a file, None where it is none that is read.

    >>> kind_of(Path("notes/Owls.MD")), kind_of(Path("README")), kind_of(Path("rows.csv.gz")), kind_of(Path("owl.png"))
    ('markdown', 'text', 'table', None)
    """
    return _KINDS.get(ending_of(path))


def ending_of_bytes(head: bytes) -> str:
    """The ending that a file with these first bytes should have."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((ending for beginning, ending in _BEGINNINGS.items() if head.startswith(beginning)), ".md")


def endings() -> str:
    """All endings that are read, but those of code, for a message."""
    return " ".join(names for kind, names in _ENDINGS.items() if kind != CODE) + ", and source code"
