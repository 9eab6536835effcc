"""The index that is served: it follows commits by itself; a directory that was replaced is opened again."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from ..errors import StoreError
from ..index.manifest import STORE_FILE
from ..retrieval.retriever import Retriever

logger = logging.getLogger(__name__)


class ServedIndex:
    """Gives the retriever, for use from any thread; `reopen` opens its directory again."""

    def __init__(self, retriever: Retriever, reopen: Callable[[], Retriever] | None = None) -> None:
        self._retriever, self._reopen = retriever, reopen
        self._turn = threading.Lock()
        self._seen = self._file()

    def _file(self) -> tuple[int, int] | None:
        """Which file the store is."""
        if self._reopen is None or self._retriever.path is None:
            return None
        try:
            found = os.stat(self._retriever.path / STORE_FILE)
        except FileNotFoundError:
            raise StoreError(f"{self._retriever.path} is gone; the server opens it when it is there again.") from None
        return found.st_dev, found.st_ino

    def current(self) -> Retriever:
        """The retriever of what lies in the directory now."""
        now = self._file()
        if now != self._seen:
            with self._turn:
                if now != self._seen and self._reopen is not None:
                    # The old one is not closed: other threads may be reading it. It closes with its last user.
                    self._retriever, self._seen = self._reopen(), now
                    logger.info("%s was replaced, and is opened again.", self._retriever.path)
        return self._retriever

    def close(self) -> None:
        """Close the index."""
        self._retriever.close()
