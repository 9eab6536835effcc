"""Work that is done block by block, in this process or by workers on other machines.

A job is a class whose object is made once for each worker, from arguments that travel there once, and is then called
with the numbers of blocks. A call may be repeated, since workers die: what it writes must be the same each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from ..corpora.blocks import Block, read_block
from ..documents import Row, document_rows
from ..errors import InputError

# What a call returns: JSON values and bytes, and under "block" its number.
Result = dict[str, Any]


class Job(Protocol):
    """Does the work of one block; `computes` says whether a GPU helps."""

    computes: ClassVar[bool]

    def __call__(self, number: int) -> Result:
        """Do block `number`."""


class Engine(Protocol):
    """Does the work of many blocks, between `with` and its end."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, job: type[Job], arguments: Mapping[str, Any], numbers: Sequence[int]) -> Iterator[Result]:
        """Make `job` of `arguments` where the work is done, call it with each number, and give its results."""


class OneProcess:
    """Does all work here, block after block.

    >>> class Double:
    ...     def __init__(self, by): self.by = by
    ...     def __call__(self, number): return {"block": number, "value": number * self.by}
    >>> list(OneProcess().run(Double, {"by": 2}, [3, 4]))
    [{'block': 3, 'value': 6}, {'block': 4, 'value': 8}]
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    def run(self, job: type[Job], arguments: Mapping[str, Any], numbers: Sequence[int]) -> Iterator[Result]:
        """See :class:`Engine`."""
        if numbers:
            worker = job(**arguments)
            for number in numbers:
                yield worker(number)


@dataclass(frozen=True)
class Fields:
    """Which fields of a document matter."""

    # Field of the id, fields of the text (None: ``title``, where there is one, and ``text``).
    key: str = "id"
    on: tuple[str, ...] | None = None
    # Leave out documents with an empty text.
    skip_empty: bool = False


def block_rows(block: Block, fields: Fields) -> list[Row]:
    """Documents of a block as (id, text, payload), each checked; none where all were left out."""
    documents = list(read_block(block, fields.key))
    if not documents:
        return []
    try:
        return list(document_rows(documents, fields.key, fields.on, skip_empty=fields.skip_empty, may_be_empty=True))
    except InputError as error:
        raise InputError(f"{block}, counted from 0: {error}") from error


def in_order(results: Iterable[Result], numbers: Sequence[int]) -> Iterator[Result]:
    """Results in the order of `numbers`; those that come early wait.

    >>> [result["block"] for result in in_order([{"block": 2}, {"block": 1}, {"block": 3}], [1, 2, 3])]
    [1, 2, 3]
    """
    waiting: dict[int, Result] = {}
    wanted = iter(numbers)
    number = next(wanted, None)
    for result in results:
        waiting[result["block"]] = result
        while number in waiting:
            yield waiting.pop(number)
            number = next(wanted, None)
