"""Evaluate models on tasks, each in its contexts, and keep what was found.

    for model: for context and seed: for task:    finished already? -> load -> evaluate -> write -> unload

Retrieval datasets of one's own are scored here (`runner`), mteb's tasks by mteb (`mteb_run`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..context.spec import NULL, OWN, RANDOM, ContextLike
from ..errors import InputError
from ..files import as_path
from ..fusion.model import AnyModel, load_model
from ..models.locate import ALIASES, HYBRID, holds_model, short_name
from ..runtime import pick_device
from .cell import MAIN, Cell
from .folder import NoFolder, ResultsFolder, safe
from .mteb_run import check_tasks, task_cells
from .rerank import PAPER_DEPTH, FirstStage
from .results import Results, write_tables
from .runner import Evaluation, Job, dataset_cell
from .tasks import GroupedDataset, Subject, subjects_of
from .variants import ContextVariant, variants_for

logger = logging.getLogger(__name__)

CONTEXTS = (NULL, RANDOM, OWN)


def evaluate(
    model: str | Path | AnyModel | Sequence[Any] | Mapping[str, Any],
    tasks: Any,
    *,
    context: ContextLike | Sequence[ContextLike] = "own",
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
    stage = None if first_stage is None else first_stage_of(first_stage, depth, device, dtype)
    contexts = _contexts(context)
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    cells = run_all(
        models,
        subjects_of(tasks, split),
        lambda one: variants_for(one, contexts, context_size, list(numbers)),
        out=out,
        stage=stage,
        dtype=dtype,
        about={"device": str(pick_device(device)), "seeds": list(numbers), "context_size": context_size},
        show_progress=show_progress,
    )
    return Results(list(cells), None if out is None else as_path(out))


def _contexts(context: Any) -> list[ContextLike]:
    """One context or several; a list of strings that are neither words nor files is the texts of one context."""
    if not isinstance(context, list | tuple):
        return [context]
    is_texts = all(isinstance(one, str) and one not in CONTEXTS and not as_path(one[:200]).exists() for one in context)
    return [context] if is_texts else list(context)


class Entrant(NamedTuple):
    """A model that is evaluated: its name in tables, ``organisation/name`` in mteb's files, and itself."""

    name: str
    full_name: str
    model: AnyModel


def entrants(model: Any, device: str | None, dtype: str) -> Iterator[Entrant]:
    """Models with their names, each loaded when its turn comes.

    `model` is a model, its name, or ``NAME=directory`` to call it something else; a list of these; or a dictionary.
    """
    if isinstance(model, Mapping):
        named = list(model.items())
    else:
        named = [_named_model(one) for one in (model if isinstance(model, list | tuple) else [model])]
    names = [name for name, _ in named]
    double = [name for name in names if names.count(name) > 1]
    if double:  # their results would be taken for one model's
        raise InputError(f"two models are called {double[0]!r}; name them with NAME=DIRECTORY, or pass a dictionary.")
    for name, one in named:
        if not isinstance(one, str | Path):
            yield Entrant(name, f"local/{name}", one)
            continue
        given = str(one)
        is_repository = given.count("/") == 1 and not holds_model(as_path(given)) and not given.startswith(HYBRID)
        full = given if is_repository else f"local/{safe(name)}"
        yield Entrant(name, ALIASES.get(given, full), load_model(one, device=device, dtype=dtype))


def _named_model(model: Any) -> tuple[str, Any]:
    if not isinstance(model, str | Path):
        return type(model).__name__, model
    name, separator, rest = str(model).partition("=")
    if separator and not as_path(model).exists():
        return name, rest
    return short_name(model), model


def first_stage_of(model: Any, depth: int, device: str | None, dtype: str) -> FirstStage:
    """The first stage of a truncated evaluation, from a model or its name."""
    entrant = next(entrants(model, device, dtype))
    return FirstStage(entrant.name, entrant.model, depth)


def run_all(
    entrants: Iterable[Entrant],
    subjects: Sequence[Subject],
    variants: Callable[[AnyModel], Sequence[ContextVariant]],
    *,
    out: str | Path | None = None,
    stage: FirstStage | None = None,
    dtype: str = "auto",
    about: Mapping[str, Any] | None = None,
    on_done: Callable[[Evaluation], None] | None = None,
    show_progress: bool = True,
) -> Iterator[Cell]:
    """Evaluate every model in every variant on every subject, one after the other."""
    results = None if out is None else ResultsFolder(out, {"dtype": dtype, **(about or {})})
    for name, full_name, model in entrants:
        check_tasks(model, subjects)
        for variant in variants(model):
            folder = NoFolder() if results is None else results.model(name, model.fingerprint, variant, dtype)
            job = Job(name, full_name, model, variant, dtype, folder, stage, on_done, show_progress)
            for subject in subjects:
                for cell in _cells(job, subject):
                    logger.info("%s on %s: %s %.5f", cell.system, cell.column, MAIN, cell.metrics[MAIN])
                    yield cell
                if results is not None:
                    write_tables(results)


def _cells(job: Job, subject: Subject) -> Iterator[Cell]:
    with tempfile.TemporaryDirectory(prefix="cderetrieval-") as directory:
        if isinstance(subject, GroupedDataset):
            yield dataset_cell(job, subject, Path(directory))
        else:
            yield from task_cells(job, subject, Path(directory))
