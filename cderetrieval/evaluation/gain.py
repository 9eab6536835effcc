"""Measure what contexts are worth on one's own documents: that of the corpus, and that of the document for passages.

    corpus      null, random, own       none, for a model that takes no context
    document    none, own, another      where documents are longer than the model reads

Random and another are controls: they say whether a context has to be the right one. Each cell is a search of the same
documents for the same queries, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..corpora.dataset import Dataset, make_dataset
from ..corpora.known_item import known_item
from ..documents import DEFAULT_FIELDS, document_rows
from ..errors import InputError, ModelError
from ..models.document_context import (
    AUTO,
    NONE,
    DocumentContext,
    DocumentContextLike,
    OfAnother,
    limit_of,
    token_starts,
    tokenizer_of,
)
from ..models.load import load
from ..models.locate import DEFAULT_MODEL, short_name
from ..passages import Passages, PassagesLike
from ..queries import named_queries
from ..retrieval.embedder import Model
from ..types import is_contextual
from .api import CONTEXTS, evaluate
from .compare import Comparison, averaged
from .metrics import as_qrels
from .results import Results
from .search import texts_of
from .stats import bootstrap_interval
from .tables import terminal_table

if TYPE_CHECKING:
    import pandas as pd

# The contexts of a document.
NOTHING, OWN, ANOTHER = "none", "own", "another"


@dataclass(frozen=True)
class ContextGain:
    """Scores of a model in several contexts, on the same documents and queries.

    Attributes
    ----------
    results, metric, dataset
        All evaluations, the metric that is shown, and what was searched.
    generated
        Whether the queries were made from the documents.
    long
        Number of documents that are longer than the model reads; 0: the contexts of documents were not measured.
    document_context
        What passages take in of their documents in the rows called ``"own"``.
    """

    results: Results
    metric: str
    generated: bool
    dataset: Dataset
    long: int = 0
    document_context: DocumentContextLike = AUTO

    def gain(self, over: str | None = None, document: str | None = None) -> Comparison:
        """Test the own contexts against others.

        Parameters
        ----------
        over
            Context of the corpus: ``"null"`` or ``"random"``; None: the own one, or, where `document` is None too and
            the model takes a context, ``"null"``.
        document
            Context of the document: ``"none"`` or ``"another"``; None: the own one, or, where the model takes no other
            context, ``"none"``.
        """
        corpora = {corpus for corpus, _ in self._cells.values()}
        if over is None and document is None:
            over, document = ("null", None) if OWN in corpora else (None, NOTHING)
        own = OWN if OWN in corpora else NOTHING
        cell = (over or own, (document or OWN) if self.long else "")
        systems = {cell: system for system, cell in self._cells.items()}
        if cell not in systems:
            raise InputError(f"context {cell[0]!r} with document {cell[1]!r} was not measured; there are {[*systems]}.")
        return self.results.compare(systems[cell], systems[own, OWN if self.long else ""], self.metric)

    @property
    def _cells(self) -> dict[str, tuple[str, str]]:
        """Systems, and the contexts of corpus and document of each; no document context where none is long."""
        found = {}
        for cell in self.results.cells:
            corpus, *rest = cell.context.split("+")
            taken = {"document": OWN, ANOTHER: ANOTHER}[rest[-1].partition("-")[0]] if len(rest) > 1 else NOTHING
            found[cell.system] = (corpus, taken if self.long else "")
        return found

    def to_frame(self) -> pd.DataFrame:
        """One row for each pair of contexts: mean with interval; the own contexts' gain over it with interval and p."""
        import pandas as pd

        rows = []
        for system, (corpus, document) in self._cells.items():
            cells = self.results.of(system)
            scores = averaged(cells, self.metric)
            low, high = bootstrap_interval(scores)
            row: dict[str, Any] = {"context": corpus, **({"document": document} if self.long else {})}
            row |= {"seeds": len(cells), "n_queries": len(scores)}
            row |= {self.metric: float(scores.mean()), "low": low, "high": high}
            compared = self.gain(corpus, document or None)
            if compared.a != compared.b:
                found = compared.rows[0]
                row |= {"gain": found["difference"], "gain_low": found["low"], "gain_high": found["high"]}
                row["p"] = found["p_randomization"]
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def recommended(self) -> DocumentContextLike:
        """What to pass as ``document_context``: what was measured, unless passages without any context are better."""
        return NOTHING if self.long and self._over(NOTHING)["high"] < 0 else self.document_context

    @property
    def reason(self) -> str:
        """Why that is recommended, in a line."""
        if not self.long:
            return "No document is longer than the model reads: passages and document_context change nothing."
        over = self._over(NOTHING)
        what = f"document_context={self.recommended!r}: the document's own context gains {_points(over)} over none"
        if over["low"] <= 0 <= over["high"]:
            return f"{what}; no difference can be shown, and the setting stays."
        if over["high"] < 0 or not any(document == ANOTHER for _, document in self._cells.values()):
            return f"{what}."
        other = self._over(ANOTHER)
        known = f"{what}, and {_points(other)} over another document's"
        return f"{known}." if other["low"] > 0 else f"{known}: it need not be the own one."

    def _over(self, document: str) -> dict[str, Any]:
        """The gain of the document's own context, in the corpus's own."""
        return dict(self.gain(None, document).rows[0])

    def __str__(self) -> str:
        frame = self.to_frame().drop(columns="p")
        frame[[self.metric, "low", "high", "gain", "gain_low", "gain_high"]] *= 100
        titles = {"low": "95% from", "high": "to", "gain": "own gains", "gain_low": "from", "gain_high": "to "}
        queries = f"{len(self.dataset.queries)} {'generated' if self.generated else 'given'} queries"
        documents = f"{len(self.dataset.corpus)} documents" + (f" ({self.long} of them long)" if self.long else "")
        head = f"{self.results.cells[0].model}: {self.metric} x 100, {documents}, {queries}"
        tail = f" ({self.dataset.name.replace('-', ' ')}: compares contexts, not quality)" if self.generated else ""
        return f"{head}{tail}\n{terminal_table(frame.rename(columns=titles), 2)}\n{self.reason}"


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
    passages: PassagesLike = AUTO,
    document_context: DocumentContextLike = AUTO,
    n_queries: int = 200,
    device: str | None = None,
    dtype: str = "auto",
    show_progress: bool = True,
) -> ContextGain:
    """Measure what contexts are worth on one's own documents, with 95% intervals.

    A contextual model searches them in its null context, in one of neutral sentences, and in samples of the documents.
    Where documents are longer than the model, passages take in nothing of their document, its own context, or that of
    another document, which tells whether it has to be the right one. Without judgements, queries are generated: the
    title, or the first sentence, must find the rest. Generated queries compare contexts; they do not tell how well real
    questions will be answered, and documents are searched without their titles.

    Parameters
    ----------
    documents
        As in :meth:`Retriever.add <cderetrieval.retrieval.retriever.Retriever.add>`.
    queries, qrels
        Query id to text, and query id to document id to grade, or another form of judgements that
        :func:`~cderetrieval.evaluation.metrics.evaluate_run` reads; both or neither. Neither: queries are generated.
    model
        A model or its name; one that takes no context only where documents are longer than it reads.
    key, on
        Field of the id, fields of the text; for generated queries the first of several fields is the query.
    metric
        Such as ``"ndcg@10"`` or ``"recall@100"``.
    context_size
        Number of context documents; None: what the model was made for.
    seeds
        Number of samples of the documents and of the neutral sentences; scores of a query are averaged over them.
    passages, document_context
        As in a :class:`~cderetrieval.retrieval.retriever.Retriever`, but for fields and functions.
    n_queries
        Maximum number of generated queries.
    device, dtype, show_progress
        As in :func:`evaluate`.

    Returns
    -------
    ContextGain
        Prints as a table, with a recommendation; ``to_frame()``, ``gain()`` and ``recommended`` hold them.

    Raises
    ------
    InputError
        If only one of queries and qrels is given, or they do not fit the documents.
    ModelError
        If the model takes no context, and no document is longer than it reads.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_model
    >>> documents = [{"id": "a", "text": "owls hunt at night"}, {"id": "b", "text": "bees make honey"}]
    >>> gain = context_gain(documents, {"q": "bees"}, {"q": {"b": 1}}, tiny_model(), seeds=1)
    >>> gain.to_frame()["context"].tolist()
    ['null', 'random', 'own']
    """
    loaded = load(model, device=device, dtype=dtype) if isinstance(model, str | Path) else model
    if (queries is None) != (qrels is None):
        raise InputError("pass queries and qrels together, or neither, to have queries generated.")
    taken = DocumentContext.of(document_context, loaded)
    fields = [on] if isinstance(on, str) else None if on is None else list(on)
    dataset = _dataset(documents, queries, qrels, key, fields, n_queries)
    n_long = 0 if taken == NONE else _count_long(loaded, dataset, Passages.parse(passages))
    if not n_long and not is_contextual(loaded):
        raise ModelError(
            f"{model!r} takes no context, and there are no long documents whose passages could take in theirs; pass a "
            f"contextual model, {DEFAULT_MODEL!r} for example."
        )
    another = [OfAnother(**taken.to_dict())] if n_long > 1 else []
    results = evaluate(
        {short_name(model) if isinstance(model, str | Path) else type(loaded).__name__: loaded},
        dataset,
        context=CONTEXTS,
        context_size=context_size,
        seeds=seeds,
        passages=passages if n_long else None,
        document_context=[NONE, taken, *another],
        dtype=dtype,
        show_progress=show_progress,
    )
    return ContextGain(results, metric, queries is None, dataset, n_long, document_context)


