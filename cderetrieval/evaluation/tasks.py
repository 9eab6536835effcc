"""From names to what is evaluated: mteb tasks, benchmarks, BEIR folders, datasets of one's own.

A folder with the name of an mteb task (``scifact/``, or ``SciFact=any/folder``) is evaluated as that task: its
metadata and evaluator, its splits and conventions, without a network. Any other folder is a dataset of its own.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpora.beir_folder import read_beir
from ..corpora.dataset import Dataset
from ..errors import InputError, missing_dependency
from ..files import as_path
from .inject import inject

logger = logging.getLogger(__name__)


@dataclass
class TaskSubject:
    """An mteb task to evaluate.

    Attributes
    ----------
    task
        The task, without its data; or with data that the caller has put there.
    folder
        Where its data comes from; None: from the hub.
    splits
        Which splits; None: those of the task.
    group
        The aggregate it belongs to (CQADupstack), of whose mean tables have one column.
    """

    task: Any
    folder: Path | None = None
    splits: Sequence[str] | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        """What result tables call it."""
        return str(self.task.metadata.name)

    def load(self, directory: Path) -> Any:
        """The task with its data.

        Parameters
        ----------
        directory
            For files that must stay as long as the task is used.

        Raises
        ------
        InputError
            If the hub does not give the data; the message says which file to put where.
        """
        if self.task.data_loaded:
            return self.task
        if self.folder is not None:
            inject(self.task, self.folder, directory, self.splits)
            _compare_size(self.task)
            return self.task
        if self.splits is not None:
            self.task.metadata = self.task.metadata.model_copy(update={"eval_splits": list(self.splits)})
        try:
            self.task.load_data()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(_unreachable(self.task, error)) from error
        return self.task


@dataclass
class GroupedDataset:
    """A dataset of one's own that is part of a group, of whose mean tables have one column."""

    dataset: Dataset
    group: str | None = None

    @property
    def name(self) -> str:
        """What result tables call it."""
        return self.dataset.name


Subject = TaskSubject | GroupedDataset


def tasks_named(names: Iterable[str], splits: Sequence[str] | None = None) -> list[TaskSubject]:
    """mteb tasks by name, upper and lower case being the same; aggregates are expanded.

    Raises
    ------
    InputError
        If a name is unknown (the nearest are offered), or the task is not one of text.
    """
    mteb = _mteb()
    known = {task.metadata.name: task for task in mteb.get_tasks(exclude_superseded=False)}
    lower = {name.lower(): name for name in known}
    found: list[TaskSubject] = []
    for name in names:
        if name.lower() not in lower:
            raise InputError(f"no task is called {name!r}{nearest(name, known)}. A folder of yours goes to --data.")
        found += _expand(mteb.get_task(lower[name.lower()]), splits)
    return found


def benchmark_tasks(name: str, splits: Sequence[str] | None = None) -> list[TaskSubject]:
    """All tasks of an mteb benchmark, such as ``"MTEB(eng, v1)"`` or ``"BEIR"``."""
    mteb = _mteb()
    known = {one: benchmark.name for benchmark in mteb.get_benchmarks() for one in _names(benchmark)}
    if name not in known:
        same = [one for one in known if one.lower() == name.lower()]
        if not same:
            raise InputError(f"no benchmark is called {name!r}{nearest(name, known)}.")
        name = same[0]
    return [subject for task in mteb.get_benchmark(known[name]).tasks for subject in _expand(task, splits)]


def folder_subjects(folders: Iterable[str | Path], split: str | None = None) -> list[Subject]:
    """BEIR folders, each ``FOLDER`` or ``NAME=FOLDER``; a folder of BEIR folders (CQADupstack) is a group.

    Raises
    ------
    InputError
        If a folder does not exist or is none.
    """
    found: list[Subject] = []
    for given in folders:
        name, folder = _named_folder(given)
        if not folder.is_dir():
            raise InputError(f"--data {str(given)!r}: there is no folder {folder}.")
        parts = sorted(child for child in folder.iterdir() if (child / "qrels").is_dir())
        if (folder / "qrels").is_dir() or not parts:
            found.append(_folder_subject(name, folder, split))
        else:
            found += [_folder_subject(f"{name}-{part.name}", part, split, group=name) for part in parts]
    return found


