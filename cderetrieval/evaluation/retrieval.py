"""Score a model on a retrieval dataset through the Retriever that users run.

The documents are added, the queries asked, the hits scored against the judgements. The context of a contextual model is
made from the documents alone: never from queries, never from judgements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..corpora.dataset import Dataset
from ..embedding import ContextSpec, Model, is_contextual
from ..retriever import Retriever
from ..types import Hits
from .metrics import PerQuery, evaluate_run

if TYPE_CHECKING:
    import pandas as pd

# As deep as mteb and beir keep a ranking, so that Recall@1000 and MAP mean the same.
DEPTH = 1_000
FIELDS = ("title", "text")


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model in one context on one dataset.

    Attributes
    ----------
    model, context, seed
        What was evaluated; context ``"none"`` for a model that takes none.
    dataset
        Name of the dataset.
    scores
        Metrics of each query.
    hits
        What was found for each query.
    retriever
        The retriever that found it, still open.
    """

    model: str
    context: str
    seed: int
    dataset: str
    scores: PerQuery
    hits: Hits
    retriever: Retriever

    def to_frame(self) -> pd.DataFrame:
        """One row for each metric: model, context, seed, dataset, metric, value, n_queries."""
        import pandas as pd

        fixed = {"model": self.model, "dataset": self.dataset, "context": self.context, "seed": self.seed}
        n_queries = len(self.scores.query_ids)
        rows = [{**fixed, "metric": m, "value": v, "n_queries": n_queries} for m, v in self.scores.mean().items()]
        return pd.DataFrame(rows)


def evaluate_retrieval(
    model: Model,
    dataset: Dataset,
    *,
    name: str,
    context: ContextSpec = "own",
    context_size: int | None = None,
    dtype: str = "auto",
    seed: int = 0,
    show_progress: bool = True,
) -> Evaluation:
    """Index a dataset's corpus, ask its queries, and score the answers.

    Parameters
    ----------
    model
        A contextual model or an encoder.
    dataset
        Corpus, queries and judgements.
    name
        What to call the model in the results.
    context, context_size, dtype, seed
        As for :class:`~cderetrieval.retriever.Retriever`; an encoder that takes no context ignores the first two.
    show_progress
        Show progress bars on a terminal.

    Examples
    --------
    >>> from cderetrieval.corpora.dataset import make_dataset
    >>> from cderetrieval.testing import tiny_model
    >>> corpus = [{"id": "a", "title": "", "text": "owls"}, {"id": "b", "title": "", "text": "bees"}]
    >>> toy = make_dataset("toy", corpus, {"q": "bees"}, {"q": {"b": 1}})
    >>> evaluate_retrieval(tiny_model(), toy, name="tiny").scores.mean()["ndcg@10"]
    1.0
    """
    contextual = is_contextual(model)
    retriever = Retriever(
        model,
        key="id",
        on=FIELDS,
        context=context if contextual else "own",
        context_size=context_size if contextual else None,
        dtype=dtype,
        seed=seed,
    )
    # Old collections hold empty documents, judged irrelevant or not at all: nothing can be said of them.
    retriever.add(dataset.corpus, skip_empty=True, show_progress=show_progress)
    hits = retriever(dataset.queries, k=DEPTH, show_progress=show_progress)
    scores = evaluate_run(dataset.qrels, hits.to_run())
    shown = context_name(context) if contextual else "none"
    return Evaluation(name, shown, seed, dataset.name, scores, hits, retriever)


def context_name(context: ContextSpec) -> str:
    """Name a context in results: own, random, null, the file's name, or texts."""
    if context is None:
        return "null"
    return str(context) if isinstance(context, str) else type(context).__name__.lower()
