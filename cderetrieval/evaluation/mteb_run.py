"""Evaluate an mteb task by mteb, and keep what mteb does not: the metrics and hits of each query.

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
from .cell import MAIN, Cell
from .metrics import PerQuery, Run, Scorer
from .mteb_data import is_retrieval, split_dataset
from .mteb_model import MTEBModel
from .runner import Job
from .search import NO_VECTORS, model_kind
from .tasks import Subject, TaskSubject

logger = logging.getLogger(__name__)

# mteb rounds to five digits.
_TOLERANCE = 2e-5


def check_tasks(model: AnyModel, subjects: Iterable[Subject]) -> None:
    """Refuse tasks that compare or classify vectors before any work is done, if the model has none."""
    if model_kind(model) not in NO_VECTORS:
        return
    for subject in subjects:
        if isinstance(subject, TaskSubject) and not is_retrieval(subject.task):
            raise InputError(
                f"{subject.name} is a task of type {subject.task.metadata.type}, which needs one vector for each text, "
                f"and a {model_kind(model)!r} model has none. Leave it out, or evaluate this model on retrieval tasks."
            )


def task_cells(job: Job, subject: TaskSubject, directory: Path) -> Iterator[Cell]:
    """Evaluate a task, or find it finished: a cell for each subset and split; `directory` is for its data meanwhile."""
    task = subject.task
    done = None if subject.folder is not None else _finished(job, task)
    if done is None:
        was_loaded = task.data_loaded
        task = subject.load(directory)
        # The revision of a folder is known only after it was read.
        done = _finished(job, task)
        if done is None:
            done = _Evaluation(job, subject, task, directory).cells()
        if not was_loaded:
            task.unload_data()
    yield from done


def _finished(job: Job, task: Any) -> list[Cell] | None:
    """All cells of a task from an earlier run; None where one is missing."""
    revision = str(task.metadata.dataset["revision"])
    found = []
    for split in task.eval_splits:
        for subset in task.hf_subsets:
            cell = job.finished(task.metadata.name, subset, split, revision)
            if cell is None:
                return None
            found.append(cell)
    return found


class _Evaluation:
    """A loaded task while mteb evaluates it."""

    def __init__(self, job: Job, subject: TaskSubject, task: Any, directory: Path) -> None:
        self._job, self._task, self._group = job, task, subject.group
        self._scores: dict[tuple[str, str], PerQuery] = {}
        self._model = MTEBModel(
            job.model,
            job.variant,
            name=job.full_name,
            dtype=job.dtype,
            directory=directory,
            candidates=job.candidates,
            watch=self._watch,
            on_context=lambda subset, split, audit: job.folder.write_audit(self._file(subset, split), audit),
        )

    def cells(self) -> list[Cell]:
        """Let mteb evaluate the task, and keep a cell for each subset and split."""
        import mteb

        job, task = self._job, self._task
        if job.stage is not None:
            self._truncate()
        self._model.prepare(task)
        cache = None if job.folder.mteb is None else mteb.ResultCache(job.folder.mteb)
        started = time.perf_counter()
        results = mteb.evaluate(
            self._model,
            task,
            cache=cache,
            overwrite_strategy="always" if self._is_lost(cache) else "only-missing",
            show_progress_bar=False,
            co2_tracker=False,
        )
        seconds = round(time.perf_counter() - started, 2)
        [result] = results.task_results
        return [self._cell(row, split, seconds) for split, rows in result.scores.items() for row in rows]

    def _cell(self, row: dict[str, Any], split: str, seconds: float) -> Cell:
        job, task, subset = self._job, self._task, row["hf_subset"]
        name, file = task.metadata.name, self._file(subset, split)
        scores = None
        if is_retrieval(task):
            scores = self._scores.get((subset, split)) or job.folder.read_queries(file)
        audit = self._model.audits.get((name, subset, split))
        return job.keep(
            dataset=name,
            subset=subset,
            split=split,
            revision=str(task.metadata.dataset["revision"]),
            type=task.metadata.type,
            group=self._group,
            metrics=_metrics(row, scores, f"{name} ({subset}, {split})"),
            # An earlier run that was killed has written what its context was made of.
            audit=job.folder.read_audit(file) if audit is None else audit,
            seconds=seconds,
            scores=scores,
        )

    def _watch(self, subset: str, split: str, blocks: Iterator[Run]) -> Iterator[Run]:
        qrels = self._task.dataset[subset][split]["relevant_docs"]
        scorer = Scorer(qrels, self._task.ignore_identical_ids)
        yield from scorer.watch(blocks)
        self._scores[subset, split] = scores = scorer.scores()
        self._job.keep_queries(self._file(subset, split), scores, scorer.run)

    def _is_lost(self, cache: Any) -> bool:
        """Whether what mteb has kept is of no use: half a file, or scores whose queries are missing."""
        name = self._task.metadata.name
        try:
            stored = None if cache is None else cache.load_task_result(name, self._model.mteb_model_meta)
            rows = [(row, split) for split, found in (stored.scores if stored else {}).items() for row in found]
            if any(abs(row[MAIN]) > 1 for row, _ in rows):
                raise ValueError("a score is above 1")
        except Exception as error:
            logger.warning("mteb's result of %s is damaged and is made again (%s).", name, error)
            return True
        if not is_retrieval(self._task):
            return False
        return any(self._job.folder.read_queries(self._file(row["hf_subset"], split)) is None for row, split in rows)

    def _truncate(self) -> None:
        """Give each query its candidates."""
        stage, task = self._job.stage, self._task
        assert stage is not None
        if not is_retrieval(task):
            raise InputError(f"{task.metadata.name} is no retrieval task; only those can be truncated to candidates.")
        for split in task.eval_splits:
            for subset in task.hf_subsets:
                data = task.dataset[subset][split]
                if not data.get("top_ranked"):
                    found = stage.candidates(split_dataset(task, subset, split), self._job.dtype)
                    data["top_ranked"] = {query: list(ids) for query, ids in found.items()}

    def _file(self, subset: str, split: str) -> str:
        return self._job.file_name(self._task.metadata.name, subset, split)


def _metrics(row: dict[str, Any], scores: PerQuery | None, where: str) -> dict[str, float]:
    """Metrics of a subset: this package's for retrieval, else every number that mteb gives."""
    if scores is None:
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        return {name: float(value) for name, value in numbers.items() if not isinstance(value, bool)}
    means = scores.mean()
    theirs = row.get("ndcg_at_10")
    if theirs is not None and abs(means["ndcg@10"] - theirs) > _TOLERANCE:
        logger.warning("%s: nDCG@10 is %.5f by mteb and %.5f here.", where, theirs, means["ndcg@10"])
    return {**means, MAIN: float(row[MAIN])}
