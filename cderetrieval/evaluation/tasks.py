"""From names to what is evaluated: mteb tasks, benchmarks, BEIR folders, datasets of one's own.

A folder with the name of an mteb task (``scifact/``, or ``SciFact=any/folder``) is evaluated as that task: its
metadata and evaluator, its splits and conventions, without a network. Any other folder is a dataset of its own;
of one with ``spans.jsonl`` the passages are scored too.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..corpora.beir_folder import read_beir
from ..corpora.dataset import Corpus, Dataset, make_dataset
from ..corpora.readers import plain_or_gz
from ..corpora.spans import Spans, read_spans
from ..errors import CDEError, InputError, needs
from ..files import as_path
from ..models.locate import looks_like_path
from .mteb_data import is_retrieval, use_folder

logger = logging.getLogger(__name__)

# What says that a folder holds data.
HOLDS = ("qrels", "*/qrels", "corpus.jsonl*", "spans.jsonl*")


@dataclass
class TaskSubject:
    """An mteb task to evaluate."""

    task: Any
    folder: Path | None = None  # with its data; None: from the hub
    split: str | None = None  # in place of the task's own
    group: str | None = None  # the aggregate (CQADupstack) that is one column of tables

    @property
    def name(self) -> str:
        """Name in tables."""
        return str(self.task.metadata.name)

    def load(self, directory: Path) -> Any:
        """The task with its data; `directory` is for files that must stay as long as the task is used."""
        if self.task.data_loaded:
            return self.task
        if self.folder is not None:
            use_folder(self.task, self.folder, directory, self.split)
            _compare_size(self.task)
            return self.task
        if self.split is not None:
            self.task.metadata = self.task.metadata.model_copy(update={"eval_splits": [self.split]})
        try:
            self.task.load_data()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(_unreachable(self.task, error)) from error
        return self.task


@dataclass
class GroupedDataset:
    """A dataset of one's own, and the group whose mean is one column of tables."""

    dataset: Dataset
    group: str | None = None
    spans: Spans | None = None  # where in the documents each query is answered

    def untitled(self) -> GroupedDataset:
        """The same without the titles of documents."""
        one = self.dataset
        revision = hashlib.sha256(f"{one.revision} untitled".encode()).hexdigest()[:16]
        corpus = Untitled(one.corpus)
        return replace(self, dataset=replace(one, name=f"{one.name}-untitled", corpus=corpus, revision=revision))


@dataclass
class Untitled:
    """A corpus without titles."""

    corpus: Corpus

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Start a new pass."""
        return ({**document, "title": ""} for document in self.corpus)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.corpus)


Subject = TaskSubject | GroupedDataset


def subjects_of(tasks: Any, split: str | None = None) -> list[Subject]:
    """Subjects from a name, folder, dataset or mteb task, or from a list of them."""
    found: list[Subject] = []
    for one in tasks if isinstance(tasks, list | tuple) else [tasks]:
        if isinstance(one, Dataset):
            found.append(GroupedDataset(one))
        elif isinstance(one, TaskSubject | GroupedDataset):
            found.append(one)
        elif isinstance(one, Path) or (isinstance(one, str) and _means_folder(one)):
            found += folder_subjects([one], split)
        elif isinstance(one, str):
            found += named_subjects(one, split)
        elif hasattr(one, "metadata"):
            found.append(TaskSubject(one, None, split))
        else:
            raise InputError(f"tasks: {type(one).__name__} is not a name, folder, Dataset or mteb task.")
    if not found:
        raise InputError("tasks is empty: name a task, a benchmark or a folder.")
    return found


def untitled(subject: Subject) -> Subject:
    """A dataset without the titles of its documents."""
    if isinstance(subject, TaskSubject):
        raise InputError(f"{subject.name} is an mteb task, in which titles are read: leave out titles=False.")
    return subject.untitled()


def _means_folder(name: str) -> bool:
    """Whether a name is that of a folder; a folder with a task's name counts only if it holds data."""
    folder = as_path(name)
    if "=" in name or not folder.is_dir():
        return "=" in name
    if looks_like_path(name) or any(True for one in HOLDS for _ in folder.glob(one)):
        return True
    try:
        return not named_subjects(name)
    except CDEError:
        return True


def named_subjects(name: str, split: str | None = None) -> list[TaskSubject]:
    """The task or the tasks of the benchmark of a name."""
    try:
        return tasks_named([name], split)
    except InputError as unknown:
        try:
            return benchmark_tasks(name, split)
        except InputError:
            raise unknown from None


def tasks_named(names: Iterable[str], split: str | None = None) -> list[TaskSubject]:
    """mteb tasks by name in upper or lower case; aggregates are expanded, and unknown names get suggestions."""
    mteb = _mteb()
    known = _task_names()
    lower = {name.lower(): name for name in known}
    found: list[TaskSubject] = []
    for name in names:
        if name.lower() not in lower:
            raise InputError(f"no task is called {name!r}{nearest(name, known)}. Pass a folder with --data.")
        found += _expand(mteb.get_task(lower[name.lower()]), split)
    return found


