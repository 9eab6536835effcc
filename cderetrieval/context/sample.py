"""A uniform sample of a corpus in one pass, the same whatever the order of its rows.

Each distinct text gets a key, the hash of the seed and the text; the sample is the `size` smallest keys. Hashes of
distinct texts are independent uniform numbers, so this is a uniform sample without replacement; exact duplicates share
a key and count once; and memory is the sample's, not the corpus's ("bottom-k sketch", Cohen & Kaplan 2007).
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import ConfigError

T = TypeVar("T")


def sample_key(text: str, seed: int) -> int:
    """Hash of a text under a seed, a uniform number of 128 bits."""
    data = f"{seed}\0{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "big")


@dataclass
class Sampler:
    """Collects the sample while the corpus streams by."""

    size: int
    seed: int = 0
    offered: int = 0
    duplicates: int = 0
    _heap: list[int] = field(default_factory=list)
    _kept: dict[int, tuple[Hashable, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"context size {self.size!r} must be at least 1.")

    def offer(self, document_id: Hashable, text: str) -> None:
        """Show the sampler one document; texts already in the sample are counted as duplicates."""
        self.offered += 1
        key = sample_key(text, self.seed)
        if key in self._kept:
            self.duplicates += 1
        elif len(self._heap) < self.size:
            heapq.heappush(self._heap, -key)
            self._kept[key] = (document_id, text)
        elif key < -self._heap[0]:
            del self._kept[-heapq.heapreplace(self._heap, -key)]
            self._kept[key] = (document_id, text)

    def watch(self, rows: Iterable[tuple[Hashable, str, T]]) -> Iterator[tuple[Hashable, str, T]]:
        """Pass (id, text, ...) rows through, offering each."""
        for row in rows:
            self.offer(row[0], row[1])
            yield row

    def items(self) -> list[tuple[Hashable, str]]:
        """The sample as (id, text), in the order of the keys, which the seed fixes."""
        return [self._kept[key] for key in sorted(self._kept)]

    def texts(self) -> list[str]:
        """The sampled texts, in the order of the keys."""
        return [text for _, text in self.items()]


def sample_texts(texts: Iterable[str], size: int, seed: int = 0) -> list[str]:
    """Sample `size` distinct texts."""
    sampler = Sampler(size, seed)
    for row, text in enumerate(texts):
        sampler.offer(row, text)
    return sampler.texts()
