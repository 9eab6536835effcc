"""Questions and answers from Python docstrings: the summary is the query, the body is the document.

Sources are parsed with `ast` and never imported. To keep the task fair, names are not part of a document (one word
would answer the question); doctests, code, directives, roles and underlines are dropped; so are See Also, which quotes
the summaries of other objects, and References. A body that repeats its summary, or has fewer than 15 words outside its
lists of parameters and results, is left out.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MIN_SUMMARY_WORDS = 5
MAX_SUMMARY_WORDS = 40
MIN_BODY_WORDS = 15

_DROPPED_SECTIONS = {"see also", "references", "examples", "example", "usage", "citation", "author", "authors"}
_LIST_SECTIONS = {
    *("parameters", "other parameters", "args", "arguments", "keyword args", "keyword arguments", "kwargs", "inputs"),
    *("returns", "return", "yields", "raises", "attributes", "methods", "shape", "warns", "outputs"),
}
_TESTS = {"test", "tests", "testing", "conftest", "testing_utils"}
_ROLE = re.compile(r":[a-z]+(?::[a-z]+)?:`([^`]*)`")
_TARGET = re.compile(r"\s*<[^<>`]*>$")
_BACKTICKS = re.compile(r"`{1,2}([^`]+)`{1,2}_?_?")
_LINK = re.compile(r"\[([^\]\[]+)\]\([^)\s]+\)")
_NOISE = re.compile(r"\s*\[\w+\]_|%\(\w+\)s|\\(?=\s)")
_POINTER = re.compile(r"^(?:Read more in|See (?:the )?glossary|For (?:more|further) (?:details|information),? see)\b")
_RULE = re.compile(r"^\s*([-=~^*#\"'+])\1{2,}[-=+\s]*$")
_SIGNATURE = re.compile(r"^[\w.]+\([^\n]*\)(\s*(->|--|\n[\w.]+\().*)?$", re.DOTALL)
_FENCE = re.compile(r"^\s*(```|~~~).*?(?:^\s*\1\s*$|\Z)", re.DOTALL | re.MULTILINE)
_SECTION = re.compile(r"^(?:#+\s*)?([A-Z][A-Za-z ]{2,30}):*$")
_LIST = re.compile(r"^\s*(?:[-*]\s|:\w+ \w+:)", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_]{2,}")


class Docstring(NamedTuple):
    """A docstring cut in two; `name` is the object's qualified name."""

    name: str
    summary: str
    body: str


def source_docstrings(root: Path, module: str, skip: frozenset[str]) -> Iterator[Docstring]:
    """Docstrings below a package folder, or of one file, without folders and files named in `skip`.

    `module` is the import name, "" for a folder of many modules such as the standard library.
    """
    paths = [root] if root.is_file() else sorted(root.rglob("*.py"))
    for path in paths:
        parts = () if root.is_file() else path.relative_to(root).with_suffix("").parts
        # numpy keeps its public functions below numpy/_core
        private = any(part.startswith("_") and not part.startswith("__") and part != "_core" for part in parts[:-1])
        if private or any(part in skip or _is_test(part) for part in parts):
            continue
        tree = _parse(path)
        if tree is not None:
            names = (module, *(part for part in parts if part != "__init__"))
            yield from _walk(tree, ".".join(filter(None, names)))


def _is_test(name: str) -> bool:
    return name.startswith("test_") or name.endswith("_test") or name in _TESTS


