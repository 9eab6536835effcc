"""Evaluate models on tasks, each in its contexts, and keep what was found.

    for model: for context and seed: for task:    finished already? -> load -> evaluate -> write -> unload

Retrieval datasets of one's own are scored here; mteb's tasks by mteb, through the adapter in `mteb_model`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..corpora.dataset import Dataset
from ..embedding import ContextSpec
from ..errors import CDEError, InputError
from ..files import as_path
from ..fusion.model import AnyModel, load_model
from ..models.locate import ALIASES, HYBRID, holds_model, looks_like_path, short_name
from ..runtime import pick_device
from .candidates import PAPER_DEPTH
from .folder import ResultsFolder, safe
from .job import Entrant, FirstStage, Job, OnDone, dataset_cell
from .mteb_run import check_tasks, task_cells
from .results import MAIN, Cell, Results
from .setting import NAMES, ContextSetting, settings_for
from .tasks import GroupedDataset, Subject, TaskSubject, benchmark_tasks, folder_subjects, holds_dataset, tasks_named

logger = logging.getLogger(__name__)


def evaluate(
    model: str | Path | AnyModel | Sequence[Any] | Mapping[str, Any],
    tasks: Any,
    *,
    context: ContextSpec | Sequence[ContextSpec] = "own",
    context_size: int | None = None,
    seeds: int | Sequence[int] = 1,
    out: str | Path | None = None,
    split: str | None = None,
    first_stage: str | Path | AnyModel | None = None,
    depth: int = PAPER_DEPTH,
    device: str | None = None,
    dtype: str = "auto",
    show_progress: bool = True,
) -> Results:
    """Evaluate models on tasks.

    Parameters
    ----------
    model
        A model of any family or its name (``"cde-minilm"``, ``"bm25"``, ``"hybrid:cde-minilm+bm25"``, a directory); a
        list of them; or a dictionary of what to call them to models.
    tasks
        One or a list of: names of mteb tasks or benchmarks, BEIR folders, datasets, mteb task objects.
    context
        One or a list of: ``"own"``, ``"random"``, ``"null"``, a file, a :class:`~cderetrieval.context.context.Context`.
        Models that take no context are evaluated once, without.
    context_size
        Number of context documents; None: what the model was made for.
    seeds
        How many samples of each context, or their seeds.
    out
        Folder to keep results in; finished work in it is not done again.
    split
        Which split; None: those of the task, ``"test"`` for other datasets.
    first_stage
        A plain model whose best `depth` documents of each query are reranked: the truncated BEIR of the CDE paper. Not
        comparable with full retrieval.
    depth
        Number of candidates of each query.
    device, dtype
        Where and in which number format models compute.
    show_progress
        Show progress bars on a terminal.

    Returns
    -------
    Results
        Of this run; `Results.load(out)` gives all that a folder holds.

    Raises
    ------
    InputError
        If a task, benchmark, folder or split does not exist.
    MismatchError
        If `out` holds results of another model or context under the same name.

    Examples
    --------
    >>> from cderetrieval.corpora.dataset import make_dataset
    >>> from cderetrieval.testing import tiny_model
    >>> corpus = [{"id": "a", "title": "", "text": "owls"}, {"id": "b", "title": "", "text": "bees"}]
    >>> toy = make_dataset("toy", corpus, {"q": "bees"}, {"q": {"b": 1}})
    >>> evaluate({"tiny": tiny_model()}, toy, context=["own", "null"]).table()["toy"].tolist()
    [100.0, 100.0]
    """
    models = list(entrants(model, device, dtype))
    stage = None if first_stage is None else FirstStage(next(entrants(first_stage, device, dtype)), depth)
    specs = _contexts(context)
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    subjects = subjects_of(tasks, split)
    cells = run_all(
        models,
        subjects,
        lambda one: settings_for(one, specs, context_size, list(numbers)),
        out=out,
        stage=stage,
        dtype=dtype,
        about={"device": str(pick_device(device)), "seeds": list(numbers), "context_size": context_size},
        show_progress=show_progress,
    )
    return Results(list(cells), None if out is None else as_path(out))


def subjects_of(tasks: Any, split: str | None = None) -> list[Subject]:
    """Whatever names a task, as subjects."""
    given = tasks if isinstance(tasks, list | tuple) else [tasks]
    found: list[Subject] = []
    for one in given:
        if isinstance(one, Dataset):
            found.append(GroupedDataset(one))
        elif isinstance(one, TaskSubject | GroupedDataset):
            found.append(one)
        elif isinstance(one, Path) or (isinstance(one, str) and _means_folder(one)):
            found += folder_subjects([one], split)
        elif isinstance(one, str):
            found += _named(one, split)
        elif hasattr(one, "metadata"):
            found.append(TaskSubject(one, None, None if split is None else [split]))
        else:
            raise InputError(f"tasks: {type(one).__name__} is no name, folder, Dataset or mteb task.")
    if not found:
        raise InputError("tasks is empty: name a task, a benchmark or a folder.")
    return found


def _means_folder(name: str) -> bool:
    """Whether a name is that of a folder, and not of a task; a folder of a task's name counts if it holds data."""
    folder = as_path(name)
    return "=" in name or (folder.is_dir() and (looks_like_path(name) or holds_dataset(folder) or not _is_task(name)))


