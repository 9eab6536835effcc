"""The corpus as its context sees it: a map of sampled documents, their terms, drift, and what can be filtered by."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from ..context.context import Context
from ..context.plane import on_plane
from ..errors import ContextError, InputError
from ..excerpts import UNTELLING, plain_words
from ..index.manifest import STORE_FILE
from ..retrieval.retriever import Retriever
from ..retrieval.searcher import Searcher
from ..vectors import DENSE
from .answers import hidden_fields, model_name, shown_title
from .served_index import ServedIndex

# Documents of the map where there is no context; those that are looked through for filters; those that are compared.
MAPPED, LOOKED_AT, COMPARED = 512, 1_000, 128
# Values of a field that are offered, terms that are shown, and words of a point that stand for its text.
VALUES, TERMS, LEAD = 12, 40, 12
# Characters of a document that are compared: enough to tell what it is about, and soon embedded.
BEGINNING = 500
# Most documents in which a rare term occurs.
RARE = 2
TITLE = 120


class CorpusView:
    """Views of an index, each made when it is asked for and kept while the index stays as it is."""

    def __init__(self, source: ServedIndex) -> None:
        self._source = source
        self._kept: dict[str, tuple[Hashable, Any]] = {}
        self._turn = threading.Lock()

    def _once(self, name: str, state: Hashable, make: Callable[[], Any]) -> Any:
        with self._turn:
            if self._kept.get(name, (None,))[0] != state:
                self._kept[name] = state, make()
            return self._kept[name][1]

    def facets(self) -> dict[str, Any]:
        """What can be filtered by: fields of a sample, with their most frequent values, or least and greatest."""
        retriever = self._source.current()
        return dict(self._once("facets", _state(retriever), lambda: facets(retriever)))

    def context(self) -> dict[str, Any]:
        """The index, and the map and terms of its context."""
        retriever = self._source.current()
        return dict(self._once("context", _state(retriever), lambda: described(retriever)))

    def drift(self) -> dict[str, Any]:
        """How far the corpus has moved away from its context; embeds a sample."""
        retriever = self._source.current()

        def measured() -> dict[str, Any]:
            if not retriever.contexts:
                return {"drift": None}
            name = next(iter(retriever.contexts))
            found = retriever.parts[name].context_report()["drift"]
            return {"drift": None if found is None else {**asdict(found), "stale": found.stale}}

        return dict(self._once("drift", _state(retriever), measured))

    def compare(self, query: str, k: int) -> dict[str, Any]:
        """The best of the sampled documents in no context, a neutral one, and their own."""
        retriever = self._source.current()
        name, context = next(iter(retriever.contexts.items()), ("", None))
        if context is None:
            raise ContextError("this index has no context: its model takes none.")
        views = self._once("compared", (context.digest, _state(retriever)), lambda: compared(retriever, name, context))
        points, encoders = views["points"], views["encoders"]
        answers = {}
        for form, (encoder, vectors) in encoders.items():
            scores = vectors @ encoder.encode_query([query])[0]
            best = np.argsort(-scores, kind="stable")[:k]
            answers[form] = [{**points[i], "similarity": float(scores[i])} for i in best.tolist()]
        return {"query": query, "documents": len(points), "contexts": answers}


def _state(retriever: Retriever) -> Hashable:
    collection: Any = retriever.collection
    return weakref.ref(retriever), getattr(collection, "generation", len(retriever))


def _sampled(retriever: Retriever, most: int) -> list[dict[str, Any]]:
    """Documents in equal steps through the index."""
    return list(_local(retriever).documents(_spread(retriever, most)))


def _spread(retriever: Retriever, most: int) -> np.ndarray:
    """Numbers of documents, evenly from the first to the last."""
    seqs: np.ndarray = _local(retriever).numbered_ids()[0]
    return seqs[np.unique(np.linspace(0, len(seqs) - 1, min(most, len(seqs))).astype(np.int64))] if len(seqs) else seqs


def _local(retriever: Retriever) -> Any:
    if not hasattr(retriever.collection, "numbered_ids"):
        raise InputError("an index on a server has no view of its corpus here.")
    return retriever.collection


def facets(retriever: Retriever) -> dict[str, Any]:
    """Fields of a sample by which documents can be filtered."""
    hidden = hidden_fields(retriever)
    documents = _sampled(retriever, LOOKED_AT)
    names = Counter(name for document in documents for name in document if name not in hidden)
    found = (_facet(name, [document.get(name) for document in documents]) for name, _ in names.most_common())
    return {"sample": len(documents), "documents": len(retriever), "fields": [one for one in found if one is not None]}


def _facet(name: str, values: list[Any]) -> dict[str, Any] | None:
    """A field's values with their counts, or its range; nothing where it tells documents apart one by one."""
    each = chain.from_iterable(value if isinstance(value, list) else [value] for value in values)
    given = [value for value in each if isinstance(value, str | int | float) and value != ""]
    counts = Counter((type(value).__name__, value) for value in given)
    if not given or len(counts) < 2:
        return None
    numbers = [value for value in given if not isinstance(value, str | bool)]
    lists = any(isinstance(value, list) for value in values)  # may be asked what they contain, not what they exceed
    if len(numbers) == len(given) and len(counts) > VALUES and not lists:
        return {"field": name, "least": min(numbers), "greatest": max(numbers)}
    if len(counts) > max(VALUES, len(given) // 4):
        return None
    shown = [{"value": value, "count": count} for (_, value), count in counts.most_common(VALUES)]
    return {"field": name, "lists": lists, "values": shown, "others": len(counts) - len(shown)}


def described(retriever: Retriever) -> dict[str, Any]:
    """Everything about an index that is quickly told."""
    collection, contexts = _local(retriever), retriever.contexts
    name, context = next(iter(contexts.items()), ("", None))
    part = retriever.parts[name] if context is not None else next(iter(retriever.parts.values()))
    settings = collection.settings
    store = None if retriever.path is None else (retriever.path / STORE_FILE).stat().st_size
    layouts = [collection.layout_of(number) for number in range(len(retriever.parts))]
    return {
        "documents": len(retriever),
        "passages": len(collection.known.passages) if len(collection.known.seqs) else len(retriever),
        "models": list(settings.models) if settings.models else [model_name(retriever)],
        "dimensions": [None if layout is None else layout.dimension for layout in layouts],
        "fusion": None if retriever.fusion is None else retriever.fusion.method,
        "bytes": store,
        "context": None if context is None else _context(context, part),
        "points": points_of(retriever, context),
        "terms": terms_of(retriever, part, context),
    }


def _context(context: Context, part: Searcher) -> dict[str, Any]:
    return {
        "source": context.source,
        "documents": len(context),
        "seed": context.seed,
        "digest": context.digest[:16],
        "cache_bytes": getattr(part.encoder, "cache_bytes", 0),
    }


def points_of(retriever: Retriever, context: Context | None) -> list[dict[str, Any]]:
    """Sampled documents on a plane: those of the context, else a sample of the index."""
    if context is not None and context.embeddings is not None:
        places, seqs = on_plane(context.embeddings), _numbers(retriever, context)
    else:
        seqs, vectors = _stored_sample(retriever)
        places = on_plane(vectors) if len(vectors) else np.zeros((0, 2))
    names = list(_points(retriever, seqs))
    return [{**name, "x": round(x, 4), "y": round(y, 4)} for name, (x, y) in zip(names, places.tolist(), strict=True)]


def _numbers(retriever: Retriever, context: Context) -> np.ndarray:
    """Numbers of the documents of a context; -1 for texts that are not in the index."""
    if not context.ids:
        return np.full(len(context), -1)
    return np.asarray(_local(retriever).seqs_of(context.ids))


def _stored_sample(retriever: Retriever) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of some documents that have dense vectors, and these."""
    collection = _local(retriever)
    parts = range(len(retriever.parts))
    dense = [part for part in parts if (layout := collection.layout_of(part)) is not None and layout.kind == DENSE]
    chosen = _spread(retriever, MAPPED)
    if not dense or not len(chosen):
        return np.empty(0, dtype=np.int64), np.empty((0, 2))
    numbers, vectors = collection.vectors_of(chosen.tolist(), dense[0])
    return numbers, np.asarray(vectors)


def _points(retriever: Retriever, seqs: np.ndarray) -> Iterator[dict[str, Any]]:
    """Id, title and first words of documents; of those that are gone nothing."""
    collection = _local(retriever)
    there = seqs[seqs >= 0]
    documents = dict(zip(there.tolist(), collection.documents(there), strict=True))
    texts = collection.texts_of(there)
    key = collection.settings.key
    for seq in seqs.tolist():
        if seq not in documents:
            yield {"title": "", "lead": ""}
            continue
        title, lead = shown_title(documents[seq], retriever), " ".join(texts[seq][:400].split()[:LEAD])
        identity = documents[seq].get(key, documents[seq].get("_id"))
        yield {"id": identity, "title": (title or lead)[:TITLE], "lead": (title or lead)[:TITLE]}


def terms_of(retriever: Retriever, part: Searcher, context: Context | None) -> dict[str, Any]:
    """Common and rare terms of the sample, with the number of documents that hold each."""
    if context is not None and context.terms is not None and len(context):
        counts, documents = _counted(context, part), len(context)
    else:
        texts = [text for _, text in zip(range(MAPPED), (text for _, text in _local(retriever).texts()), strict=False)]
        counts, documents = Counter(word for words in plain_words(texts) for word in set(words)), len(texts)
    told = {term: count for term, count in counts.items() if len(term) > 2 and term.isalpha() and term not in UNTELLING}
    common = sorted(told.items(), key=lambda item: (-item[1], item[0]))[:TERMS]
    rare = sorted((item for item in told.items() if item[1] <= RARE), key=lambda item: (-len(item[0]), item[0]))[:TERMS]
    shown = {"common": common, "rare": sorted(rare) if len(told) > len(common) else []}
    return {"documents": documents} | {
        name: [{"term": term, "documents": count} for term, count in terms] for name, terms in shown.items()
    }


def _counted(context: Context, part: Searcher) -> Mapping[str, int]:
    """Tokens of the model that are whole words, and how many of the sampled documents hold each."""
    assert context.terms is not None
    model: Any = part.model
    present = np.flatnonzero(context.terms > 0)
    names = model.encoder.tokenizer.convert_ids_to_tokens(present.tolist())
    return {name: int(context.terms[number]) for name, number in zip(names, present.tolist(), strict=True)}


def compared(retriever: Retriever, name: str, context: Context) -> dict[str, Any]:
    """Vectors of the sampled documents in each context."""
    model: Any = retriever.parts[name].model
    seqs = _numbers(retriever, context)[:COMPARED]
    seqs = np.unique(seqs[seqs >= 0])
    if not len(seqs):
        raise ContextError("the documents of this context are not in the index; there is nothing to compare.")
    texts = {seq: text[:BEGINNING] for seq, text in _local(retriever).texts_of(seqs).items()}
    forms = {"null": Context.null(model), "random": Context.random(model, size=len(context) or None), "own": context}
    encoders = {form: one.encoder(model) for form, one in forms.items()}
    vectors = {
        form: (one, one.encode_document([texts[seq] for seq in seqs.tolist()])) for form, one in encoders.items()
    }
    return {"points": list(_points(retriever, seqs)), "encoders": vectors}
