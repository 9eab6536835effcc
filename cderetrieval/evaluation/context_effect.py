"""What is a context worth on one's own documents? One call, one answer with an interval.

    print(context_gain(documents))                          # queries generated from the documents
    print(context_gain(documents, queries, qrels))          # one's own questions and judgements

The model searches the same documents for the same queries in its null context, in one of neutral sentences, and in
samples of the documents themselves. Without judgements, queries are made from the documents: the title, or the first
sentence, must find the rest. Such queries compare contexts and do not tell how well real questions will be answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..context.spec import NULL, OWN, RANDOM
from ..corpora.dataset import Dataset, make_dataset
from ..corpora.known_item import known_item
from ..documents import document_rows, named_queries
from ..embedding import Model, is_contextual
from ..errors import InputError, ModelError
from ..models.load import load
from ..models.locate import DEFAULT_MODEL, short_name
from .api import evaluate
from .compare import Comparison, averaged
from .metrics import as_qrels
from .results import Results
from .stats import bootstrap_interval
from .tables import terminal_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ContextGain:
    """Scores of a model in three contexts, on the same documents and queries.

    Attributes
    ----------
    results
        All evaluations.
    metric
        What is shown.
    generated
        Whether the queries were made from the documents.
    dataset
        What was searched.
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
    """Measure what the context is worth on one's own documents.

    Parameters
    ----------
    documents
        As for :meth:`Retriever.add <cderetrieval.retriever.Retriever.add>`.
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
        How many samples of the documents, and of the neutral sentences; scores are averaged over them for each query.
    n_queries
        Most generated queries.
    device, dtype, show_progress
        Where and how to compute.

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
        context=(NULL, RANDOM, OWN),
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
