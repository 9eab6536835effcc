"""What every index is to a collection, and to the files that keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import StoreError
from .stream import Chunks

# The file that each index reads as a whole: its numbers, and what is small.
NUMBERS = "index.safetensors"


class DamagedIndexError(StoreError):
    """A part of a saved index, looked at when it was first used, is not what was written."""


@dataclass(frozen=True)
class Written:
    """What an index wrote: files that are read as a whole, others, and settings for the manifest."""

    read: Sequence[str]
    mapped: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)


class Index(Protocol):
    """What a collection asks of an index."""

    def sync(self, live_seqs: np.ndarray, vectors_after: Callable[[int], Chunks]) -> None:
        """Make the index hold exactly these numbers, with as little work as possible."""

    def search(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the best, best first, both (q, at most k); short rows end in -inf and -1."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the manifest of a saved index must say for this one to read it."""

    def write(self, folder: Path, mode: int) -> Written | None:
        """Write files with these permissions; None where there is nothing worth it."""

    def read(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Hold what was written, or raise and hold nothing."""
