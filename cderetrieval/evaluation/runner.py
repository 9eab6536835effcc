"""Evaluate one model in one context on datasets of one's own and on mteb tasks, and keep what was found.

Datasets are indexed and searched by the Retriever that users run. Tasks are evaluated by mteb, which saves after each
subset and resumes there. mteb does not keep the metrics and hits of single queries, so these are written before it
scores a subset; a score without them is computed again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..context.spec import ContextLike
from ..corpora.dataset import Dataset
from ..corpora.spans import Spans
from ..errors import InputError
from ..retrieval.names import AnyModel
from .candidates import Candidates, CandidateStage, rerank
from .cell import MAIN, Cell, cell_name
from .metrics import PerQuery, Run, Scorer
from .mteb_data import is_retrieval, split_dataset
from .mteb_model import MTEBModel
from .results_folder import NoFolder
from .search import NO_VECTORS, audit, cut_of, index_corpus, model_kind, search_blocks, search_passages, texts_of
from .spans import K_VALUES as SPAN_RANKS
from .spans import passage_metrics
from .tasks import GroupedDataset, Subject, TaskSubject
from .variants import ContextVariant, as_variant

logger = logging.getLogger(__name__)

# mteb rounds to five digits.
_TOLERANCE = 2e-5


class Evaluation(NamedTuple):
    """Scores of one model in one context on one dataset, the best hits of each query, and what the context is of."""

    scores: PerQuery
    run: Run
    audit: dict[str, Any]


def evaluate_retrieval(
    model: AnyModel,
    dataset: Dataset,
    *,
    context: ContextLike | ContextVariant = "own",
    context_size: int | None = None,
    dtype: str = "auto",
    seed: int = 0,
    candidates: Candidates | None = None,
    spans: Spans | None = None,
    directory: str | Path | None = None,
    show_progress: bool = True,
) -> Evaluation:
    """Index a dataset's corpus, search its queries or rerank their candidates, and score the answers.

    With `spans`, also the passages, by the places in the documents that answer each query.
    """
    variant = as_variant(model, context, context_size, seed)
    if spans is not None and candidates is not None:
        raise InputError(f"{dataset.name} has spans, and candidates are documents: leave out the first stage.")
    scorer = Scorer(dataset.qrels)
    with contextlib.ExitStack() as stack:
        if candidates is None:
            retriever = index_corpus(model, variant, dataset.corpus, dtype, directory, show_progress)
            stack.callback(retriever.close)
            blocks, made = search_blocks(retriever, dataset.queries), retriever.context
            cut = cut_of(retriever, variant)
        else:
            cut = {}
            blocks, made = rerank(model, variant, dataset.corpus, dataset.queries, candidates, dtype)
        for _ in scorer.watch(blocks):
            pass
        scores = scorer.scores()
        if spans is not None:
            scores = _with_spans(scores, dataset, spans, search_passages(retriever, dataset.queries, max(SPAN_RANKS)))
    found = audit(made, len(dataset.corpus), texts_of(dataset.corpus), dataset.queries.values())
    return Evaluation(scores, scorer.run, {**found, **cut})


def _with_spans(scores: PerQuery, dataset: Dataset, spans: Spans, run: Any) -> PerQuery:
    """Scores of documents, and ``span_ndcg@10`` and the like of passages; queries stay in their order."""
    found = passage_metrics(run, spans, {row["id"]: row["text"] for row in dataset.corpus}, SPAN_RANKS)
    rows = [found.query_ids.index(query) for query in scores.query_ids]
    values = {f"span_{metric}": column[rows] for metric, column in found.values.items()}
    return PerQuery(scores.query_ids, {**scores.values, **values}, scores.missing)


@dataclass
class Evaluator:
    """One model in one context, evaluated on one subject after the other."""

    name: str  # in tables and folders
    full_name: str  # "organisation/name" in mteb's files
    model: AnyModel
    variant: ContextVariant
    dtype: str
    folder: NoFolder
    stage: CandidateStage | None
    show_progress: bool

    @property
    def candidates(self) -> str | None:
        """What chose the candidates, where they are reranked."""
        return None if self.stage is None else self.stage.name

    def file_name(self, dataset: str, subset: str, split: str) -> str:
        """Name of a cell's files."""
        return cell_name(dataset, subset, split, self.candidates)

    def keep(self, **values: Any) -> Cell:
        """Make a cell of this model and context, and write it."""
        variant = self.variant
        cell = Cell(self.name, variant.name, variant.seed, candidates=self.candidates, **values)
        self.folder.write(cell.file_name, cell)
        return cell


def evaluate_subject(evaluator: Evaluator, subject: Subject, directory: Path) -> list[Cell]:
    """Evaluate a dataset or a task, or find it finished; `directory` is for its data meanwhile."""
    if isinstance(subject, GroupedDataset):
        return [_dataset_cell(evaluator, subject, directory)]
    return _task_cells(evaluator, subject, directory)


