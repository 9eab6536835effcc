"""Which splitter cuts the documents of a collection: by the tokens of the model that reads least of a text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from ..errors import ConfigError, MismatchError
from ..models.document_context import DocumentContext, limit_of, token_starts, tokenizer_of
from ..passages import AUTO, FUNCTION, MIN_SIZE, Passages, Reader, Splitter, words
from .collection import Collection
from .embedder import LEXICAL
from .part import Part

# A model without a limit reads all of a text.
UNLIMITED = sys.maxsize
# Longest passage of a text that does not fit, as a share of what the model reads.
FILLED = 0.75


def splitter_for(collection: Collection, parts: Iterable[Part], *, ready: bool) -> Splitter | None:
    """The splitter; None where nothing is cut.

    Of documents with ready vectors those alone are cut that came cut, or that a function of the user's cuts.
    """
    reading = [
        (part.embedder.model, part.document) for part in parts if getattr(part.embedder.model, "kind", "") != LEXICAL
    ]
    return splitter_of(collection.passages, collection.settings.on, reading, ready=ready)


def splitter_of(
    passages: Passages, on: Sequence[str] | None, reading: Sequence[tuple[Any, DocumentContext]], *, ready: bool = False
) -> Splitter | None:
    """The splitter for models that read texts, each with what its passages take in of their documents."""
    if passages.how is not None and passages.ready is not None:
        return Splitter(passages, on, ())
    if passages.how is None or (passages.how == AUTO and not reading):
        return None
    if passages.how == FUNCTION and passages.function is None:
        raise MismatchError(
            "this index was made with passages= a function, which no file holds. Open it with "
            "Retriever.load(path, passages=that_function)."
        )
    size = passages.how if isinstance(passages.how, int) else UNLIMITED
    readers = [_reader(model, document.prefix, size, ready) for model, document in reading]
    return Splitter(passages, on, readers or [Reader(words, UNLIMITED if ready else size, size)])


def _reader(model: Any, prefix: int, size: int, ready: bool) -> Reader:
    """How a model reads passages of at most so many tokens, under a prefix."""
    most, tokenizer = limit_of(model) or UNLIMITED, tokenizer_of(model)
    if prefix and most - prefix < MIN_SIZE:
        raise ConfigError(f"prefix={prefix} leaves no room: this model reads {most} word pieces of a text.")
    return Reader(
        words if tokenizer is None else partial(token_starts, tokenizer=tokenizer),
        UNLIMITED if ready else min(size, most),
        min(size, most - prefix, max(MIN_SIZE, int(FILLED * most))),
    )
