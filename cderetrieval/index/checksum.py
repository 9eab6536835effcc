"""Checksums of parts of a mapped file, compared when a part is first used.

To read 95 MB of posting lists only to see that they are whole would cost 0.07 s at every opening, and term embeddings
are gigabytes. A part (a posting list, a document's terms) is checked once, by its crc32, before it first has a say in
an answer; so opening costs nothing and yet no flipped bit is ever believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from .base import DamagedIndexError


def checksums(starts: np.ndarray, arrays: Sequence[np.ndarray], known: Checksum | None = None) -> np.ndarray:
    """crc32 of each part: entries ``starts[i]`` to ``starts[i + 1]`` of every array, shape (parts,), uint32."""
    if known is not None:
        return known.expected
    return np.fromiter((_checksum(part, starts, arrays) for part in range(len(starts) - 1)), dtype=np.uint32)


def _checksum(part: int, starts: np.ndarray, arrays: Sequence[np.ndarray]) -> int:
    value, span = 0, slice(starts[part], starts[part + 1])
    for array in arrays:
        value = crc32(array[span].data, value)
    return value


class Checksum:
    """Checks parts of arrays that lie in a file."""

    def __init__(self, path: Path, starts: np.ndarray, arrays: Sequence[np.ndarray], expected: np.ndarray) -> None:
        self.path = path
        self.expected = expected
        self._starts, self._arrays = starts, arrays
        self._unseen = np.diff(starts) > 0

    def check(self, parts: np.ndarray | slice = slice(None)) -> None:
        """Compare those parts that have not been seen yet."""
        unseen = self._unseen[parts]
        if not unseen.any():
            return
        fresh = np.arange(len(self._unseen))[parts][unseen]
        for part in fresh.tolist():
            if _checksum(part, self._starts, self._arrays) != self.expected[part]:
                raise DamagedIndexError(f"part {part} of {self.path} does not match its checksum")
        self._unseen[fresh] = False
