"""What a file of training pairs is, and one pair of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import InputError

PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.parquet")
Prompts = Mapping[str, Sequence[str]]


class Row(NamedTuple):
    """One training example."""

    query: str
    document: str
    negatives: tuple[str, ...]
    domain: str
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Source:
    """One file of training pairs.

    Parameters
    ----------
    path
        JSON lines (``.jsonl``, ``.jsonl.gz``) or Parquet.
    name
        Name of the data set; also the domain of rows that name none.
    weight
        Share of batches, relative to the other sources; None: by size.
    query, document, negatives, domain, scores
        Names of the fields.
    prompts
        Domain to the prompts of its queries and documents; ``"*"`` serves all others. None: the model's own.

    Examples
    --------
    >>> Source("faq.jsonl", "faq", query="question", document="answer").domain
    'domain'
    """

    path: str
    name: str
    weight: float | None = None
    query: str = "query"
    document: str = "document"
    negatives: str = "negatives"
    domain: str = "domain"
    prompts: Prompts = field(default_factory=dict)
    scores: str = "scores"

    def __post_init__(self) -> None:
        if self.weight is not None and not self.weight > 0:
            raise InputError(f"weight={self.weight!r} of {self.name} must be above 0; leave the file out instead.")


def data_set_name(file_name: str) -> str:
    """Name of the data set in a file.

    >>> data_set_name("nq.jsonl.gz")
    'nq'
    """
    return file_name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".parquet")
