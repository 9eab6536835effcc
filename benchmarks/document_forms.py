"""Development sets as vectors, once for each model: every form of document context is then a sum of these.

`document_training.py` compares forms with it. Splitting, titles and beginnings are those of a `Retriever`; passages are
ranked exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from document_sets import CHOSEN_ON, DocumentSet, of_folder

from cderetrieval import Context, DocumentContext
from cderetrieval.evaluation.metrics import Scorer
from cderetrieval.evaluation.spans import passage_metrics
from cderetrieval.models.document_context import Units, beginning, in_context, prefixed
from cderetrieval.models.trained_context import TrainedContext
from cderetrieval.passages import Passages, place
from cderetrieval.retrieval.cut import splitter_of
from cderetrieval.splitting import Span
from cderetrieval.types import is_contextual

DEPTH, PREFIX = 20, 32
# Sets whose passages stand for themselves: no form may lose there.
SELF_CONTAINED = ("chunking-evaluation", "feedbackqa-pages")
LEVELS = ("passage", "unnamed", "document")


@dataclass(frozen=True)
class Embedded:
    """A set in the vectors of one model: passages, prefixed passages, titles or beginnings, queries."""

    some: DocumentSet
    titled: bool
    texts: list[tuple[str, list[Span], str]]
    units: Units
    places: list[tuple[str, int, int]]
    own: np.ndarray
    prefixed: np.ndarray | None
    leads: np.ndarray
    queries: np.ndarray

    def in_context(
        self, context: DocumentContext, module: TrainedContext | None = None, *, prefix: bool = False
    ) -> np.ndarray:
        """Vectors of all units in a context."""
        own = self.prefixed if prefix and self.prefixed is not None else self.own
        return np.asarray(in_context(own.copy(), self.units, context, self.leads, module))

    def scores(self, vectors: np.ndarray, queries: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """nDCG@10 of each query: of passages, of those that do not name their document, and of documents."""
        similar = (self.queries if queries is None else queries) @ vectors.T
        whole = self.units.heads & (self.units.owners >= 0)
        rows = np.flatnonzero(~whole)
        best = np.argsort(-similar[:, rows], axis=1, kind="stable")[:, :DEPTH]
        run = {}
        for query, top in zip(self.some.queries, best, strict=True):
            found = [self.places[rows[place]] for place in top]
            run[query] = [place for place in found if place[1] < place[2]]
        ranked = passage_metrics(run, self.some.spans.spans, self.some.spans.texts, (10,))
        values = dict(zip(ranked.query_ids, ranked["ndcg@10"].tolist(), strict=True))
        few = [value for query, value in values.items() if query in self.some.unnamed]
        return {
            "passage": np.array(list(values.values())),
            "unnamed": np.array(few),
            "document": self._documents(similar),
        }

    def _documents(self, similar: np.ndarray) -> np.ndarray:
        names = np.array([name for name, _, _ in self.places])
        ids, owner = np.unique(names, return_inverse=True)
        best = np.stack([similar[:, owner == number].max(axis=1) for number in range(len(ids))], axis=1)
        found = self.some.spans.spans
        scorer = Scorer({query: {name: 1 for name, _, _ in found[query]} for query in self.some.queries})
        for query, row in zip(self.some.queries, best.tolist(), strict=True):
            scorer.add({query: dict(zip(ids.tolist(), row, strict=True))})
        return np.asarray(scorer.scores()["ndcg@10"])


def embedded(model: Any, some: DocumentSet, titled: bool) -> Embedded:
    """Split and embed a set; a contextual model in a sample of its documents."""
    on = ["title", "text"] if titled else ["text"]
    split = splitter_of(Passages.parse("auto"), on, [(model, DocumentContext())])
    assert split is not None
    texts, places = [], []
    for one in some.spans.documents:
        fields = [one["title"].strip(), one["text"].strip()] if titled else [one["text"].strip()]
        text = " ".join(filter(None, fields))
        spans = list(split(text, {"title": one["title"], "text": one["text"]}))
        texts.append((text, spans, one["title"].strip() if titled else ""))
        pieces = spans or [Span(0, len(text))]
        places += [(one["id"], *place(text, span, one["text"])) for span in pieces]
    units = Units.of(texts)
    encoder = model
    if is_contextual(model):
        encoder = Context.from_texts(model, [text for text, _, _ in texts]).encoder(model)
    own = encoder.encode_document(units.texts)
    leads = [beginning(text, 32, encoder) for text in units.leads]
    return Embedded(
        *(some, titled, texts, units, places),
        own=own,
        prefixed=encoder.encode_document(prefixed(units, PREFIX, encoder)) if titled else None,
        leads=encoder.encode_document(leads) if leads else own[:0],
        queries=encoder.encode_query(list(some.queries.values())),
    )


def development_sets(data: Path, model: Any, most: int) -> list[Embedded]:
    """The sets that forms are chosen on, with titles hidden and given."""
    sets = [of_folder(data, name, most) for name in CHOSEN_ON]
    return [embedded(model, some, titled) for some in sets for titled in (False, True)]
