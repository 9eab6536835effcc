"""Text for a terminal, a pipe or a log: control characters become visible, whatever the text came from.

Ids, texts and paths may hold escape sequences that hide or forge lines. Everything that the command line prints goes
through :func:`say`, and everything in it that came from data through :func:`printable`.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, TextIO

# C0, DEL and C1; line and paragraph separators; embeddings, overrides and isolates of direction; lone surrogates.
_UNSAFE = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[{_UNSAFE}]")
_CONTROL_IN_LINES = re.compile(rf"(?!\n)[{_UNSAFE}]")


def printable(value: Any) -> str:
    r"""Text of one line that a terminal only shows: control characters as the escapes that JSON writes.

    >>> printable("bell \x07, \x1b[31mred, end of line \n")
    'bell \\u0007, \\u001b[31mred, end of line \\u000a'
    """
    return _CONTROL.sub(_escape, str(value))


def printable_lines(text: str) -> str:
    """The same for text of several lines: tables, reports, tracebacks."""
    return _CONTROL_IN_LINES.sub(_escape, text)


def say(text: str, file: TextIO | None = None) -> None:
    """Print to standard output, or another stream; what its code page lacks becomes an escape, too."""
    stream = sys.stdout if file is None else file
    if stream is None:  # closed by the caller
        return
    code_page = getattr(stream, "encoding", None) or "utf-8"
    shown = printable_lines(text).encode(code_page, "backslashreplace").decode(code_page)
    stream.write(shown + "\n")


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