def _parse(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None


def _walk(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[Docstring]:
    text = ast.get_docstring(node, clean=False)
    pair = split_docstring(text) if text else None
    if pair is not None and not name.rsplit(".", 1)[-1].startswith("_"):
        yield Docstring(name, *pair)
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if not child.name.startswith("_"):
                    yield from _walk(child, f"{name}.{child.name}")
            elif isinstance(node, ast.Module):
                yield from _attached(child, name)


def _attached(node: ast.stmt, module: str) -> Iterator[Docstring]:
    """Docstrings that numpy and torch attach to compiled objects: ``add_docstr(torch.abs, "...")``."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return
    call = node.value
    if getattr(call.func, "id", getattr(call.func, "attr", "")) not in {"add_docstr", "add_newdoc"}:
        return
    text = _string(call.args[-1]) if len(call.args) > 1 else None
    pair = split_docstring(text) if text else None
    if pair is not None:
        names = [_string(argument) or ast.unparse(argument) for argument in call.args[:-1]]
        yield Docstring(f"{module}.{'.'.join(names)}", *pair)


def _string(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        text = _string(node.func.value)  # placeholders of shared parameter descriptions are dropped
        return None if text is None else re.sub(r"\{\w+\}", "", text).replace("{{", "{").replace("}}", "}")
    return None


def split_docstring(text: str) -> tuple[str, str] | None:
    """Summary and body as plain text, or None where they make no fair question and answer."""
    paragraphs = [
        paragraph
        for paragraph in re.split(r"\n\s*\n", _FENCE.sub("", inspect.cleandoc(text)))
        if paragraph.strip() and not _SIGNATURE.match(paragraph.strip())
    ]
    if len(paragraphs) < 2:
        return None
    summary = " ".join(without_markup(paragraphs[0]).split())
    body, n_prose_words = _body(paragraphs[1:])
    if not _is_summary(paragraphs[0], summary) or n_prose_words < MIN_BODY_WORDS:
        return None
    return None if normalized(summary) in normalized(body) else (summary, body)


def _is_summary(raw: str, summary: str) -> bool:
    lists = _LIST.search(raw) or summary.endswith(":") or any(map(_RULE.match, raw.split("\n")))
    return not lists and count_words(summary) >= MIN_SUMMARY_WORDS and len(summary.split()) <= MAX_SUMMARY_WORDS


def _body(paragraphs: list[str]) -> tuple[str, int]:
    """Cleaned body, and how many of its words stand outside the lists of parameters and results."""
    kept: list[str] = []
    n_prose_words = 0
    section, indented = "", False
    for paragraph in paragraphs:
        lines = paragraph.split("\n")
        heading = _heading(lines)
        if heading:
            # Google's sections are indented below their heading, numpydoc's are not and last until the next one.
            section, indented = heading, not (len(lines) > 1 and _RULE.match(lines[1]))
        elif indented and not lines[0].startswith(" "):
            section = ""
        if section in _DROPPED_SECTIONS or lines[0].lstrip().startswith((">>>", "... ", ".. ")):
            continue
        text = without_markup(
            "\n".join(line.strip() for line in lines if not _RULE.match(line) and ">>>" not in line)
        ).strip()
        if text and not _POINTER.match(text):
            kept.append(text)
            n_prose_words += 0 if section in _LIST_SECTIONS else count_words(text)
    return "\n\n".join(kept), n_prose_words


def _heading(lines: list[str]) -> str:
    """Lower-case heading of a paragraph, or "": numpydoc's underlined, Google's with a colon, or Markdown's."""
    match = _SECTION.match(lines[0])
    underlined = len(lines) > 1 and _RULE.match(lines[1])
    if match and (underlined or lines[0].rstrip().endswith(":") or lines[0].startswith("#")):
        return match.group(1).strip().lower()
    return ""


def without_markup(text: str) -> str:
    """Text without reStructuredText and Markdown markup.

    >>> without_markup("Like :class:`~torch.nn.Linear`, but ``x`` may be `None` [1]_.")
    'Like Linear, but x may be None.'
    """
    text = _ROLE.sub(lambda m: m[1].rsplit(".", 1)[-1] if m[1].startswith("~") else _TARGET.sub("", m[1]), text)
    return _LINK.sub(r"\1", _BACKTICKS.sub(lambda m: _TARGET.sub("", m.group(1)), _NOISE.sub("", text)))


def count_words(text: str) -> int:
    """Number of words of two letters or more."""
    return len(_WORD.findall(text))


def normalized(text: str) -> str:
    """Lower-case words with single spaces; equal where two texts say the same."""
    return " ".join(re.findall(r"\w+", text.lower()))
