"""How far a job is: a bar on a terminal, else a line in the log every half minute, with rate and remaining time."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

from ..runtime import progress

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

EVERY = 30.0
LINE = "{desc}: {n:,} of {total:,} documents ({percentage:.1f} %), {rate_noinv_fmt}, {remaining} left"


def counted(what: str, total: int, done: int = 0, *, show: bool = True) -> tqdm[Any]:
    """A bar that counts documents, `done` of which an earlier run has done."""
    from tqdm import tqdm

    bar = progress(range(total), what, show=show)
    if not bar.disable or not show:
        bar.update(done)
        return bar
    log: Any = {"file": _Log(), "mininterval": EVERY, "delay": EVERY, "miniters": 1, "bar_format": LINE, "leave": False}
    return tqdm(desc=what, total=total, initial=done, unit="", **log)


class _Log(io.StringIO):
    """Writes lines to the log."""

    def write(self, line: str) -> int:
        if text := line.strip():
            logger.info(text)
        return len(line)