def holds_dataset(folder: Path) -> bool:
    """Whether a folder, or one inside it, holds judgements of the BEIR layout."""
    return any(True for pattern in ("qrels", "*/qrels", "corpus.jsonl*") for _ in folder.glob(pattern))


def task_for(name: str) -> Any | None:
    """The mteb task of a folder's name: equal but for case and punctuation, and for a final "Retrieval"."""
    try:
        mteb = _mteb()
    except ImportError:
        return None
    key = _key(name)
    names = (task.metadata.name for task in mteb.get_tasks(task_types=["Retrieval"], exclude_superseded=False))
    same = [one for one in names if _key(one) in (key, f"{key}retrieval")]
    return mteb.get_task(same[0]) if same else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Offer the names that are most like one that is unknown.

    >>> nearest("SciFct", ["SciFact", "SCIDOCS", "NQ"])
    '; the nearest are SciFact, SCIDOCS'
    """
    by_key = {_key(one): one for one in known}
    close = difflib.get_close_matches(_key(name), by_key, n=4, cutoff=0.4)
    return f"; the nearest are {', '.join(by_key[one] for one in close)}" if close else ""


def _folder_subject(name: str, folder: Path, split: str | None, group: str | None = None) -> Subject:
    task = task_for(name)
    if task is not None and len(task.hf_subsets) == 1:
        logger.info("%s is evaluated as mteb's task %s.", folder, task.metadata.name)
        return TaskSubject(task, folder, None if split is None else [split], group)
    dataset = read_beir(folder, split or "test")
    named = Dataset(name, dataset.corpus, dataset.queries, dataset.qrels, dataset.split, dataset.revision)
    return GroupedDataset(named, group)


def _named_folder(given: str | Path) -> tuple[str, Path]:
    text = str(given)
    name, separator, rest = text.partition("=")
    if separator and not as_path(text).exists():
        return name, as_path(rest)
    folder = as_path(text)
    return folder.resolve().name, folder


def _expand(task: Any, splits: Sequence[str] | None) -> list[TaskSubject]:
    parts = getattr(task.metadata, "tasks", None)
    if parts:
        name = task.metadata.name
        return [TaskSubject(part, None, splits, name) for part in task.metadata.tasks]
    if task.metadata.modalities != ["text"]:
        raise InputError(
            f"{task.metadata.name} is a task of {', '.join(task.metadata.modalities)}; models here read text."
        )
    return [TaskSubject(task, None, splits)]


def _names(benchmark: Any) -> list[str]:
    return [benchmark.name, *(benchmark.aliases or ())]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _mteb() -> Any:
    try:
        import mteb
    except ImportError as error:
        raise missing_dependency("mteb", "eval") from error
    return mteb


def _compare_size(task: Any) -> None:
    """Warn where a folder has another number of documents than the official data: scores are then not comparable."""
    statistics = task.metadata.descriptive_stats or {}
    for split, data in task.dataset[task.hf_subsets[0]].items():
        official = (statistics.get(split) or {}).get("num_samples")
        found = len(data["corpus"]) + len(data["queries"])
        if official is not None and official != found:
            logger.warning(
                "%s (%s): %d documents and queries, mteb counts %d; scores are not comparable with published ones.",
                task.metadata.name,
                split,
                found,
                official,
            )


def _unreachable(task: Any, error: Exception) -> str:
    name = task.metadata.name
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    from .mteb_context import is_retrieval

    if is_retrieval(task):
        split = task.eval_splits[0]
        remedy = (
            f"Without a network, put corpus.jsonl, queries.jsonl and qrels/{split}.tsv into a folder and pass --data "
            f"{name}=FOLDER."
        )
    else:
        remedy = "Without a network it must be in the Hugging Face cache (HF_HOME): run once where there is one."
    return f"the data of {name} ({task.metadata.dataset['path']}) could not be loaded: {first[:200]}. {remedy}"
