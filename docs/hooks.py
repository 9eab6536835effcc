"""For ``make docs``: pages of the repository that lie outside docs/ join the site, and links follow them.

Links are written for readers of the repository. On the site, one to a page leads to that page, and one to a source
file, which the site does not have, becomes its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
# Where a page lies in the repository, and what it is called on the site.
INCLUDED = {
    "README.md": "overview.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "vulnerabilities.md",
}
# What Markdown makes of a docstring's ``:class:`~a.b.C``` and ``:meth:`C.f <a.b.C.f>```.
ROLE = re.compile(r":(?:class|func|meth|mod|data):<code>(?:~|([\w.]+) &lt;)?([\w.]+)(?:&gt;)?</code>")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    for source, name in INCLUDED.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead the links of a page to where their targets are on the site."""
    name = page.file.src_uri
    source = next((path for path, included in INCLUDED.items() if included == name), f"docs/{name}")

    def moved(match: re.Match[str]) -> str:
        image, text, link, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        target = INCLUDED.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if target is None:
            return text
        return f"{image}[{text}]({posixpath.relpath(target, posixpath.dirname(name) or '.')}{anchor})"

    return LINK.sub(moved, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Links of docstrings, ``:class:`~a.b.C```, as links of the site where it has the name, else as the name."""

    def linked(match: re.Match[str]) -> str:
        shown, name = match.groups()
        return f'<autoref identifier="{name}" optional><code>{shown or name.rpartition(".")[2]}</code></autoref>'

    return ROLE.sub(linked, html)
