"""Evaluate models on tasks, each in its contexts; and measure what a context is worth on one's own documents.

    for model: for context and seed: for task:    finished already? -> load -> evaluate -> write -> unload

Retrieval datasets of one's own are scored here (`runner`), mteb's tasks by mteb (`mteb_run`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..context.spec import CENTRE, NULL, OWN, RANDOM, ContextLike
from ..corpora.dataset import Dataset, make_dataset
from ..corpora.known_item import known_item
from ..documents import document_rows, named_queries
from ..errors import InputError, ModelError
from ..files import as_path
from ..models.document_context import AUTO, DocumentContext, DocumentContextLike
from ..models.load import load
from ..models.locate import ALIASES, DEFAULT_MODEL, HYBRID, holds_model, short_name
from ..passages import Passages, PassagesLike
from ..retrieval.embedder import Model
from ..retrieval.names import AnyModel, load_model
from ..runtime import pick_device
from ..types import is_contextual
from .cell import MAIN, Cell
from .compare import Comparison, averaged
from .folder import NoFolder, ResultsFolder, safe
from .metrics import as_qrels
from .rerank import PAPER_DEPTH, FirstStage
from .results import Results, write_tables
from .runner import Job, check_tasks, evaluate_subject, subjects_for
from .stats import bootstrap_interval
from .tables import terminal_table
from .tasks import subjects_of
from .variants import variants_for

if TYPE_CHECKING:
    import pandas as pd

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
    first_stage: str | Path | AnyModel | None = None,
    depth: int = PAPER_DEPTH,
    device: str | None = None,
    dtype: str = "auto",
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
    first_stage, depth
        Rerank the best `depth` documents that this plain model finds for each query, as in the truncated BEIR of the
        CDE paper; such scores are not comparable with full retrieval.
    device, dtype, show_progress
        Where and in which number format models compute, and whether to show progress bars on a terminal.
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
    seeds = list(range(seeds) if isinstance(seeds, int) else seeds)
    how = [Passages.parse(one) for one in _several(passages)]
    taken = [DocumentContext.parse(one) for one in _several(document_context)]
    if out is not None:
        settings = {"dtype": dtype, "device": str(pick_device(device)), "seeds": seeds, "context_size": context_size}
        settings |= {"passages": str(passages), "document_context": str(document_context)}
        results = ResultsFolder(out, {**settings, **(about or {})})
    stage = None
    if first_stage is not None:
        first = next(entrants(first_stage, device, dtype))
        stage = FirstStage(first.name, first.model, depth)
    cells: list[Cell] = []
    for name, full_name, one in entrants(model, device, dtype):
        check_tasks(one, subjects)
        for variant in variants_for(one, _contexts(context), context_size, seeds, how, taken):
            folder = NoFolder() if results is None else results.model(name, one.fingerprint, variant, dtype)
            job = Job(name, full_name, one, variant, dtype, folder, stage, show_progress)
            for subject in subjects_for(variant, subjects):
                with tempfile.TemporaryDirectory(prefix="cderetrieval-") as directory:
                    for cell in evaluate_subject(job, subject, Path(directory)):
                        logger.info("%s on %s: %s %.5f", cell.system, cell.column, MAIN, cell.metrics[MAIN])
                        cells.append(cell)
                if results is not None:
                    write_tables(results)
    return Results(cells, None if results is None else results.directory)


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


def entrants(model: Any, device: str | None, dtype: str) -> Iterator[Entrant]:
    """Models with their names, each loaded when its turn comes; ``NAME=MODEL`` calls a model NAME."""
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


@dataclass(frozen=True)
class ContextGain:
    """Scores of a model in three contexts, on the same documents and queries.

    Attributes
    ----------
    results, metric, dataset
        All evaluations, the metric that is shown, and what was searched.
    generated
        Whether the queries were made from the documents.
    """

    results: Results
    metric: str
    generated: bool
    dataset: Dataset

    def gain(self, over: str = "null") -> Comparison:
        """Test the own context against another one, ``"null"`` or ``"random"``."""
        model = self.results.cells[0].model
        return self.results.compare(f"{model}/{over}", f"{model}/own", self.metric)

    def to_frame(self) -> pd.DataFrame:
        """One row for each context: mean with interval, and the own context's gain over it with interval and p."""
        import pandas as pd

        rows = []
        for system in self.results.systems:
            cells = self.results.of(system)
            scores = averaged(cells, self.metric)
            low, high = bootstrap_interval(scores)
            row: dict[str, Any] = {"context": cells[0].context, "seeds": len(cells), "n_queries": len(scores)}
            row |= {self.metric: float(scores.mean()), "low": low, "high": high}
            if cells[0].context != "own":
                found = self.gain(cells[0].context).rows[0]
                row |= {"gain": found["difference"], "gain_low": found["low"], "gain_high": found["high"]}
                row["p"] = found["p_randomization"]
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        frame = self.to_frame().drop(columns="p")
        frame[[self.metric, "low", "high", "gain", "gain_low", "gain_high"]] *= 100
        titles = {"low": "95% from", "high": "to", "gain": "own gains", "gain_low": "from", "gain_high": "to "}
        queries = f"{len(self.dataset.queries)} {'generated' if self.generated else 'given'} queries"
        head = f"{self.results.cells[0].model}: {self.metric} x 100, {len(self.dataset.corpus)} documents, {queries}"
        tail = f" ({self.dataset.name.replace('-', ' ')}: compares contexts, not quality)" if self.generated else ""
        return f"{head}{tail}\n{terminal_table(frame.rename(columns=titles), 2)}"


