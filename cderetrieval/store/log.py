"""Whether SQLite can read all of the write-ahead log that it is about to play.

It plays the log up to the first frame whose checksum is wrong, and takes what follows for a write that a crash cut
short. That is right of a torn end, and of no other place: a bit that flips further ahead takes acknowledged changes
with it, without a word. That a change was acknowledged shows in three ways. The shared memory that a killed process
leaves counts its frames. Or another change begins behind it, which is only written once the first is on disk. Or, where
the directory was copied without the shared memory, or the header of the log is bad, which is on disk before any change:
its end stands in the log.

For the form of both files see https://www.sqlite.org/walformat.html. A checksum is linear in what it sums, so those of
all frames are one product of matrices, modulo 2**32.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import StoreError
from ..files import reading

HEADER, FRAME_HEADER, INDEX_HEADER = 32, 24, 48
MAGIC = 0x377F0682
# Frames that are summed at a time: 2 MB.
CHUNK = 128


class Frames(NamedTuple):
    """What stands in a log: arrays of a row for its header and one for each frame, so that row n is frame n."""

    sums: np.ndarray  # of each by itself, shape (n, 2)
    stored: np.ndarray  # of each and all before it, as the log says, shape (n, 2)
    salts: np.ndarray  # shape (n, 2)
    ends: np.ndarray  # whether it ends a change


def check_log(store: Path, log: Path, index: Path, page_size: int) -> None:
    """Refuse to open a store whose log has lost acknowledged changes."""
    for _ in range(3):  # a process that writes to it may have been in the middle
        frame = None
        with reading(log), contextlib.suppress(FileNotFoundError):  # or has just closed it
            frame = _damage(log, index, page_size) if log.stat().st_size else None
        if frame is None:
            return
        time.sleep(0.02)
    raise StoreError(
        f"{log} is damaged in {f'frame {frame}' if frame else 'its header'}: the last changes of this index, from "
        f"there on, cannot be read. Nothing was changed. Put {log.name} and {store.name} back from a copy of both. To "
        f"go on without those changes, copy {store.parent} first, then have SQLite drop them: "
        f"sqlite3 {store} 'PRAGMA wal_checkpoint(TRUNCATE)'"
    )


def _damage(log: Path, index: Path, page_size: int) -> int | None:
    """The first frame that is damaged, where that hides an acknowledged change; 0 is the header."""
    memory = index.read_bytes()[: 2 * INDEX_HEADER] if index.is_file() else None
    frames = _read(log, page_size)
    if frames is None:
        return None
    power = _power(page_size)
    before = np.vstack([np.zeros((1, 2), np.uint32), frames.stored[:-1]])
    running = frames.sums + before @ power
    chained = (running == frames.stored).all(axis=1)
    salt = frames.salts[0 if chained[0] else 1]
    own = (frames.salts == salt).all(axis=1)
    bad = int(np.argmin([*(chained & own), False]))
    if bad + 1 < len(own):  # what flipped may be the checksum, and the next frame was summed up from the right one
        following = frames.sums[bad + 1] + running[bad] @ power
        chained[bad + 1] |= bool((following == frames.stored[bad + 1]).all())
    return bad if _hides(bad, chained & own, frames.ends, _counted(memory, salt)) else None


def _hides(bad: int, whole: np.ndarray, ends: np.ndarray, counted: int | None) -> bool:
    """Whether an acknowledged change has a part at or behind the frame `bad`."""
    if counted is not None and counted >= max(bad, 1):
        return True
    behind = ends & whole
    behind[: bad + 1] = False
    if counted is None or bad == 0:
        return bool(behind.any())
    behind[bad : bad + 1] = ends[bad : bad + 1]
    return bool((behind[:-1] & whole[1:]).any())


def _counted(memory: bytes | None, salt: np.ndarray) -> int | None:
    """Frames that the shared memory counts in a log of this salt; None where there is no such file."""
    if memory is None:
        return None
    first, second = memory[:INDEX_HEADER], memory[INDEX_HEADER:]
    words = np.frombuffer(first, np.uint32) if first == second and len(first) == INDEX_HEADER else None
    if words is None or first[32:40] != salt.astype(">u4").tobytes():
        return 0
    return int(words[4]) if (words[:10] @ _weights(40) == words[10:]).all() else 0


def _read(log: Path, page_size: int) -> Frames | None:
    """The header and all frames of a log; None where it has none."""
    size = FRAME_HEADER + page_size
    with open(log, "rb") as file:
        header = file.read(HEADER)
        blocks = iter(lambda: file.read(CHUNK * size), b"")
        order = _order(header) if len(header) == HEADER else ""
        parts = [_summed(block, size, order) for block in blocks if len(block) >= size]
    if not parts:
        return None
    first = np.frombuffer(header, ">u4").astype(np.uint32)
    begin = Frames(_sum(header[:24], order)[None], first[None, 6:], first[None, 4:6], np.zeros(1, dtype=bool))
    return Frames(*(np.concatenate(columns) for columns in zip(begin, *parts, strict=True)))


def _order(header: bytes) -> str:
    """Byte order in which a log's checksums were computed: what its header says, unless that is damaged."""
    said = {MAGIC: "<", MAGIC + 1: ">"}.get(int.from_bytes(header[:4], "big"), "")
    if said and _sum(header[:24], said).astype(">u4").tobytes() == header[24:]:
        return said
    return "<" if sys.byteorder == "little" else ">"


def _sum(content: bytes, order: str) -> np.ndarray:
    """Checksum of some bytes."""
    return np.asarray(np.frombuffer(content, order + "u4").astype(np.uint32) @ _weights(len(content)))


def _summed(block: bytes, size: int, order: str) -> Frames:
    count = len(block) // size
    rows = np.frombuffer(block, np.uint8, count * size).reshape(count, size)
    fields = rows[:, :FRAME_HEADER].copy().view(">u4").astype(np.uint32)
    content = np.hstack([rows[:, :8], rows[:, FRAME_HEADER:]]).view(order + "u4").astype(np.uint32, copy=False)
    return Frames(content @ _weights(content.shape[1] * 4), fields[:, 4:], fields[:, 2:4], fields[:, 1] != 0)


@functools.lru_cache(maxsize=8)
def _weights(size: int) -> np.ndarray:
    """What each word of so many bytes adds to both halves of the checksum, shape (size / 4, 2)."""
    weights = np.empty((size // 4, 2), np.uint32)
    one, two = (1, 1), (0, 1)  # of the last two words
    for row in range(size // 4 - 2, -1, -2):
        weights[row], weights[row + 1] = one, two
        one, two = _step(one), _step(two)
    return weights


def _power(page_size: int) -> np.ndarray:
    """What the checksum before a frame adds to the one behind it, shape (2, 2)."""
    one, two = (1, 0), (0, 1)
    for _ in range((8 + page_size) // 8):
        one, two = _step(one), _step(two)
    return np.array([one, two], np.uint32)


def _step(state: tuple[int, int]) -> tuple[int, int]:
    """The two halves of a checksum after two words that are zero."""
    first = (state[0] + state[1]) % 2**32
    return first, (state[1] + first) % 2**32
