"""Score a model on a retrieval dataset through the Retriever that users run.

The documents are added, the queries asked in blocks, the hits scored against the judgements. The context of a
contextual model is made from the documents alone: never from queries, never from judgements. Of each ranking all 1,000
hits are scored and the best 100 kept: ten thousand rankings of a thousand would be 2 GB of Python objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..corpora.dataset import Corpus, Dataset
from ..embedding import LEXICAL, ContextSpec
from ..fusion import Hybrid
from ..fusion.model import AnyModel, HybridModel, takes_context
from ..judgements import judged
from ..retriever import Retriever
from ..types import Hits, text_ids
from ..vectors import DENSE, take
from .candidates import Candidates, model_kind, rerank
from .forms import Run
from .metrics import PerQuery, evaluate_run
from .setting import ContextSetting, settings_for

# As deep as mteb and beir keep a ranking, so that Recall@1000 and MAP mean the same.
DEPTH = 1_000
KEPT = 100
FIELDS = ("title", "text")
# Queries that are searched and scored together: 512 rankings of 1,000 hits are 150 MB of Python objects.
BLOCK = 512
# What stands for a document without text. A Retriever refuses an empty text, which is a mistake in a user's documents;
# official corpora have them (FiQA: 38), and leaving them out would change published scores. BERT's tokenizers drop it.
BLANK = "\u200b"


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model in one context on one dataset.

    Attributes
    ----------
    model, setting
        What was evaluated.
    dataset, split, revision
        On what.
    scores
        Metrics of each query.
    run
        The best hits of each query, as deep as `KEPT`.
    audit
        What the context was made of, see :func:`audit`.
    retriever
        The retriever that found it, still open; None where candidates were reranked.
    """

    model: str
    setting: ContextSetting
    dataset: str
    split: str
    revision: str
    scores: PerQuery
    run: Run
    audit: dict[str, Any]
    retriever: Retriever | Hybrid | None = None


def evaluate_retrieval(
    model: AnyModel,
    dataset: Dataset,
    *,
    name: str,
    context: ContextSpec | ContextSetting = "own",
    context_size: int | None = None,
    dtype: str = "auto",
    seed: int = 0,
    candidates: Candidates | None = None,
    ignore_identical_ids: bool = False,
    directory: str | Path | None = None,
    show_progress: bool = True,
) -> Evaluation:
    """Index a dataset's corpus, ask its queries, and score the answers.

    Parameters
    ----------
    model
        A model of any family.
    dataset
        Corpus, queries and judgements.
    name
        What to call the model in the results.
    context, context_size, dtype, seed
        As for :class:`~cderetrieval.retriever.Retriever`; an encoder that takes no context ignores them but `dtype`.
    candidates
        Documents to rerank for each query, in place of a search over all.
    ignore_identical_ids
        Leave out hits whose id is the query's.
    directory
        Where to keep documents and vectors meanwhile; None: in memory.
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
    if isinstance(context, ContextSetting):
        setting = context
    else:
        [setting] = settings_for(model, [context], context_size, [seed])
    retriever = None
    if candidates is None:
        retriever = index_corpus(model, setting, dataset.corpus, dtype, directory, show_progress)
        blocks = search_blocks(retriever, dataset.queries)
        made = retriever.context
    else:
        blocks, made = rerank(model, setting, lambda: texts_of(dataset.corpus), dataset.queries, candidates, dtype)
    scorer = Scorer(dataset.qrels, ignore_identical_ids)
    for _ in scorer.watch(blocks):
        pass
    found = audit(made, dataset.corpus, dataset.queries.values())
    return Evaluation(
        name, setting, dataset.name, dataset.split, dataset.revision, scorer.scores(), scorer.run, found, retriever
    )


def index_corpus(
    model: AnyModel,
    setting: ContextSetting,
    documents: Iterable[Mapping[str, str]],
    dtype: str = "auto",
    directory: str | Path | None = None,
    show_progress: bool = False,
) -> Retriever | Hybrid:
    """Add documents ``{"id", "title", "text"}`` to a retriever whose context is what the setting says."""
    options: dict[str, Any] = {
        "key": "id",
        "on": FIELDS,
        "context": setting.spec if takes_context(model) else "own",
        "context_size": setting.size,
        "path": directory,
        "dtype": dtype,
        "seed": setting.seed,
    }
    retriever: Retriever | Hybrid
    if isinstance(model, HybridModel):
        retriever = model.retriever(index={name: _exact(part) for name, part in model.parts.items()}, **options)
    else:
        retriever = Retriever(model, index=_exact(model), **options)
    return retriever.add(searchable(documents), show_progress=show_progress)


def _exact(model: AnyModel) -> str:
    """The index that finds all: approximate search would be measured along with the model."""
    return "Flat" if model_kind(model) == DENSE else "auto"


def searchable(documents: Iterable[Mapping[str, str]]) -> Iterator[dict[str, str]]:
    """Documents as a retriever takes them: `BLANK` in place of an empty text."""
    for document in documents:
        title, text = document.get("title") or "", document.get("text") or ""
        yield {"id": document["id"], "title": title, "text": text if (title.strip() or text.strip()) else BLANK}


def texts_of(documents: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Ids and texts of documents, joined as a retriever joins them."""
    for document in searchable(documents):
        yield document["id"], " ".join(filter(None, (document[field].strip() for field in FIELDS)))