def _dataset_cell(evaluator: Evaluator, subject: GroupedDataset, directory: Path) -> Cell:
    dataset = subject.dataset
    name = evaluator.file_name(dataset.name, "default", dataset.split)
    if (done := evaluator.folder.finished(name, dataset.revision, evaluator.candidates)) is not None:
        return done
    started = time.perf_counter()
    evaluation = evaluate_retrieval(
        evaluator.model,
        dataset,
        context=evaluator.variant,
        dtype=evaluator.dtype,
        spans=subject.spans,
        candidates=None if evaluator.stage is None else evaluator.stage.candidates(dataset, evaluator.dtype),
        # A corpus that streams from a file must not end up in memory.
        directory=None if isinstance(dataset.corpus, tuple) else directory / "index",
        show_progress=evaluator.show_progress,
    )
    seconds = round(time.perf_counter() - started, 2)
    evaluator.folder.write_queries(name, evaluation.scores, evaluation.run)
    means = evaluation.scores.mean()
    return evaluator.keep(
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


def subjects_for(variant: ContextVariant, subjects: Iterable[Subject]) -> Iterator[Subject]:
    """What a variant is evaluated on: where it cuts documents, only what has some."""
    for subject in subjects:
        if variant.passages is None or isinstance(subject, GroupedDataset) or is_retrieval(subject.task):
            yield subject
        else:
            logger.warning("%s is left out with passages: it has no documents to cut.", subject.name)


def _task_cells(evaluator: Evaluator, subject: TaskSubject, directory: Path) -> list[Cell]:
    """A cell for each subset and split."""
    task = subject.task
    done = None if subject.folder is not None else _finished(evaluator, task)
    if done is None:
        was_loaded = task.data_loaded
        task = subject.load(directory)
        # The revision of a folder is known only after it was read.
        done = _finished(evaluator, task)
        if done is None:
            done = _TaskRun(evaluator, subject, task, directory).cells()
        if not was_loaded:
            task.unload_data()
    return done


def _finished(evaluator: Evaluator, task: Any) -> list[Cell] | None:
    """All cells of a task from an earlier run; None where one is missing."""
    revision = str(task.metadata.dataset["revision"])
    found = []
    for split in task.eval_splits:
        for subset in task.hf_subsets:
            name = evaluator.file_name(task.metadata.name, subset, split)
            cell = evaluator.folder.finished(name, revision, evaluator.candidates)
            if cell is None:
                return None
            found.append(cell)
    return found


class _TaskRun:
    """A loaded task, evaluated by mteb."""

    def __init__(self, evaluator: Evaluator, subject: TaskSubject, task: Any, directory: Path) -> None:
        self._evaluator, self._task, self._group = evaluator, task, subject.group
        self._scores: dict[tuple[str, str], PerQuery] = {}
        self._model = MTEBModel(
            evaluator.model,
            evaluator.variant,
            name=evaluator.full_name,
            dtype=evaluator.dtype,
            directory=directory,
            candidates=evaluator.candidates,
            watch=self._watch,
            on_context=lambda subset, split, audit: evaluator.folder.write_audit(self._file(subset, split), audit),
        )

    def cells(self) -> list[Cell]:
        """Let mteb evaluate the task, and keep a cell for each subset and split."""
        import mteb

        evaluator, task = self._evaluator, self._task
        if evaluator.stage is not None:
            self._truncate()
        self._model.prepare(task)
        cache = None if evaluator.folder.mteb is None else mteb.ResultCache(evaluator.folder.mteb)
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
        evaluator, task, subset = self._evaluator, self._task, row["hf_subset"]
        name, file = task.metadata.name, self._file(subset, split)
        # A run that was killed has left its findings in the folder.
        scores = self._scores.get((subset, split))
        if scores is None and is_retrieval(task):
            scores = evaluator.folder.read_queries(file)
        audit = self._model.audits.get((name, subset, split))
        return evaluator.keep(
            dataset=name,
            subset=subset,
            split=split,
            revision=str(task.metadata.dataset["revision"]),
            type=task.metadata.type,
            group=self._group,
            metrics=_metrics(row, scores, f"{name} ({subset}, {split})"),
            audit=evaluator.folder.read_audit(file) if audit is None else audit,
            seconds=seconds,
            scores=scores,
        )

    def _watch(self, subset: str, split: str, blocks: Iterator[Run]) -> Iterator[Run]:
        qrels = self._task.dataset[subset][split]["relevant_docs"]
        scorer = Scorer(qrels, self._task.ignore_identical_ids)
        yield from scorer.watch(blocks)
        self._scores[subset, split] = scores = scorer.scores()
        self._evaluator.folder.write_queries(self._file(subset, split), scores, scorer.run)

    def _is_lost(self, cache: Any) -> bool:
        """Whether what mteb has kept is of no use: half a file, or scores whose queries are missing."""
        name = self._task.metadata.name
        try:
            stored = None if cache is None else cache.load_task_result(name, self._model.mteb_model_meta)
            rows = [(row, split) for split, found in (stored.scores if stored else {}).items() for row in found]
            if any(abs(row[MAIN]) > 1 for row, _ in rows):
                raise ValueError("a score is above 1")
        except Exception as error:
            logger.warning("mteb's result of %s is damaged and is computed again (%s).", name, error)
            return True
        if not is_retrieval(self._task):
            return False
        return any(
            self._evaluator.folder.read_queries(self._file(row["hf_subset"], split)) is None for row, split in rows
        )

    def _truncate(self) -> None:
        """Give each query its candidates."""
        stage, task = self._evaluator.stage, self._task
        assert stage is not None
        if not is_retrieval(task):
            raise InputError(
                f"{task.metadata.name} is not a retrieval task; only those can be truncated to candidates."
            )
        for split in task.eval_splits:
            for subset in task.hf_subsets:
                data = task.dataset[subset][split]
                if not data.get("top_ranked"):
                    found = stage.candidates(split_dataset(task, subset, split), self._evaluator.dtype)
                    data["top_ranked"] = {query: list(ids) for query, ids in found.items()}

    def _file(self, subset: str, split: str) -> str:
        return self._evaluator.file_name(self._task.metadata.name, subset, split)


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
