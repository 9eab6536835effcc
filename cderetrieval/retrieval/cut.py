"""Which splitter cuts the documents of a collection: by the tokens of the model that reads least."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

from ..context.sample import Sampler
from ..documents import Row
from ..errors import ConfigError, MismatchError
from ..models.document_context import limit_of, token_starts, tokenizer_of
from ..passages import AUTO, FUNCTION, MIN_SIZE, Splitter, passage_texts, words
from ..splitting import Span
from .collection import Collection
from .embedder import LEXICAL
from .part import Part

# A model without a limit reads all of a text.
UNLIMITED = sys.maxsize
# Longest passage of a text that does not fit, as a share of what the model reads; and the vector of the whole text is
# kept where the text is at most so many times as long.
FILLED, WHOLE_UP_TO = 0.75, 2


def splitter_for(collection: Collection, parts: Sequence[Part], *, ready: bool) -> Splitter | None:
    """The splitter; None where nothing is cut.

    Of documents with ready vectors those alone are cut that came cut, or that a function of the user's cuts.
    """
    passages = collection.passages
    reading = [part for part in parts if getattr(part.embedder.model, "kind", "") != LEXICAL]
    if passages.how is None or (passages.how == AUTO and not reading):
        return None
    if passages.how == FUNCTION and passages.function is None:
        raise MismatchError(
            "this index was made with passages= a function, which no file holds. Open it with "
            "Retriever.load(path, passages=that_function)."
        )
    size = passages.how if isinstance(passages.how, int) else UNLIMITED
    limits = [(limit_of(part.embedder.model) or UNLIMITED, number) for number, part in enumerate(reading)]
    most, narrowest = min(limits, default=(UNLIMITED, 0))
    prefix = max((part.document.prefix for part in reading), default=0)
    if prefix and most - prefix < MIN_SIZE:
        raise ConfigError(f"prefix={prefix} leaves no room: this model reads {most} word pieces of a text.")
    tokenizer = tokenizer_of(reading[narrowest].embedder.model) if reading else None
    starts = words if tokenizer is None else partial(token_starts, tokenizer=tokenizer)
    whole = bool(reading) and not ready and reading[narrowest].document.whole
    return Splitter(
        passages,
        collection.settings.on,
        starts=starts,
        fits=UNLIMITED if ready else min(size, most),
        limit=min(size, most - prefix, max(MIN_SIZE, int(FILLED * most))),
        whole=WHOLE_UP_TO * most if whole else 0,
    )


def sampled(splitter: Splitter | None, samplers: Sequence[Sampler]) -> Callable[[Row], Sequence[Span]]:
    """What cuts a document and shows its passages to samplers: the context of passages is made of passages."""

    def cut(row: Row) -> Sequence[Span]:
        document_id, text, payload = row
        spans = () if splitter is None else splitter(text, payload)
        for passage in passage_texts(text, spans) if samplers else ():
            for sampler in samplers:
                sampler.offer(document_id, passage)
        return spans

    return cut
