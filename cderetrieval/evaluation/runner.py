"""Evaluate one model in one context on retrieval datasets, and keep what was found.

The corpus is indexed by the Retriever that users run, the queries are searched in blocks, and each block is scored
against the judgements as it comes. All 1,000 hits of a query are scored and the best 100 are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..context.context import Context
from ..context.spec import ContextLike
from ..corpora.dataset import Corpus, Dataset
from ..fusion import Hybrid
from ..fusion.model import AnyModel
from ..retriever import Retriever
from .cell import MAIN, Cell, cell_name
from .folder import NoFolder
from .metrics import PerQuery, Run, Scorer
from .rerank import Candidates, FirstStage, rerank
from .search import index_corpus, search_blocks, texts_of
from .tasks import GroupedDataset
from .variants import ContextVariant, as_variant


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model in one context on one dataset, and how they came about."""

    dataset: str
    variant: ContextVariant
    scores: PerQuery
    run: Run  # the best hits of each query
    audit: dict[str, Any]  # what the context was made of
    retriever: Retriever | Hybrid | None = None  # still open; None where candidates were reranked


def evaluate_retrieval(
    model: AnyModel,
    dataset: Dataset,
    *,
    context: ContextLike | ContextVariant = "own",
    context_size: int | None = None,
    dtype: str = "auto",
    seed: int = 0,
    candidates: Candidates | None = None,
    directory: str | Path | None = None,
    show_progress: bool = True,
) -> Evaluation:
    """Index a dataset's corpus, search its queries or rerank their candidates, and score the answers.

    >>> from cderetrieval.corpora.dataset import make_dataset
    >>> from cderetrieval.testing import tiny_model
    >>> corpus = [{"id": "a", "title": "", "text": "owls"}, {"id": "b", "title": "", "text": "bees"}]
    >>> toy = make_dataset("toy", corpus, {"q": "bees"}, {"q": {"b": 1}})
    >>> evaluate_retrieval(tiny_model(), toy).scores.mean()["ndcg@10"]
    1.0
    """
    variant = as_variant(model, context, context_size, seed)
    retriever = None
    if candidates is None:
        retriever = index_corpus(model, variant, dataset.corpus, dtype, directory, show_progress)
        blocks, made = search_blocks(retriever, dataset.queries), retriever.context
    else:
        blocks, made = rerank(model, variant, dataset.corpus, dataset.queries, candidates, dtype)
    scorer = Scorer(dataset.qrels)
    for _ in scorer.watch(blocks):
        pass
    found = audit(made, dataset.corpus, dataset.queries.values())
    return Evaluation(dataset.name, variant, scorer.scores(), scorer.run, found, retriever)


def audit(context: Any, corpus: Corpus, queries: Iterable[str]) -> dict[str, Any]:
    """What a context was made of, to be written beside the scores; empty without a context.

    ``equal_to_query`` counts the context texts that equal a query, but for case and space. It is above 0 where queries
    are documents of the corpus (ArguAna), and would show a leak anywhere else.
    """
    if context is None:
        return {}
    found = {**described(context), "pool": len(corpus)}
    if context.source == "own":
        asked = {" ".join(query.casefold().split()) for query in queries}
        ids = set(context.ids)
        texts = (text for identity, text in texts_of(corpus) if identity in ids)
        found["equal_to_query"] = sum(" ".join(text.casefold().split()) in asked for text in texts)
    return found


def described(context: Context) -> dict[str, Any]:
    """Source, size, digest and document ids of a context."""
    return {
        "source": context.source,
        "documents": len(context),
        "digest": context.digest,
        "ids": [str(identity) for identity in context.ids],
    }


@dataclass
class Job:
    """One model in one context, evaluated on one subject after the other.

    `name` is the model's in tables and folders, `full_name` the ``organisation/name`` in mteb's files. `on_done` is
    called with each evaluation of a dataset of one's own, while its retriever is still open.
    """

    name: str
    full_name: str
    model: AnyModel
    variant: ContextVariant
    dtype: str = "auto"
    folder: NoFolder = field(default_factory=NoFolder)
    stage: FirstStage | None = None
    on_done: Callable[[Evaluation], None] | None = None
    show_progress: bool = True

    @property
    def candidates(self) -> str | None:
        """What chose the candidates, where they are reranked."""
        return None if self.stage is None else self.stage.name

    def file_name(self, dataset: str, subset: str, split: str) -> str:
        """Name of a cell's files."""
        return cell_name(dataset, subset, split, self.candidates)

    def finished(self, dataset: str, subset: str, split: str, revision: str) -> Cell | None:
        """The cell of an earlier run, if there is one."""
        return self.folder.finished(self.file_name(dataset, subset, split), revision, self.candidates)

    def keep_queries(self, name: str, scores: PerQuery, run: Run) -> None:
        """Write metrics and hits of single queries."""
        self.folder.write_queries(name, scores, run, f"{self.name}-{self.variant.name}")

    def keep(self, **values: Any) -> Cell:
        """Make a cell of this model and context, and write it."""
        cell = Cell(
            model=self.name,
            context=self.variant.name,
            seed=self.variant.seed,
            candidates=self.candidates,
            **values,
        )
        self.folder.write(cell.file_name, cell)
        return cell


def dataset_cells(job: Job, subject: GroupedDataset, directory: Path) -> Iterator[Cell]:
    """Evaluate a retrieval dataset, or find it finished; `directory` is for documents and vectors meanwhile."""
    dataset = subject.dataset
    if (done := job.finished(dataset.name, "default", dataset.split, dataset.revision)) is not None:
        yield done
        return
    started = time.perf_counter()
    in_memory = isinstance(dataset.corpus, tuple)
    evaluation = evaluate_retrieval(
        job.model,
        dataset,
        context=job.variant,
        dtype=job.dtype,
        candidates=None if job.stage is None else job.stage.candidates(dataset, job.dtype),
        # A corpus that streams from a file must not end up in memory.
        directory=None if in_memory else directory / "index",
        show_progress=job.show_progress,
    )
    seconds = round(time.perf_counter() - started, 2)
    job.keep_queries(job.file_name(dataset.name, "default", dataset.split), evaluation.scores, evaluation.run)
    if job.on_done is not None:
        job.on_done(evaluation)
    elif evaluation.retriever is not None:
        evaluation.retriever.close()
    means = evaluation.scores.mean()
    yield job.keep(
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
