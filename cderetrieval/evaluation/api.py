"""Evaluate models on tasks, each in its contexts.

    for model: for context and seed: for task:    finished already? -> load -> evaluate -> write -> unload

Retrieval datasets of one's own are scored here (`runner`), mteb's tasks by mteb.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..context.spec import CENTRE, NULL, OWN, RANDOM, ContextLike
from ..errors import InputError
from ..files import as_path
from ..models.document_context import AUTO, DocumentContext, DocumentContextLike
from ..models.locate import ALIASES, HYBRID, holds_model, short_name
from ..passages import Passages, PassagesLike
from ..retrieval.names import AnyModel, load_model
from ..retrieval.rerank import Reranker, RerankLike
from ..runtime import pick_device
from .candidates import PAPER_DEPTH, CandidateStage
from .cell import MAIN, Cell
from .results import Results, write_tables
from .results_folder import NoFolder, ResultsFolder, safe
from .runner import Evaluator, check_tasks, evaluate_subject, subjects_for
from .tasks import subjects_of, untitled
from .variants import variants_for

logger = logging.getLogger(__name__)

CONTEXTS = (NULL, RANDOM, OWN)


def evaluate(
    model: str | Path | AnyModel | Sequence[Any] | Mapping[str, Any],
    tasks: Any,
    *,
    context: ContextLike | Sequence[ContextLike] = "own",
    context_size: int | None = None,
    seeds: int | Sequence[int] = 1,
    passages: PassagesLike | Sequence[PassagesLike] = None,
    document_context: DocumentContextLike | Sequence[DocumentContextLike] = AUTO,
    out: str | Path | None = None,
    split: str | None = None,
    titles: bool = True,
    first_stage: str | Path | AnyModel | None = None,
    depth: int = PAPER_DEPTH,
    rerank: RerankLike | None = None,
    rerank_depth: int = 50,
    device: str | None = None,
    dtype: str = "auto",
    runtime: str = "auto",
    precision: str = "float32",
    show_progress: bool = True,
    about: Mapping[str, Any] | None = None,
) -> Results:
    """Evaluate models on tasks.

    Parameters
    ----------
    model
        A model of any family or its name (``"cde-minilm"``, ``"bm25"``, ``"hybrid:cde-minilm+bm25"``, a directory); a
        list of them; or a dictionary of names to models.
    tasks
        One or a list of: names of mteb tasks or benchmarks, BEIR folders, datasets, mteb task objects.
    context
        One or a list of: ``"own"``, ``"random"``, ``"null"``, a file, a :class:`~cderetrieval.context.context.Context`.
        Models that take no context are evaluated once, without.
    context_size
        Number of context documents; None: what the model was made for.
    seeds
        Number of samples of each context, or their seeds.
    passages, document_context
        One or a list of: how long documents are cut, None (the default: not at all), ``"auto"`` or a number of word
        pieces; and what a passage takes in of its document, as in a
        :class:`~cderetrieval.retrieval.retriever.Retriever`. Each pair is evaluated, under a name of its own.
    out
        Folder to keep results in; finished work in it is not done again.
    split
        Split to evaluate; None: those of the task, ``"test"`` for other datasets.
    titles
        False: documents are searched without their titles, and the dataset is called ``NAME-untitled``; not in mteb
        tasks.
    first_stage, depth
        Rerank the best `depth` documents that this plain model finds for each query, as in the truncated BEIR of the
        CDE paper; such scores are not comparable with full retrieval.
    rerank, rerank_depth
        A cross-encoder that reorders the best `rerank_depth` hits of each query, as in a
        :class:`~cderetrieval.retrieval.retriever.Retriever`.
    device, dtype, runtime, precision
        How models are computed, see :func:`cderetrieval.load`.
    show_progress
        Show progress bars on a terminal.
    about
        What else the results folder is to say of this run, as JSON values.

    Returns
    -------
    Results
        The evaluations of this call; `Results.load(out)` gives all that a folder holds.

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
    >>> corpus = [{"id": "a", "text": "owls"}, {"id": "b", "text": "bees"}]
    >>> toy = make_dataset("toy", corpus, {"q": "bees"}, {"q": ["b"]})
    >>> evaluate({"tiny": tiny_model()}, toy, context=["own", "null"]).table()["toy"].tolist()
    [100.0, 100.0]
    """
    subjects, results = subjects_of(tasks, split), None
    if not titles:
        subjects = [untitled(subject) for subject in subjects]
    seeds = list(range(seeds) if isinstance(seeds, int) else seeds)
    how = [Passages.parse(one) for one in _several(passages)]
    taken = [DocumentContext.parse(one) for one in _several(document_context)]
    if out is not None:
        settings = {"dtype": dtype, "device": str(pick_device(device)), "seeds": seeds, "context_size": context_size}
        settings |= {"passages": str(passages), "document_context": str(document_context)}
        results = ResultsFolder(out, {**settings, **(about or {})})
    reranker = Reranker.of(rerank, rerank_depth, device)
    compute = device, dtype, runtime, precision
    stage = None if first_stage is None else _first_stage(first_stage, depth, reranker, compute)
    cells: list[Cell] = []
    for name, full_name, one in entrants(model, *compute):
        check_tasks(one, subjects)
        for variant in variants_for(one, _contexts(context), context_size, seeds, how, taken, reranker):
            folder = NoFolder() if results is None else results.model(name, one.fingerprint, variant, dtype)
            evaluator = Evaluator(name, full_name, one, variant, dtype, folder, stage, show_progress)
            for subject in subjects_for(variant, subjects):
                with tempfile.TemporaryDirectory(prefix="cderetrieval-") as directory:
                    for cell in evaluate_subject(evaluator, subject, Path(directory)):
                        logger.info("%s on %s: %s %.5f", cell.system, cell.column, MAIN, cell.metrics[MAIN])
                        cells.append(cell)
                if results is not None:
                    write_tables(results)
    return Results(cells, None if results is None else results.directory)


def _first_stage(
    given: str | Path | AnyModel, depth: int, reranker: Reranker | None, compute: tuple[str | None, str, str, str]
) -> CandidateStage:
    if reranker is not None:
        raise InputError("rerank= reorders what a model finds, first_stage= gives a model its candidates: pass one.")
    first = next(entrants(given, *compute))
    return CandidateStage(first.name, first.model, depth)


def _several(given: Any) -> list[Any]:
    """One value or several."""
    return list(given) if isinstance(given, list | tuple) else [given]


def _contexts(context: Any) -> list[ContextLike]:
    """One context or several; a list of strings that are neither words nor files is the texts of one context."""
    if not isinstance(context, list | tuple):
        return [context]
    words = (*CONTEXTS, CENTRE)
    is_texts = all(isinstance(one, str) and one not in words and not as_path(one[:200]).exists() for one in context)
    return [context] if is_texts else list(context)


class Entrant(NamedTuple):
    """A model that is evaluated: its name in tables, ``organisation/name`` in mteb's files, and itself."""

    name: str
    full_name: str
    model: AnyModel


