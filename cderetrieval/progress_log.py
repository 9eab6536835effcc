"""Progress where there is no terminal and no notebook: a line in the log every half minute."""

from __future__ import annotations

import io
import logging
from typing import Any

from tqdm.std import tqdm

logger = logging.getLogger(__name__)

# Seconds until the first line, and between two.
EVERY = 30.0


class LoggedProgress(tqdm):  # type: ignore[misc]
    """A progress bar that logs in place of drawing; what ends within half a minute says nothing."""

    # No thread: a process with one may not fork.
    monitor_interval = 0  # noqa: V107

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, file=io.StringIO(), mininterval=EVERY, delay=EVERY, miniters=1)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:  # noqa: V105, V107
        """Log one line."""
        if msg is None and self.n < (self.total or float("inf")):
            logger.info("%s", self.format_meter(**{**self.format_dict, "ncols": 0}))
        return True
