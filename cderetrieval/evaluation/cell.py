"""One evaluation: a model in a context on one split of a dataset.

A cell has the mean of each metric and, for retrieval, the metrics of each query: significance tests need them, and mteb
does not keep them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .metrics import PerQuery

# The metric by which a task is ranked: nDCG@10 for retrieval, accuracy for classification, ...
MAIN = "main_score"


@dataclass(frozen=True)
class Cell:
    """Scores of one model in one context on one split of one dataset."""

    model: str
    context: str
    seed: int
    dataset: str
    subset: str
    split: str
    revision: str  # changes with the data
    type: str  # mteb's type of the task
    metrics: dict[str, float]  # means, "main_score" among them
    group: str | None = None  # the aggregate (CQADupstack) that the dataset is part of
    scores: PerQuery | None = None  # metrics of each query, for retrieval
    audit: dict[str, Any] = field(default_factory=dict)  # what the context was made of
    seconds: float = 0.0  # of encoding, searching and scoring
    candidates: str | None = None  # first-stage model and depth, where candidates were reranked

    @property
    def system(self) -> str:
        """Model and context: what is compared."""
        return f"{self.model}/{self.context}"

    @property
    def column(self) -> str:
        """The dataset in tables: its name, with subset and split where they are not the usual ones."""
        extra = [part for part in (self.subset, self.split) if part not in ("default", "test")]
        return self.dataset + _depth(self.candidates) + (f" ({', '.join(extra)})" if extra else "")

    @property
    def file_name(self) -> str:
        """Name of its files in a folder of results."""
        return cell_name(self.dataset, self.subset, self.split, self.candidates)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the long table, one for each metric."""
        n_queries = len(self.scores.query_ids) if self.scores else None
        fixed = {
            "model": self.model,
            "dataset": self.column,
            "context": self.context,
            "seed": self.seed,
            "type": self.type,
            "group": self.group or self.column,
        }
        for metric, value in self.metrics.items():
            yield {**fixed, "metric": metric, "value": value, "n_queries": n_queries}


def cell_name(dataset: str, subset: str, split: str, candidates: str | None) -> str:
    """Name of the files of an evaluation.

    >>> cell_name("SciFact", "default", "test", "all-MiniLM-L6-v2@1024")
    'SciFact@1024.test'
    """
    return ".".join([dataset + _depth(candidates), *([subset] if subset != "default" else []), split])


def _depth(candidates: str | None) -> str:
    return f"@{candidates.rpartition('@')[2]}" if candidates else ""
