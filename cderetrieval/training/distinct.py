"""Batches in which no text stands twice: what losses need that take every other document of a batch for a negative.

A document that comes twice is pushed away from the query that it answers. multi-qa and the all-* models skipped, while
they filled a batch, every row that shares a text with it; so does this: rows are taken in order, a row that shares a
text waits for the next batch, and what waits goes first.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .cache import cached_directory, map_array
from .columns import TextColumn
from .data import PairData


@dataclass(frozen=True)
class TextNumbers:
    """A number for each text, equal for texts that differ in case and white space only.

    Attributes
    ----------
    queries, documents, mined
        Of the rows' queries and documents, shape (n,), and of all mined negatives, shape (m,); int64.
    data
        Says which negatives a row has.
    """

    queries: np.ndarray
    documents: np.ndarray
    mined: np.ndarray
    data: PairData

    def of(self, row: int) -> set[int]:
        """All texts of a row."""
        negatives = self.data.negatives_of(row)
        own = {int(self.queries[row]), int(self.documents[row])}
        return own.union(self.mined[negatives.start : negatives.stop].tolist())


def text_numbers(data: PairData, cache: str | Path) -> TextNumbers:
    """Number all texts, or open the numbers of an earlier call."""
    columns = {"query": data.queries, "document": data.documents, "negative": data.mined}

    def build(directory: Path) -> dict[str, int]:
        for name, column in columns.items():
            with open(directory / f"{name}.i64", "wb") as file:
                for row in range(len(column)):
                    file.write(_number(column, row))
        return {name: len(column) for name, column in columns.items()}

    directory = cached_directory(cache, "texts", {"data": data.fingerprint}, build)
    arrays = [map_array(directory / f"{name}.i64", "<i8", (len(column),)) for name, column in columns.items()]
    return TextNumbers(arrays[0], arrays[1], arrays[2], data)


def _number(column: TextColumn, row: int) -> bytes:
    text = " ".join(column[row].casefold().split())
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def distinct_batches(rows: np.ndarray, size: int, numbers: TextNumbers) -> np.ndarray:
    """Cut rows into batches without a repeated text, keeping to their order where that allows it.

    Parameters
    ----------
    rows
        In the order in which to fill batches, shape (n,).
    size
        Rows of a batch.
    numbers
        Texts of each row.

    Returns
    -------
    numpy.ndarray
        Shape (b, size), b at most n // size; what is left over fits no whole batch.
    """
    waiting = deque(rows.tolist())
    batches: list[list[int]] = []
    while len(waiting) >= size:
        batch: list[int] = []
        seen: set[int] = set()
        later: list[int] = []
        while waiting and len(batch) < size:
            row = waiting.popleft()
            texts = numbers.of(row)
            if seen.isdisjoint(texts):
                batch.append(row)
                seen |= texts
            else:
                later.append(row)
        if len(batch) < size:
            break
        batches.append(batch)
        waiting.extendleft(reversed(later))
    return np.array(batches, dtype=np.int64).reshape(-1, size)
