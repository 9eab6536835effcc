"""What can happen to the bytes of a file: pure functions of bytes and a `random.Generator` of numpy, to bytes.

`MUTATORS` holds those that fit any file, `JSON_MUTATORS` those that need JSON and hand on what is none.

    python -c "import damage, numpy as np; print(damage.flip_bit(b'abc', np.random.default_rng(0)))"
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Mutator = Callable[[bytes, np.random.Generator], bytes]

# A value of every kind, among them those that no setting expects.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 0.5, -0.0, 1e308, 10**9, -(10**9), 2**31, 2**63, 10**30),
    *("", "x", "\x00", "../..", "/", "nan", "7", "\ud83d\ude00", "a" * 10_000),
    *([], [[]], [None], [0] * 100, {}, {"": {}}, {"a": [1]}, float("inf"), float("nan")),
)
HUGE = (10**6, 10**9, 10**12, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30, 10**400, -(10**9), 1e300)


def flip_bit(data: bytes, rng: np.random.Generator) -> bytes:
    """One bit of the file."""
    return _flipped(data, rng, len(data))


def flip_first(data: bytes, rng: np.random.Generator) -> bytes:
    """One bit of the first 64 bytes, where headers are."""
    return _flipped(data, rng, min(64, len(data)))


def _flipped(data: bytes, rng: np.random.Generator, end: int) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of the file."""
    return data[: int(rng.integers(len(data) + 1))]


def empty(data: bytes, rng: np.random.Generator) -> bytes:
    """Nothing."""
    del data, rng
    return b""


def zero_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Zeros in place of a block, as a file system leaves after a crash."""
    start = int(rng.integers(len(data) + 1))
    length = min(int(rng.integers(1, 513)), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def garbage(data: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes of the same length, at most 64 kB."""
    return rng.bytes(min(len(data), 65_536))


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    """A few random bytes in between."""
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 9))) + data[place:]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    """The file, and a part of it once more."""
    return data + truncate(data, rng)


def not_utf8(data: bytes, rng: np.random.Generator) -> bytes:
    """A byte that no UTF-8 has."""
    place = int(rng.integers(len(data) + 1))
    return data[:place] + b"\xff" + data[place:]


def swap_type(data: bytes, rng: np.random.Generator) -> bytes:
    """A value of JSON of another kind."""
    return _replaced(data, rng, lambda _: VALUES[int(rng.integers(len(VALUES)))])


def huge_number(data: bytes, rng: np.random.Generator) -> bytes:
    """A number of JSON that nothing can have."""
    return _replaced(data, rng, lambda _: HUGE[int(rng.integers(len(HUGE)))], numbers=True)


def many_digits(data: bytes, rng: np.random.Generator) -> bytes:
    """A number of JSON of more digits than Python reads."""
    return _written(data, rng, b"1" + b"0" * 5_000)


def nest(data: bytes, rng: np.random.Generator) -> bytes:
    """A value of JSON inside of a great many lists or objects."""
    depth = int(10 ** rng.uniform(1, 5))
    opened, closed = (b"[", b"]") if rng.integers(2) else (b'{"a":', b"}")
    return _written(data, rng, opened * depth + b"1" + closed * depth)


def drop_key(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON without one of its values."""
    return _edited(data, rng, lambda holder, key: holder.pop(key))


def rename_key(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON with another key in an object."""

    def renamed(holder: Any, key: Any) -> None:
        if isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)

    return _edited(data, rng, renamed)


def outermost(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON that is another value as a whole."""
    del data
    return json.dumps(VALUES[int(rng.integers(len(VALUES)))]).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in a value of JSON."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value)) if _holds(value) else []
    for key, item in items:
        yield value, key
        yield from _places(item)


def _holds(value: Any) -> bool:
    return isinstance(value, dict | list)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _edited(data: bytes, rng: np.random.Generator, edit: Callable[[Any, Any], Any], *, numbers: bool = False) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places = [(holder, key) for holder, key in _places(value) if not numbers or _is_number(holder[key])]
    if places:
        edit(*places[int(rng.integers(len(places)))])
    return json.dumps(value).encode()


def _replaced(data: bytes, rng: np.random.Generator, new: Callable[[Any], Any], *, numbers: bool = False) -> bytes:
    def put(holder: Any, key: Any) -> None:
        holder[key] = new(holder[key])

    return _edited(data, rng, put, numbers=numbers)


def _written(data: bytes, rng: np.random.Generator, text: bytes) -> bytes:
    """JSON with this text in place of a value: text that Python would not write."""
    mark = json.dumps(f"mark-{rng.integers(2**31)}").encode()
    return _replaced(data, rng, lambda _: json.loads(mark)).replace(mark, text, 1)


def _on_a_line(mutator: Mutator) -> Mutator:
    """The mutator for one line of JSON lines."""

    def mutated(data: bytes, rng: np.random.Generator) -> bytes:
        lines = data.split(b"\n")
        place = int(rng.integers(len(lines)))
        return b"\n".join([*lines[:place], mutator(lines[place], rng), *lines[place + 1 :]])

    return mutated


MUTATORS: Mapping[str, Mutator] = {
    mutator.__name__: mutator
    for mutator in (flip_bit, flip_first, truncate, empty, zero_block, garbage, insert, repeat, not_utf8)
}
JSON_MUTATORS: Mapping[str, Mutator] = {
    mutator.__name__: mutator
    for mutator in (swap_type, huge_number, many_digits, nest, drop_key, rename_key, outermost)
}


def mutators_for(path: str | Path) -> Mapping[str, Mutator]:
    """The mutators that fit a file by its name."""
    if Path(path).suffix == ".jsonl":
        return {**MUTATORS, **{name: _on_a_line(mutator) for name, mutator in JSON_MUTATORS.items()}}
    return {**MUTATORS, **JSON_MUTATORS} if Path(path).suffix == ".json" else MUTATORS


def damage(path: Path, rng: np.random.Generator) -> str:
    """Damage a file in place, by any of the mutators that fit; their name."""
    names = sorted(mutators_for(path))
    name = names[int(rng.integers(len(names)))]
    path.write_bytes(mutators_for(path)[name](path.read_bytes(), rng))
    return name


def damage_directory(directory: Path, rng: np.random.Generator) -> tuple[str, str]:
    """Damage one file of a directory in place; the file and the mutator."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix not in (".md", ".py"))
    path = files[int(rng.integers(len(files)))]
    return path.relative_to(directory).as_posix(), damage(path, rng)