def _count_long(model: Any, dataset: Dataset, passages: Passages) -> int:
    """Number of documents that are longer than a model reads, or than passages may be."""
    limits = [limit for limit in (passages.how, limit_of(model)) if isinstance(limit, int)]
    if passages.how is None or not limits:
        return 0
    tokenizer = tokenizer_of(model)
    return sum(len(token_starts(text, tokenizer)) > min(limits) for _, text in texts_of(dataset.corpus))


def _dataset(documents: Any, queries: Any, qrels: Any, key: str, on: list[str] | None, n_queries: int) -> Dataset:
    """One's own documents with the given queries, or with generated ones."""
    rows = list(document_rows(documents, key, on))
    if queries is not None:
        keeps = on is None or on == [*DEFAULT_FIELDS]
        texts = ({"id": identity, **_titled(text, payload if keeps else {})} for identity, text, payload in rows)
        judged, asked = as_qrels(qrels), named_queries(queries)
        unknown = [query for query in judged if query not in asked]
        if unknown:
            raise InputError(f"qrels judge queries that are not given: {unknown[:3]}.")
        return make_dataset("yours", texts, {query: asked[query] for query in judged}, judged)
    payloads = [{**payload, key: identity} for identity, _, payload in rows]
    if on is None:
        on = ["title", "text"] if any(payload.get("title") for payload in payloads) else ["text"]
    return known_item(payloads, key, on if len(on) > 1 else on[0], n_queries)


def _titled(text: str, payload: Any) -> dict[str, str]:
    """Title and text of a document, of which `text` is both."""
    title = payload.get("title")
    title = title.strip() if isinstance(title, str) and text.startswith(title.strip()) else ""
    return {"title": title, "text": text[len(title) :].strip()}


def _points(row: dict[str, Any]) -> str:
    return f"{100 * row['difference']:+.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f}) points"