def _is_task(name: str) -> bool:
    try:
        return bool(_named(name, None))
    except CDEError:
        return False


def _named(name: str, split: str | None) -> list[TaskSubject]:
    splits = None if split is None else [split]
    try:
        return tasks_named([name], splits)
    except InputError as unknown:
        try:
            return benchmark_tasks(name, splits)
        except InputError:
            raise unknown from None


def _contexts(context: Any) -> list[ContextSpec]:
    """One context or several; a list of strings that are neither words nor files is the texts of one context."""
    if not isinstance(context, list | tuple):
        return [context]
    is_texts = all(isinstance(one, str) and one not in NAMES and not as_path(one[:200]).exists() for one in context)
    return [context] if is_texts else list(context)


def entrants(model: Any, device: str | None, dtype: str) -> Iterator[Entrant]:
    """Models with their names, each loaded when its turn comes.

    Parameters
    ----------
    model
        A model, its name, or ``NAME=directory`` to call it something else; a list of these; or a dictionary of names.
    device, dtype
        Where and in which number format models compute.

    Raises
    ------
    InputError
        If two models have the same name: their results would be taken for one model's.
    """
    named = list(model.items()) if isinstance(model, Mapping) else [_named_model(one) for one in _listed(model)]
    names = [name for name, _ in named]
    double = [name for name in names if names.count(name) > 1]
    if double:
        raise InputError(f"two models are called {double[0]!r}; name them with NAME=DIRECTORY, or pass a dictionary.")
    for name, one in named:
        if not isinstance(one, str | Path):
            yield Entrant(name, one, f"local/{name}")
            continue
        given = str(one)
        is_repository = given.count("/") == 1 and not holds_model(as_path(given)) and not given.startswith(HYBRID)
        full = given if is_repository else f"local/{safe(name)}"
        yield Entrant(name, load_model(one, device=device, dtype=dtype), ALIASES.get(given, full))


def _named_model(model: Any) -> tuple[str, Any]:
    if not isinstance(model, str | Path):
        return type(model).__name__, model
    name, separator, rest = str(model).partition("=")
    if separator and not as_path(model).exists():
        return name, rest
    return short_name(model), model


def _listed(model: Any) -> Iterable[Any]:
    return model if isinstance(model, list | tuple) else [model]


def run_all(
    entrants: Iterable[Entrant],
    subjects: Sequence[Subject],
    settings: Callable[[AnyModel], Sequence[ContextSetting]],
    *,
    out: str | Path | None = None,
    stage: FirstStage | None = None,
    dtype: str = "auto",
    about: Mapping[str, Any] | None = None,
    on_done: OnDone | None = None,
    show_progress: bool = True,
) -> Iterator[Cell]:
    """Every model in every setting on every subject, one cell after the other."""
    folder = None if out is None else ResultsFolder(out, {"dtype": dtype, **(about or {})})
    for entrant in entrants:
        check_tasks(entrant.model, subjects)
        for setting in settings(entrant.model):
            job = Job(entrant, setting, dtype, folder=folder, stage=stage, on_done=on_done, show_progress=show_progress)
            for subject in subjects:
                for cell in _cells(job, subject):
                    logger.info("%s on %s: %s %.5f", cell.system, cell.column, MAIN, cell.metrics[MAIN])
                    yield cell
                if folder is not None:
                    folder.write_tables()


def _cells(job: Job, subject: Subject) -> Iterator[Cell]:
    with tempfile.TemporaryDirectory(prefix="cderetrieval-") as directory:
        if isinstance(subject, GroupedDataset):
            yield dataset_cell(job, subject, Path(directory))
        else:
            yield from task_cells(job, subject, Path(directory))
