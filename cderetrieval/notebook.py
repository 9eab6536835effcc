"""Tables in a notebook: what pandas writes as HTML, with every text escaped and long ones cut."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

# Characters of a text that a cell shows, and rows of a table.
WIDTH, ROWS = 120, 60


def html_table(rows: Sequence[Mapping[str, Any]] | Any, caption: str = "", digits: int = 4) -> str:
    """Rows, or a pandas frame, as a table under a line of text.

    >>> "&lt;b&gt;" in html_table([{"id": "<b>"}])
    True
    """
    import pandas as pd

    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    shown = frame.map(shortened)
    table = shown.to_html(index=False, escape=True, max_rows=ROWS, border=0, float_format=lambda x: f"{x:.{digits}f}")
    return f"<p>{html.escape(caption)}</p>{table}" if caption else table


def shortened(value: Any) -> Any:
    """A value as a cell shows it: texts in one line, and not more than a few words of them."""
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
