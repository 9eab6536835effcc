"""Texts on disk as one blob of bytes and the offsets at which each begins: any text in constant time and memory.

A column of n texts is ``<name>.bin``, their UTF-8 bytes one after the other, and ``<name>.offsets``, n + 1
little-endian 64-bit numbers. Both are mapped into memory: a data set larger than memory costs nothing to open, and all
processes of a machine share its pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

from .cache import map_array


class TextWriter:
    """Writes one column, text by text, in constant memory.

    Parameters
    ----------
    directory, name
        Where to write, and the name of the column.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._bytes = open(directory / f"{name}.bin", "wb")  # noqa: SIM115 - closed by __exit__
        self._offsets = open(directory / f"{name}.offsets", "wb")  # noqa: SIM115 - closed by __exit__
        self._offsets.write(np.zeros(1, dtype="<i8").tobytes())
        self.count = 0
        self._end = 0

    def append(self, text: str) -> None:
        """Add one text. A lone surrogate survives; tokenizers are given its replacement."""
        data = text.encode("utf-8", "surrogatepass")
        self._bytes.write(data)
        self._end += len(data)
        self._offsets.write(np.array([self._end], dtype="<i8").tobytes())
        self.count += 1

    def __enter__(self) -> TextWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bytes.close()
        self._offsets.close()


class TextColumn:
    """One column, mapped into memory.

    Parameters
    ----------
    directory, name, count
        Where it is, its name, and how many texts it has.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with TextWriter(folder, "query") as writer:
    ...     writer.append("owls")
    ...     writer.append("")
    >>> column = TextColumn(folder, "query", 2)
    >>> column[0], column[1], len(column)
    ('owls', '', 2)
    """

    def __init__(self, directory: Path, name: str, count: int) -> None:
        self._offsets = map_array(directory / f"{name}.offsets", "<i8", (count + 1,))
        self._bytes = map_array(directory / f"{name}.bin", "u1", (int(self._offsets[-1]),))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> str:
        start, end = self._offsets[row], self._offsets[row + 1]
        return self._bytes[start:end].tobytes().decode("utf-8", "surrogatepass")

    def take(self, rows: Iterable[int]) -> list[str]:
        """Texts of some rows."""
        return [self[int(row)] for row in rows]
