"""What a passage knows of its document, without knowing the encoder.

    text     title > heading > heading, newline, the passage                       at most `prefix` word pieces of it
    vector   passage + lead * title or beginning + mean * mean of the document's passages, all as long as the passage's,
             then shortened, see `shortening`

Title or beginning say what a document is about, and its passages often do not say it again; one short text more for
each document is encoded. The mean says what else is in it. Both are vectors of the same encoder, so term
dimensions and sparse vectors take part as they are. A document in one piece keeps its vector. Chosen on development
sets (docs/document-context.md), beside Anthropic's prefix and the fusion of scores of DAPR (arXiv 2305.13915). A module
that was trained for one encoder (:mod:`.trained_context`) can make a share of the vector.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ..errors import ConfigError, MismatchError
from ..passages import words
from ..splitting import Span, without_surrogates
from ..vectors import DENSE, SPARSE, as_vectors, join, take, unit
from .trained_context import TrainedContext, of_documents, trained_context
from .word_pieces import TURN


@dataclass(frozen=True)
class DocumentContext:
    """What each passage of a document takes in of it, and how strongly.

    Parameters
    ----------
    lead
        Weight of the vector of the document's title, or of its beginning where it has none, beside a passage's 1; for
        dense and sparse vectors.
    mean
        Weight of the mean of the document's passages, its head among them.
    lead_size
        Most word pieces of title or beginning.
    prefix
        Most word pieces of title and headings put before a passage when it is embedded; 0: none.
    trained
        A trained document context for this model: a name that the package brings, or a file or directory that training
        wrote (recipe ``"cde-doc-minilm"``). None: what a passage takes in is the sum above, alone.
    share
        Share of the trained form in a passage's vector, the rest being that sum; 1: all of it.
    fingerprint
        That of what was trained; found by itself, and kept in an index.

    Raises
    ------
    ConfigError
        If a value is out of range.
    ModelError
        If `trained` is neither a name nor a file or directory.

    Examples
    --------
    >>> DocumentContext(prefix=32)
    DocumentContext(lead=0.2, mean=0.2, lead_size=32, prefix=32)
    """

    lead: float = 0.2
    mean: float = 0.2
    lead_size: int = 32
    prefix: int = 0
    trained: str | None = None
    share: float = 0.5
    fingerprint: str = ""

    def __post_init__(self) -> None:
        for name, most in (("lead", MOST), ("mean", MOST), ("share", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise ConfigError(f"{name}={value!r} must be a number from 0 to {most}.")
        for name, least in (("lead_size", 1), ("prefix", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LONGEST:
                raise ConfigError(f"{name}={value!r} must be a number of word pieces, {least} to {LONGEST}.")
        if self.trained is not None and not isinstance(self.trained, str | os.PathLike):
            raise ConfigError(f"trained={self.trained!r} must be the name, file or directory of a trained context.")
        if self.trained is not None and not self.fingerprint:
            object.__setattr__(self, "trained", os.fspath(self.trained))
            object.__setattr__(self, "fingerprint", trained_context(self.trained).fingerprint)

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in self.to_dict().items() if name != "fingerprint"]
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def parse(cls, value: DocumentContextLike) -> DocumentContext | str:
        """From what a user writes; ``"auto"`` stays, as it depends on the model."""
        if value == AUTO:
            return AUTO
        if value in (None, "none"):
            return NONE
        if isinstance(value, Mapping):
            unknown = set(value) - {field.name for field in fields(cls)} - {ANOTHER}
            if unknown:
                raise ConfigError(f"document_context has no {sorted(unknown)[0]!r}; see DocumentContext.")
            kind = OfAnother if value.get(ANOTHER) else cls
            value = kind(**{name: value[name] for name in value if name != ANOTHER})
        if not isinstance(value, cls):
            raise ConfigError(
                f"document_context={value!r} must be 'auto', 'none' or a DocumentContext, such as "
                "DocumentContext(prefix=32)."
            )
        return value

    @classmethod
    def of(cls, value: DocumentContextLike, model: Any) -> DocumentContext:
        """The context for a model; ``"auto"`` is what was chosen for models of its kind."""
        found = cls.parse(value)
        if isinstance(found, cls):
            return found
        return cls() if getattr(model, "kind", DENSE) == DENSE else NONE

    def to_dict(self) -> dict[str, Any]:
        """As it is stored: of what is trained only where something is, as indexes were written before there was any."""
        values = asdict(self)
        return values if self.trained is not None else {name: values[name] for name in values if name not in TRAINED}

    def module(self, encoder: Any) -> TrainedContext:
        """The trained module, which must be the one that an index was made with, for vectors of this encoder."""
        found = trained_context(str(self.trained))
        if found.fingerprint != self.fingerprint:
            raise MismatchError(
                f"trained={self.trained!r} is another document context than the one that this index was made with. Put "
                "back that file, or build the index again."
            )
        found.check_base(encoder)
        return found


def document_context_of(text: str) -> str | dict[str, Any]:
    """What ``--document-context`` says, as a retriever takes it; values that are no JSON are refused by name later."""
    if "=" not in text:
        return text
    return {name.strip(): _value(value) for name, _, value in (pair.partition("=") for pair in text.split(","))}


def _value(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return text


class OfAnother(DocumentContext):
    """A control for evaluation: each passage takes in another document than its own, as far as there is one."""

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {**super().to_dict(), ANOTHER: True}


DocumentContextLike = str | Mapping[str, Any] | DocumentContext | None
AUTO, ANOTHER = "auto", "another"
TRAINED = ("trained", "share", "fingerprint")
# Largest weight, and most word pieces.
MOST, LONGEST = 10, 1_000
# Typical cosine of a passage, its title and the mean of its document; chosen on training pairs, short beside long.
COSINE = 0.7
NONE = DocumentContext(lead=0, mean=0)


@dataclass(frozen=True, eq=False)
class Units:
    """Texts to embed for a number of documents, one for each passage.

    `owners` is the row, among the documents that were cut, of each text's document; -1: a document in one piece.
    `heads` says which texts are those of whole documents, as far as the model reads them. `titles` are the paths of
    headings, one for each text; `leads` title or text of the documents that were cut.
    """

    texts: list[str]
    titles: list[str]
    owners: np.ndarray
    heads: np.ndarray
    leads: list[str]

    @classmethod
    def of(cls, documents: Iterable[tuple[str, Sequence[Span], str]]) -> Units:
        """The units of documents, given as text, spans and title."""
        texts: list[str] = []
        titles: list[str] = []
        owners: list[int] = []
        heads: list[bool] = []
        leads: list[str] = []
        for text, spans, title in documents:
            for span in spans or [Span(0, len(text), head=True)]:
                texts.append(text if span.head else text[span.start : span.stop])
                titles.append(span.heading)
                owners.append(len(leads) if spans else -1)
                heads.append(span.head)
            if spans:
                leads.append(title or text)
        return cls(texts, titles, np.array(owners, dtype=np.int64), np.array(heads, dtype=bool), leads)


def encode_passages(encoder: Any, units: Units, context: DocumentContext) -> Any:
    """Vectors of units, shape (units, dimension), of the encoder's kind, those of passages in their context.

    Heads and documents in one piece are encoded together, as they are where nothing is cut, and the passages after
    them: what is encoded together decides the last bits. Leads are short, and would be padded beside passages.
    """
    if units.heads.all():
        return encoder.encode_document(units.texts)
    if isinstance(context, OfAnother):
        units, context = exchanged(units), context if len(units.leads) > 1 else NONE
    texts = prefixed(units, context.prefix, encoder)
    rows = [some for some in (np.flatnonzero(units.heads), np.flatnonzero(~units.heads)) if len(some)]
    parts = [_encoded(encoder, [texts[row] for row in some]) for some in rows]
    own = take(join(parts), np.argsort(np.concatenate(rows)))
    if encoder.kind not in (DENSE, SPARSE):
        return own
    module = context.module(encoder) if context.trained is not None else None
    leads = [beginning(text, context.lead_size, encoder) for text in units.leads] if context.lead or module else []
    read = _encoded(encoder, leads) if leads else None
    return in_context(own, units, context, read, module)


def _encoded(encoder: Any, texts: list[str]) -> Any:
    """Vectors of texts, dense ones in single precision, whatever the encoder returns."""
    found = as_vectors(encoder.encode_document(texts), "document")
    return np.asarray(found, dtype=np.float32) if encoder.kind == DENSE else found


def in_context(
    own: Any, units: Units, context: DocumentContext, leads: Any, module: TrainedContext | None = None
) -> Any:
    """Vectors of passages with what they take in of their documents, at most as long; heads stay as they are."""
    inside = np.flatnonzero(~units.heads)
    owners, vectors = units.owners[inside], own[inside]
    count = len(units.leads)
    donors = others(count) if isinstance(context, OfAnother) else np.arange(count)
    together = vectors
    if context.lead:
        together = together + context.lead * as_long(vectors, leads[donors[owners]])
    if context.mean:
        cut = np.flatnonzero(units.owners >= 0)
        averages = means(own[cut], units.owners[cut])
        together = together + context.mean * as_long(vectors, averages[donors[owners]])
    together = shortening(context) * as_long(vectors, together)
    if module is not None:
        learned = of_documents(module, vectors, owners, leads, donors)
        meaning = together[:, : learned.shape[1]]
        mixed = (1 - context.share) * unit(meaning) + context.share * learned
        together[:, : learned.shape[1]] = as_long(meaning, mixed)
    return put(own, inside, together)


def shortening(context: DocumentContext) -> float:
    """Length of a passage's vector in its context, as a share of what it was.

    A mixed vector lies nearer to most queries than one that takes in nothing, so long documents would crowd short ones
    out. It gets the length that a weighted mean of vectors of length 1 has, of which each two have cosine `COSINE`.
    All passages get the same: single ones would get less the less they are like their document.
    """
    weights = np.array([1, context.lead, context.mean], dtype=np.float64)
    weights /= weights.sum()
    return float(np.sqrt(COSINE + (1 - COSINE) * (weights @ weights)))


def exchanged(units: Units) -> Units:
    """Units with the titles of other documents."""
    donors, inside = others(len(units.leads)), np.flatnonzero(~units.heads)
    first = inside[np.unique(units.owners[inside], return_index=True)[1]]
    titles = ["" if owner < 0 else units.titles[first[donors[owner]]] for owner in units.owners]
    return replace(units, titles=titles)


def others(count: int) -> np.ndarray:
    """Another row for each of a number of rows, always the same; neighbours are often alike, so not the next."""
    order, found = np.random.default_rng(0).permutation(count), np.empty(count, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found


def prefixed(units: Units, budget: int, encoder: Any) -> list[str]:
    """The texts, those of passages under their titles and headings, unless they begin with them."""
    if not budget:
        return units.texts
    tokenizer = tokenizer_of(encoder)
    short = {title: _shortened(title, budget, tokenizer) for title in set(units.titles) if title}
    return [
        f"{short[title]}\n{text}" if title and not head else text
        for text, title, head in zip(units.texts, units.titles, units.heads, strict=True)
    ]


def tokenizer_of(model: Any) -> Any:
    """The tokenizer of a model or an encoder, if it has one."""
    return next((one.tokenizer for one in _inside(model) if callable(getattr(one, "tokenizer", None))), None)


def limit_of(model: Any) -> int | None:
    """Tokens of a document that a model or an encoder reads, its prompt and special tokens taken off; None: any."""
    tokenizer = tokenizer_of(model)
    for one in _inside(model) if tokenizer is not None else ():
        settings: Any = getattr(one, "settings", None) or getattr(one, "config", None)
        if isinstance(most := getattr(settings, "max_length", None), int):
            prompt = dict(settings.prompts).get("document", "")
            with getattr(tokenizer, "turn", TURN):
                added = len(tokenizer(prompt)["input_ids"])
            return max(1, most - added)
    return None


def _inside(model: Any) -> Iterator[Any]:
    """A model or an encoder, and what it may be made of; asked for one by one, since `model` may have to be loaded."""
    yield model
    yield getattr(model, "encoder", None)
    yield getattr(getattr(model, "model", None), "encoder", None)


def _shortened(title: str, budget: int, tokenizer: Any) -> str:
    """As much of a title as the budget allows: its first and its last parts tell most, so the middle goes."""
    starts = token_starts(title, tokenizer)
    if len(starts) <= budget:
        return title
    half = budget // 2
    return f"{title[: starts[budget - half]].rstrip()} … {title[starts[len(starts) - half + 1] :]}"


def token_starts(text: str, tokenizer: Any) -> list[int]:
    """Where the tokens of a text begin; its words, where the tokenizer does not say."""
    if not getattr(tokenizer, "is_fast", False):
        return words(text)
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "truncation": False, "verbose": False}
    with getattr(tokenizer, "turn", TURN):
        found = tokenizer(without_surrogates(text), **options)
    return [start for start, _ in found["offset_mapping"]]


def beginning(text: str, size: int, encoder: Any) -> str:
    """The first word pieces of a text."""
    size = min(size, limit_of(encoder) or size)
    some = text[: 20 * size]
    starts = token_starts(some, tokenizer_of(encoder))
    return some[: starts[size]].rstrip() if len(starts) > size else some


def means(vectors: Any, owners: np.ndarray) -> Any:
    """Mean of the vectors of each owner, shape (owners, dimension); dense or sparse."""
    from scipy import sparse

    counts = np.bincount(owners).astype(np.float32)
    average = sparse.csr_array((1 / counts[owners], (owners, np.arange(len(owners)))), (len(counts), len(owners)))
    return average @ vectors


def as_long(vectors: Any, others: Any) -> Any:
    """The others, each as long as the vector in its row; dense or sparse, zeros stay."""
    wanted, given = _lengths(vectors), _lengths(others)
    factors = wanted / np.where(given > 0, given, 1)
    if isinstance(others, np.ndarray):
        return np.asarray(others * factors[:, None], dtype=np.float32)
    from scipy import sparse

    return sparse.csr_array(sparse.diags_array(factors) @ others).astype(np.float32)


def _lengths(vectors: Any) -> np.ndarray:
    squares = vectors**2 if isinstance(vectors, np.ndarray) else vectors.power(2)
    return np.sqrt(np.asarray(squares.sum(axis=1), dtype=np.float64).ravel())


def put(vectors: Any, rows: np.ndarray, others: Any) -> Any:
    """The vectors, those of some rows replaced; dense or sparse."""
    if isinstance(vectors, np.ndarray):
        vectors[rows] = others
        return vectors
    from scipy import sparse

    order = np.arange(vectors.shape[0])
    order[rows] = vectors.shape[0] + np.arange(len(rows))
    return sparse.vstack([vectors, others], format="csr")[order]
