"""Evaluate an mteb task by mteb, and keep what mteb does not: the metrics and the hits of each query.

mteb saves after each subset and resumes there. The metrics of single queries are written before mteb scores a subset;
where a killed run has left a score without them, the task is evaluated again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..fusion.model import AnyModel
from .candidates import NO_VECTORS, model_kind
from .forms import Run
from .inject import split_dataset
from .job import Job
from .metrics import PerQuery
from .mteb_context import is_retrieval
from .mteb_model import MTEBModel
from .results import MAIN, Cell
from .retrieval import Scorer
from .tasks import Subject, TaskSubject

logger = logging.getLogger(__name__)

# mteb rounds to five digits.
_TOLERANCE = 2e-5


def task_cells(job: Job, subject: TaskSubject, directory: Path) -> Iterator[Cell]:
    """Evaluate a task, or find it finished.

    Parameters
    ----------
    job
        Model and setting.
    subject
        The task.
    directory
        For the task's data meanwhile.

    Yields
    ------
    Cell
        One for each subset and split.
    """
    task = subject.task
    done = None if subject.folder is not None else _finished(job, task)
    if done is None:
        was_loaded = task.data_loaded
        task = subject.load(directory)
        # The revision of a folder is known only after it was read.
        done = _finished(job, task)
        if done is None:
            done = _evaluate(job, subject, task, directory)
        if not was_loaded:
            task.unload_data()
    yield from done


def check_tasks(model: AnyModel, subjects: Iterable[Subject]) -> None:
    """Refuse tasks that a model cannot do, before any work is done.

    Raises
    ------
    InputError
        If a task compares or classifies vectors, and the model has none.
    """
    if model_kind(model) not in NO_VECTORS:
        return
    for subject in subjects:
        if isinstance(subject, TaskSubject) and not is_retrieval(subject.task):
            raise InputError(
                f"{subject.name} is a task of type {subject.task.metadata.type}, which needs one vector for each text, "
                f"and a {model_kind(model)!r} model has none. Leave it out, or evaluate this model on retrieval tasks."
            )


def _finished(job: Job, task: Any) -> list[Cell] | None:
    """All cells of a task from an earlier run; None where one is missing."""
    revision = str(task.metadata.dataset["revision"])
    found = []
    for split in task.eval_splits:
        for subset in task.hf_subsets:
            cell = job.finished(job.file_name(task.metadata.name, subset, split), revision)
            if cell is None:
                return None
            found.append(cell)
    return found


def _evaluate(job: Job, subject: TaskSubject, task: Any, directory: Path) -> list[Cell]:
    import mteb

    queries = _Queries(job, task)
    model = MTEBModel(
        job.entrant.model,
        job.setting,
        name=job.entrant.full_name,
        dtype=job.dtype,
        directory=directory,
        watch=queries.watch,
        on_context=lambda subset, split, audit: job.keep_audit(job.file_name(task.metadata.name, subset, split), audit),
        candidates=None if job.stage is None else job.stage.name,
    )
    if job.stage is not None:
        _truncate(job, task)
    model.prepare(task)
    cache = None if job.folder is None else mteb.ResultCache(job.folder.directory / "mteb")
    started = time.perf_counter()
    results = mteb.evaluate(
        model,
        task,
        cache=cache,
        overwrite_strategy="always" if queries.lost(cache, model) else "only-missing",
        show_progress_bar=False,
        co2_tracker=False,
    )
    seconds = round(time.perf_counter() - started, 2)
    [result] = results.task_results
    cells = []
    for split, rows in result.scores.items():
        for row in rows:
            subset = row["hf_subset"]
            scores = queries.scores(subset, split) if is_retrieval(task) else None
            cell = job.cell(
                dataset=task.metadata.name,
                subset=subset,
                split=split,
                revision=str(task.metadata.dataset["revision"]),
                type=task.metadata.type,
                group=subject.group,
                metrics=_metrics(row, scores, f"{task.metadata.name} ({subset}, {split})"),
                audit=_audit(job, model, task, subset, split),
                seconds=seconds,
                scores=scores,
            )
            cells.append(job.keep(job.file_name(task.metadata.name, subset, split), cell))
    return cells


def _audit(job: Job, model: MTEBModel, task: Any, subset: str, split: str) -> dict[str, Any]:
    """What a context was made of, in this run or in an earlier one that was killed."""
    name = task.metadata.name
    made = model.audits.get((name, subset, split))
    return job.kept_audit(job.file_name(name, subset, split)) if made is None else made


class _Queries:
    """Metrics of single queries of a task, as its subsets go by."""

    def __init__(self, job: Job, task: Any) -> None:
        self._job, self._task = job, task
        self._scores: dict[tuple[str, str], PerQuery] = {}

    def watch(self, subset: str, split: str, blocks: Iterator[Run]) -> Iterator[Run]:
        qrels = self._task.dataset[subset][split]["relevant_docs"]
        scorer = Scorer(qrels, self._task.ignore_identical_ids)
        yield from scorer.watch(blocks)
        self._scores[subset, split] = scorer.scores()
        self._job.keep_queries(self._name(subset, split), self._scores[subset, split], scorer.run)

    def scores(self, subset: str, split: str) -> PerQuery | None:
        return self._scores.get((subset, split)) or self._job.kept_queries(self._name(subset, split))

    def lost(self, cache: Any, model: MTEBModel) -> bool:
        """Whether what mteb has kept is of no use: half a file, or scores whose queries are missing."""
        try:
            stored = None if cache is None else cache.load_task_result(self._task.metadata.name, model.mteb_model_meta)
            rows = [(row, split) for split, found in (stored.scores if stored else {}).items() for row in found]
            if any(abs(row[MAIN]) > 1 for row, _ in rows):
                raise ValueError("a score is above 1")
        except Exception as error:
            logger.warning("mteb's result of %s is damaged and is made again (%s).", self._task.metadata.name, error)
            return True
        if not is_retrieval(self._task):
            return False
        return any(self._job.kept_queries(self._name(row["hf_subset"], split)) is None for row, split in rows)

    def _name(self, subset: str, split: str) -> str:
        return self._job.file_name(self._task.metadata.name, subset, split)


def _metrics(row: dict[str, Any], scores: PerQuery | None, where: str) -> dict[str, float]:
    """Metrics of a subset: of retrieval those of this package, else all single numbers that mteb gives."""
    if scores is None:
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        return {name: float(value) for name, value in numbers.items() if not isinstance(value, bool)}
    means = scores.mean()
    theirs = row.get("ndcg_at_10")
    if theirs is not None and abs(means["ndcg@10"] - theirs) > _TOLERANCE:
        logger.warning("%s: nDCG@10 is %.5f by mteb and %.5f here.", where, theirs, means["ndcg@10"])
    return {**means, MAIN: float(row[MAIN])}


def _truncate(job: Job, task: Any) -> None:
    """Give each query of a task its candidates."""
    assert job.stage is not None
    if not is_retrieval(task):
        raise InputError(f"{task.metadata.name} is no retrieval task; only those can be truncated to candidates.")
    for split in task.eval_splits:
        for subset in task.hf_subsets:
            data = task.dataset[subset][split]
            if not data.get("top_ranked"):
                found = job.stage.candidates(split_dataset(task, subset, split), job.dtype)
                data["top_ranked"] = {query: list(ids) for query, ids in found.items()}
