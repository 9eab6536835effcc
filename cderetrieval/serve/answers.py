"""What the one computing thread of a server does: questions of one kind, answered together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..excerpts import Words, marked, words_of
from ..models.document_context import tokenizer_of
from ..models.word_pieces import TURN
from ..passages import words
from ..retrieval.retriever import Retriever
from ..retrieval.searcher import Searcher
from ..runtime import check_texts
from ..vectors import DENSE

# Characters of a value that a hit of the page shows, and fields of its document.
SHOWN, FIELDS = 200, 24


@dataclass(frozen=True)
class Search:
    """Search for texts; `filter` is JSON."""

    k: int = 10
    filter: str | None = None
    by: str = "document"
    passages: bool = True
    documents: bool = False
    # Mark what matches, and show fields of the documents in short: for the page.
    marks: bool = False

    def answers(self, retriever: Retriever, questions: Sequence[Sequence[str]]) -> list[list[list[dict[str, Any]]]]:
        """The hits of each query of each question."""
        texts, shows = list(chain.from_iterable(questions)), (self.documents or self.marks, self.passages or self.marks)
        wanted = _filter(self.filter)
        hits = retriever(texts, k=self.k, filter=wanted, documents=shows[0], passages=shows[1], by=self.by)
        if self.marks:
            words = words_of(retriever.parts.values())
            for text, ranking in zip(texts, hits, strict=True):
                for hit in ranking:
                    _for_page(hit, text, words, retriever)
        rest = iter(hits)
        return [list(islice(rest, len(question))) for question in questions]


@dataclass(frozen=True)
class Embed:
    """Embed texts by a model, as queries or as documents."""

    model: str
    query: bool

    def answers(self, retriever: Retriever, questions: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Vectors of the texts of each question."""
        encoder, texts = _encoder(retriever, self.model), list(chain.from_iterable(questions))
        vectors = np.asarray(encoder.encode_query(texts) if self.query else encoder.encode_document(texts))
        return np.split(vectors, np.cumsum([len(question) for question in questions])[:-1])


@dataclass(frozen=True)
class Count:
    """Count the tokens of texts; words, where a model has no tokens."""

    model: str

    def answers(self, retriever: Retriever, questions: Sequence[Sequence[str]]) -> list[int]:
        """How many tokens the texts of each question have."""
        tokenizer = tokenizer_of(_encoder(retriever, self.model))
        if tokenizer is None:
            return [sum(len(words(text)) for text in texts) for texts in questions]
        with getattr(tokenizer, "turn", TURN):
            cut = (tokenizer(check_texts(texts), truncation=False, verbose=False) for texts in questions)
            return [sum(map(len, found["input_ids"])) for found in cut]


@dataclass(frozen=True)
class Explain:
    """Say why documents answer queries; questions are pairs of query and id."""

    filter: str | None = None

    def answers(self, retriever: Retriever, questions: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
        """Shares of each similarity, of several models those of each too."""
        return [self._answer(retriever, *question) for question in questions]

    def _answer(self, retriever: Retriever, query: str, identity: Any) -> dict[str, Any]:
        frame = retriever.explain(query, identity, filter=_filter(self.filter))
        answer: dict[str, Any] = {"shares": _records(frame)}
        answer.update((str(name), value) for name, value in frame.attrs.items())
        if retriever.fusion is not None:
            for row in answer["shares"]:
                row["shares"] = _records(retriever.parts[row["source"]].explain(query, identity))
        return answer


def _for_page(hit: dict[str, Any], query: str, words: Words, retriever: Retriever) -> None:
    """Mark the passage of a hit, and show its document in short."""
    document, passage = hit.pop("document"), hit["passage"]
    passage.update(marked(passage["text"], query, words))
    hit["key"] = json.dumps(hit["id"])
    hit["title"] = shown_title(document, retriever)
    hit["fields"] = shown_fields(document, retriever)


def shown_title(document: Mapping[str, Any], retriever: Retriever) -> str:
    """What to call a document."""
    on = retriever.collection.settings.on
    names = ["title", "name", *(on[:-1] if on else [])]
    found = (document.get(name) for name in names)
    return next((text.strip() for text in found if isinstance(text, str) and text.strip()), "")


def hidden_fields(retriever: Retriever) -> set[str]:
    """Fields that are shown as id, title and text."""
    settings = retriever.collection.settings
    return {settings.key, "_id", "title", "text", *(settings.on or ())}


def shown_fields(document: Mapping[str, Any], retriever: Retriever) -> dict[str, Any]:
    """Fields of a document that are not its text, in short."""
    hidden = hidden_fields(retriever)
    fields = {name: _short(value) for name, value in document.items() if name not in hidden and value is not None}
    return dict(islice(fields.items(), FIELDS))


def _short(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53:
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def encoders(retriever: Retriever) -> dict[str, Searcher]:
    """The models that make dense vectors, by the name that a client may give."""
    found: dict[str, Searcher] = {}
    for name, part in retriever.parts.items():
        layout = retriever.collection.layout_of(list(retriever.parts).index(name))
        if layout is not None and layout.kind == DENSE:
            found[name or model_name(retriever)] = part
    return found


def model_name(retriever: Retriever) -> str:
    """The name of the one model of an index; of a directory its last part, as the rest is nobody else's business."""
    return Path(retriever.collection.settings.model or "model").name


def _encoder(retriever: Retriever, model: str) -> Any:
    known = encoders(retriever)
    if model not in known:
        raise InputError(f"model {model!r} is not served; there is {', '.join(known) or 'none with vectors'}.")
    return known[model].encoder


def _records(frame: Any) -> list[dict[str, Any]]:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _filter(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)
