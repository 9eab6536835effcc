"""One model in one context setting: what it still has to do, and where its results go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..corpora.dataset import Dataset
from ..fusion.model import AnyModel
from .candidates import Candidates, first_stage
from .folder import ResultsFolder
from .forms import Run
from .metrics import PerQuery
from .results import MAIN, Cell, cell_name
from .retrieval import Evaluation, evaluate_retrieval
from .setting import ContextSetting
from .tasks import GroupedDataset

# Called when a dataset of one's own was evaluated; its retriever is still open.
OnDone = Callable[[Evaluation], None]


@dataclass
class Entrant:
    """A model that is evaluated.

    Attributes
    ----------
    name
        In tables and folders.
    model
        The model.
    full_name
        ``organisation/name``, in mteb's files.
    """

    name: str
    model: AnyModel
    full_name: str


@dataclass
class FirstStage:
    """Chooses the candidates of a truncated evaluation, once for each dataset."""

    entrant: Entrant
    depth: int
    _found: dict[tuple[str, str, str], Candidates] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of model and depth, as results carry it."""
        return f"{self.entrant.name}@{self.depth}"

    def candidates(self, dataset: Dataset, dtype: str) -> Candidates:
        """The best documents of each query; computed at most once for a dataset."""
        key = (dataset.name, dataset.split, dataset.revision)
        if key not in self._found:
            self._found[key] = first_stage(self.entrant.model, dataset, self.depth, dtype=dtype)
        return self._found[key]


class Job:
    """One model in one context setting, on one subject after the other.

    Parameters
    ----------
    entrant, setting, dtype
        What is evaluated.
    folder
        Where results are kept; None: nowhere.
    stage
        Chooses candidates to rerank; None: full retrieval.
    on_done
        Called with each evaluation of a dataset of one's own, its retriever still open.
    show_progress
        Show progress bars on a terminal.
    """

    def __init__(
        self,
        entrant: Entrant,
        setting: ContextSetting,
        dtype: str = "auto",
        *,
        folder: ResultsFolder | None = None,
        stage: FirstStage | None = None,
        on_done: OnDone | None = None,
        show_progress: bool = True,
    ) -> None:
        self.entrant, self.setting, self.dtype = entrant, setting, dtype
        self.folder, self.stage, self.on_done, self.show_progress = folder, stage, on_done, show_progress
        self._place: Path | None = None
        if folder is not None:
            self._place = folder.claim(entrant.name, entrant.model.fingerprint, setting, dtype)

    def cell(self, **values: Any) -> Cell:
        """Make a cell of this model and setting."""
        stage = None if self.stage is None else self.stage.name
        return Cell(
            model=self.entrant.name, context=self.setting.name, seed=self.setting.seed, candidates=stage, **values
        )

    def file_name(self, dataset: str, subset: str, split: str) -> str:
        """Name of a cell's files."""
        return cell_name(dataset, subset, split, None if self.stage is None else self.stage.name)

    def finished(self, name: str, revision: str) -> Cell | None:
        """The cell of an earlier run, if it is there."""
        if self.folder is None or self._place is None:
            return None
        return self.folder.finished(self._place, name, revision, None if self.stage is None else self.stage.name)

    def keep_queries(self, name: str, scores: PerQuery, run: Run) -> None:
        """Write metrics and hits of single queries."""
        if self.folder is not None and self._place is not None:
            self.folder.write_queries(self._place, name, scores, run, f"{self.entrant.name}-{self.setting.name}")

    def kept_queries(self, name: str) -> PerQuery | None:
        """Metrics of single queries that an earlier run, perhaps one that was killed, has written."""
        return None if self.folder is None or self._place is None else self.folder.read_queries(self._place, name)

    def keep_audit(self, name: str, audit: dict[str, Any]) -> None:
        """Write what a context was made of."""
        if self.folder is not None and self._place is not None:
            self.folder.write_audit(self._place, name, audit)

    def kept_audit(self, name: str) -> dict[str, Any]:
        """What an earlier run has written of a context."""
        return {} if self.folder is None or self._place is None else self.folder.read_audit(self._place, name)

    def keep(self, name: str, cell: Cell) -> Cell:
        """Write a finished cell."""
        if self.folder is not None and self._place is not None:
            self.folder.write(self._place, name, cell)
        return cell


def dataset_cell(job: Job, subject: GroupedDataset, directory: Path) -> Cell:
    """Evaluate a retrieval dataset, or find it finished.

    Parameters
    ----------
    job
        Model and setting.
    subject
        The dataset.
    directory
        For documents and vectors meanwhile.
    """
    dataset = subject.dataset
    name = job.file_name(dataset.name, "default", dataset.split)
    if (done := job.finished(name, dataset.revision)) is not None:
        return done
    started = time.perf_counter()
    in_memory = isinstance(dataset.corpus, tuple)
    evaluation = evaluate_retrieval(
        job.entrant.model,
        dataset,
        name=job.entrant.name,
        context=job.setting,
        dtype=job.dtype,
        candidates=None if job.stage is None else job.stage.candidates(dataset, job.dtype),
        # A corpus that streams from a file must not end up in memory.
        directory=None if in_memory else directory / "index",
        show_progress=job.show_progress,
    )
    seconds = round(time.perf_counter() - started, 2)
    job.keep_queries(name, evaluation.scores, evaluation.run)
    if job.on_done is not None:
        job.on_done(evaluation)
    elif evaluation.retriever is not None:
        evaluation.retriever.close()
    means = evaluation.scores.mean()
    cell = job.cell(
        dataset=dataset.name,
        subset="default",
        split=dataset.split,
        revision=dataset.revision,
        type="Retrieval",
        group=subject.group,
        metrics={**means, MAIN: means["ndcg@10"]},
        audit=evaluation.audit,
        seconds=seconds,
        scores=evaluation.scores,
    )
    return job.keep(name, cell)