def context_gain(
    documents: Any,
    queries: Any = None,
    qrels: Any = None,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    key: str = "id",
    on: str | Sequence[str] | None = None,
    metric: str = "ndcg@10",
    context_size: int | None = None,
    seeds: int = 3,
    n_queries: int = 200,
    device: str | None = None,
    dtype: str = "auto",
    show_progress: bool = True,
) -> ContextGain:
    """Measure what the context is worth on one's own documents, with 95% intervals.

    The model searches them in its null context, in one of neutral sentences, and in samples of the documents. Without
    judgements, queries are generated: the title, or the first sentence, must find the rest. Generated queries compare
    contexts; they do not tell how well real questions will be answered.

    Parameters
    ----------
    documents
        As in :meth:`Retriever.add <cderetrieval.retrieval.retriever.Retriever.add>`.
    queries, qrels
        Query id to text, and query id to document id to grade, or another form of judgements that
        :func:`~cderetrieval.evaluation.metrics.evaluate_run` reads; both or neither. Neither: queries are generated.
    model
        A contextual model or its name.
    key, on
        Field of the id, fields of the text; for generated queries the first of several fields is the query.
    metric
        Such as ``"ndcg@10"`` or ``"recall@100"``.
    context_size
        Number of context documents; None: what the model was made for.
    seeds
        Number of samples of the documents and of the neutral sentences; scores of a query are averaged over them.
    n_queries
        Maximum number of generated queries.
    device, dtype, show_progress
        As in :func:`evaluate`.

    Returns
    -------
    ContextGain
        Prints as a table; ``to_frame()`` and ``gain()`` hold the numbers.

    Raises
    ------
    InputError
        If only one of queries and qrels is given, or they do not fit the documents.
    ModelError
        If the model takes no context.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> documents = [{"id": "a", "text": "owls hunt at night"}, {"id": "b", "text": "bees make honey"}]
    >>> gain = context_gain(documents, {"q": "bees"}, {"q": {"b": 1}}, tiny_model(), seeds=1)
    >>> gain.to_frame()["context"].tolist()
    ['null', 'random', 'own']
    """
    loaded = load(model, device=device, dtype=dtype) if isinstance(model, str | Path) else model
    if not is_contextual(loaded):
        raise ModelError(f"{model!r} takes no context; pass a contextual model, {DEFAULT_MODEL!r} for example.")
    if (queries is None) != (qrels is None):
        raise InputError("pass queries and qrels together, or neither, to have queries generated.")
    dataset = _dataset(documents, queries, qrels, key, [on] if isinstance(on, str) else on, n_queries)
    results = evaluate(
        {short_name(model) if isinstance(model, str | Path) else type(loaded).__name__: loaded},
        dataset,
        context=CONTEXTS,
        context_size=context_size,
        seeds=seeds,
        dtype=dtype,
        show_progress=show_progress,
    )
    return ContextGain(results, metric, queries is None, dataset)


def _dataset(documents: Any, queries: Any, qrels: Any, key: str, on: Sequence[str] | None, n_queries: int) -> Dataset:
    """One's own documents with the given queries, or with generated ones."""
    rows = list(document_rows(documents, key, None if on is None else list(on)))
    if queries is not None:
        texts = ({"id": identity, "text": text} for identity, text, _ in rows)
        judged, asked = as_qrels(qrels), named_queries(queries)
        unknown = [query for query in judged if query not in asked]
        if unknown:
            raise InputError(f"qrels judge queries that are not given: {unknown[:3]}.")
        return make_dataset("yours", texts, {query: asked[query] for query in judged}, judged)
    payloads = [{**payload, key: identity} for identity, _, payload in rows]
    if on is None:
        on = ["title", "text"] if any(payload.get("title") for payload in payloads) else ["text"]
    fields = list(on)
    return known_item(payloads, key, fields if len(fields) > 1 else fields[0], n_queries)
