"""Text for a terminal, a pipe or a log: control characters become visible, whatever the text came from.

Ids, texts and paths may hold escape sequences that hide or forge lines. Everything that the command line prints goes
through :func:`say`, and everything in it that came from data through :func:`printable`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import pairwise
from typing import Any, NamedTuple, TextIO

# C0, DEL and C1; line and paragraph separators; embeddings, overrides and isolates of direction; lone surrogates.
_UNSAFE = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[{_UNSAFE}]")
_CONTROL_IN_LINES = re.compile(rf"(?!\n)[{_UNSAFE}]")
BOLD, UNDERLINE = "1", "4"


class Mark(NamedTuple):
    """Characters `start` to `stop` of a text, and how a terminal shows them."""

    start: int
    stop: int
    style: str

    def moved(self, places: int) -> Mark:
        """The same mark where its text begins elsewhere."""
        return Mark(self.start + places, self.stop + places, self.style)


def printable(value: Any) -> str:
    """Text of one line that a terminal only shows: control characters as the escapes that JSON writes."""
    return _CONTROL.sub(_escape, str(value))


def printable_lines(text: str) -> str:
    """The same for text of several lines: tables, reports, tracebacks."""
    return _CONTROL_IN_LINES.sub(_escape, text)


def say(text: str, file: TextIO | None = None, marks: Sequence[Mark] = ()) -> None:
    """Print to standard output, or another stream; what its code page lacks becomes an escape, too.

    A terminal shows marks, unless NO_COLOR is set or it is a dumb one.
    """
    stream = sys.stdout if file is None else file
    if stream is None:  # closed by the caller
        return
    code_page = getattr(stream, "encoding", None) or "utf-8"
    pieces = _pieces(text, marks) if marks and _is_styled(stream) else [(text, "")]
    for piece, styles in pieces:
        shown = printable_lines(piece).encode(code_page, "backslashreplace").decode(code_page)
        stream.write(f"\x1b[{styles}m{shown}\x1b[0m" if styles else shown)
    stream.write("\n")


def _is_styled(stream: TextIO) -> bool:
    is_terminal = hasattr(stream, "isatty") and stream.isatty()
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _pieces(text: str, marks: Sequence[Mark]) -> Iterator[tuple[str, str]]:
    """A text in pieces, each with its styles."""
    ends = {min(max(place, 0), len(text)) for mark in marks for place in mark[:2]}
    for start, stop in pairwise(sorted({0, len(text), *ends})):
        styles = sorted({mark.style for mark in marks if mark.start <= start and stop <= mark.stop})
        yield text[start:stop], ";".join(styles)


def complain(text: str) -> None:
    """Print an error; all but its first line are indented, so that none can pass for another message."""
    say(text.replace("\n", "\n  "), sys.stderr)


class Formatter(logging.Formatter):
    """Log records as the command line shows them."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, as :func:`complain` would print it."""
        return printable_lines(super().format(record).replace("\n", "\n  "))


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def keywords(function: Callable[..., Any], arguments: Namespace, **others: Any) -> dict[str, Any]:
    """The arguments of a command that a function takes under the same names, and others."""
    known = signature(function).parameters
    return {**{name: value for name, value in vars(arguments).items() if name in known}, **others}