def _task_names(*types: str) -> list[str]:
    """Names of mteb's public tasks, of all types or some. They are not made: that seeds torch for each, two seconds."""
    from mteb.filter_tasks import filter_tasks
    from mteb.get_tasks import TASK_LIST

    found = filter_tasks(TASK_LIST, task_types=types or None, exclude_private=True, exclude_beta=True)
    return [task.metadata.name for task in found]


def benchmark_tasks(name: str, split: str | None = None) -> list[TaskSubject]:
    """All tasks of an mteb benchmark, such as ``"MTEB(eng, v1)"`` or ``"BEIR"``."""
    mteb = _mteb()
    benchmarks = mteb.get_benchmarks()
    known = {alias: one.name for one in benchmarks for alias in (one.name, *(one.aliases or ()))}
    same = [one for one in known if one == name] or [one for one in known if one.lower() == name.lower()]
    if not same:
        raise InputError(f"no benchmark is called {name!r}{nearest(name, known)}.")
    return [subject for task in mteb.get_benchmark(known[same[0]]).tasks for subject in _expand(task, split)]


def folder_subjects(folders: Iterable[str | Path], split: str | None = None) -> list[Subject]:
    """BEIR folders, each ``FOLDER`` or ``NAME=FOLDER``; a folder of BEIR folders (CQADupstack) is a group."""
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


def task_for(name: str) -> Any | None:
    """The mteb task of a folder's name: equal but for case and punctuation, and for a final "Retrieval"."""
    try:
        mteb = _mteb()
    except ImportError:
        return None
    key = _key(name)
    same = [one for one in _task_names("Retrieval") if _key(one) in (key, f"{key}retrieval")]
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
    if plain_or_gz(folder / "spans.jsonl").exists():
        return _span_subject(name, folder, split, group)
    task = task_for(name)
    if task is not None and len(task.hf_subsets) == 1:
        logger.info("%s is evaluated as mteb's task %s.", folder, task.metadata.name)
        return TaskSubject(task, folder, split, group)
    dataset = read_beir(folder, split or "test")
    named = Dataset(name, dataset.corpus, dataset.queries, dataset.qrels, dataset.split, dataset.revision)
    return GroupedDataset(named, group)


def _span_subject(name: str, folder: Path, split: str | None, group: str | None) -> GroupedDataset:
    """Whole documents with gold spans; a document with one is relevant."""
    found = read_spans(folder, split)
    judged = {query: {document: 1 for document, _, _ in rows} for query, rows in found.spans.items()}
    dataset = make_dataset(name, found.documents, found.queries, judged, split or "all", keep_empty=True)
    spans = json.dumps(sorted((query, sorted(rows)) for query, rows in found.spans.items()))
    revision = hashlib.sha256(f"{dataset.revision} {spans}".encode()).hexdigest()[:16]
    return GroupedDataset(replace(dataset, revision=revision), group, found.spans)


def _named_folder(given: str | Path) -> tuple[str, Path]:
    text = str(given)
    name, separator, rest = text.partition("=")
    if separator and not as_path(text).exists():
        return name, as_path(rest)
    folder = as_path(text)
    return folder.resolve().name, folder


def _expand(task: Any, split: str | None) -> list[TaskSubject]:
    name = task.metadata.name
    if parts := getattr(task.metadata, "tasks", None):
        return [TaskSubject(part, None, split, name) for part in parts]
    if task.metadata.modalities != ["text"]:
        raise InputError(f"{name} is a task of {', '.join(task.metadata.modalities)}; models here read text.")
    return [TaskSubject(task, None, split)]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _mteb() -> Any:
    with needs("mteb", "eval"):
        import mteb
    return mteb


def _compare_size(task: Any) -> None:
    """Warn where a folder has another number of documents than the official data: scores are then not comparable."""
    statistics = task.metadata.descriptive_stats or {}
    for split, data in task.dataset[task.hf_subsets[0]].items():
        official = (statistics.get(split) or {}).get("num_samples")
        found = len(data["corpus"]) + len(data["queries"])
        if official is not None and official != found:
            where = f"{task.metadata.name} ({split})"
            counts = f"{found} documents and queries, mteb counts {official}"
            logger.warning("%s: %s; scores are not comparable with published ones.", where, counts)


def _unreachable(task: Any, error: Exception) -> str:
    name = task.metadata.name
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    remedy = "Without a network it must be in the Hugging Face cache (HF_HOME): run once where there is one."
    if is_retrieval(task):
        remedy = (
            f"Without a network, put corpus.jsonl, queries.jsonl and qrels/{task.eval_splits[0]}.tsv into a folder and "
            f"pass --data {name}=FOLDER."
        )
    return f"the data of {name} ({task.metadata.dataset['path']}) could not be loaded: {reason[:200]}. {remedy}"