def search_blocks(retriever: Retriever | Hybrid, queries: Mapping[str, str], k: int = DEPTH) -> Iterator[Run]:
    """Hits of all queries, some hundred queries at a time."""
    ids = text_ids(queries, "queries")
    texts = [text if text.strip() else BLANK for text in queries.values()]
    # Vectors are made of all queries at once, sorted by length; words and the queries of a hybrid need no sorting.
    vectors = None
    if isinstance(retriever, Retriever) and retriever.encoder.kind != LEXICAL:
        vectors = retriever.encoder.encode_query(texts)
    for start in range(0, len(ids), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(ids)))
        block: Any = [texts[row] for row in rows] if vectors is None else take(vectors, rows)
        hits = retriever(block, k=k)
        yield Hits(hits, [ids[row] for row in rows]).to_run()


class Scorer:
    """Scores blocks of rankings as they come, and keeps the best hits of each.

    Parameters
    ----------
    qrels
        Judgements of all queries; a ranking without judgements is left out of the scores.
    ignore_identical_ids
        Leave out hits whose id is the query's.
    """

    def __init__(self, qrels: Mapping[str, Mapping[str, int]], ignore_identical_ids: bool = False) -> None:
        self._qrels = judged(qrels)
        self._ignore = ignore_identical_ids
        self._parts: list[PerQuery] = []
        self.run: Run = {}

    def watch(self, blocks: Iterable[Run]) -> Iterator[Run]:
        """Pass blocks through, scoring each."""
        for block in blocks:
            known = {query: self._qrels[query] for query in block if query in self._qrels}
            if known:
                self._parts.append(evaluate_run(known, block, ignore_identical_ids=self._ignore))
            for query, hits in block.items():
                self.run[query] = dict(sorted(hits.items(), key=lambda hit: -hit[1])[:KEPT])
            yield block

    def scores(self) -> PerQuery:
        """Metrics of all queries, in the order of the judgements; a query that never came counts 0."""
        unasked = {query: grades for query, grades in self._qrels.items() if query not in self.run}
        parts = self._parts + ([evaluate_run(unasked, {})] if unasked else [])
        place = {query: i for i, query in enumerate(query for part in parts for query in part.query_ids)}
        rows = [place[query] for query in self._qrels]
        values = {name: np.concatenate([part.values[name] for part in parts])[rows] for name in parts[0].values}
        missing = {query for part in parts for query in part.missing}
        return PerQuery(tuple(self._qrels), values, tuple(query for query in self._qrels if query in missing))


def audit(context: Any, corpus: Corpus, queries: Iterable[str]) -> dict[str, Any]:
    """What a context was made of, to be written beside the scores.

    Returns
    -------
    dict
        ``source``, ``documents``, ``digest`` and ``ids`` of the context; ``pool``, the size of the corpus; and
        ``equal_to_query``, the number of context texts that equal a query's. That is above 0 where queries are
        documents of the corpus (ArguAna), and would show a leak anywhere else. Empty without a context.
    """
    if context is None:
        return {}
    found = {**described(context), "pool": len(corpus)}
    if context.source == "own":
        ids = set(context.ids)
        texts = [text for identity, text in texts_of(corpus) if identity in ids]
        found["equal_to_query"] = count_equal(texts, queries)
    return found


def described(context: Any) -> dict[str, Any]:
    """Source, size, digest and document ids of a context."""
    return {
        "source": context.source,
        "documents": len(context),
        "digest": context.digest,
        "ids": [str(identity) for identity in context.ids],
    }


def count_equal(texts: Iterable[str], queries: Iterable[str]) -> int:
    """Count the texts that equal a query, but for case and space."""
    asked = {" ".join(query.casefold().split()) for query in queries}
    return sum(" ".join(text.casefold().split()) in asked for text in texts)