def entrants(
    model: Any, device: str | None, dtype: str, runtime: str = "auto", precision: str = "float32"
) -> Iterator[Entrant]:
    """Models with their names, each loaded when its turn comes; ``NAME=MODEL`` calls a model NAME."""
    if isinstance(model, Mapping):
        named = list(model.items())
    else:
        named = [_named_model(one) for one in (model if isinstance(model, list | tuple) else [model])]
    names = [name for name, _ in named]
    double = [name for name in names if names.count(name) > 1]
    if double:  # their results would be taken for one model's
        raise InputError(f"two models are called {double[0]!r}; name them with NAME=DIRECTORY, or pass a dictionary.")
    compute: dict[str, Any] = {"device": device, "dtype": dtype, "runtime": runtime, "precision": precision}
    for name, one in named:
        if not isinstance(one, str | Path):
            yield Entrant(name, f"local/{name}", one)
            continue
        given = str(one)
        is_repository = given.count("/") == 1 and not holds_model(as_path(given)) and not given.startswith(HYBRID)
        full = given if is_repository else f"local/{safe(name)}"
        yield Entrant(name, ALIASES.get(given, full), load_model(one, **compute))


def _named_model(model: Any) -> tuple[str, Any]:
    if not isinstance(model, str | Path):
        return type(model).__name__, model
    name, separator, rest = str(model).partition("=")
    if separator and not as_path(model).exists():
        return name, rest
    return short_name(model), model
