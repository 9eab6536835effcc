"""Known-item search: queries generated from documents that nobody has judged (Azzopardi et al. 2007).

A document's title, or its first sentence, is the query that should find the rest of it. Such scores compare models on
one's own documents; they do not say how well real questions are answered. All documents lose their title or first
sentence, also those not asked for, so that none is marked by it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..values import id_name, scalar, shown
from .dataset import Dataset, make_dataset

MIN_QUERY_WORDS = 3
MIN_DOCUMENT_WORDS = 10
MAX_QUERY_WORDS = 60

# A full stop ends a sentence where a capital or a quote follows; after one letter ("J. Smith") it does not.
_SENTENCE_END = re.compile(r"(?<=\w\w[.!?])\s+(?=[\"'(\[]?[A-Z])|(?<=[.!?][\"')\]])\s+(?=[A-Z])|\n\s*\n")
# Text in lower case, as old collections are, has no capitals to go by, and often a space before the full stop.
_LOWER_CASE_END = re.compile(r"(?<=[^\W\d_]{2}[.!?])\s+|(?<=\s[.!?])\s+|\n\s*\n")


def known_item(
    documents: Iterable[Mapping[str, Any]],
    key: Hashable = "id",
    on: str | Sequence[str] = ("title", "text"),
    n_queries: int = 200,
    seed: int = 0,
) -> Dataset:
    """Build a dataset whose queries are parts of the documents.

    >>> text = "Tides follow the moon. Twice a day the sea rises and falls, on most coasts of the world."
    >>> dataset = known_item([{"id": 1, "text": text}], on="text")
    >>> dataset.name, dataset.queries
    ('generated-first-sentence', {'generated:1': 'Tides follow the moon.'})
    """
    fields = [on] if isinstance(on, str) else list(on)
    if not fields or n_queries < 1:
        raise InputError(f"on={on!r}, n_queries={n_queries!r}: known_item needs a text field and at least one query.")
    cut = [(id_name(_field(row, i, key)), *_cut(row, i, fields)) for i, row in enumerate(documents)]
    n_same = Counter(query for _, query, _ in cut)
    asked = [
        (document, query)
        for document, query, text in cut
        if n_same[query] == 1
        and MIN_QUERY_WORDS <= len(query.split()) <= MAX_QUERY_WORDS
        and len(text.split()) >= MIN_DOCUMENT_WORDS
        and query.casefold() not in text.casefold()
    ]
    if not asked:
        raise InputError(
            f"None of {len(cut)} documents gives a query of {MIN_QUERY_WORDS} words and a rest of "
            f"{MIN_DOCUMENT_WORDS} from {fields}; name other fields in `on`."
        )
    asked = sorted(asked, key=lambda pair: _draw(pair, seed))[:n_queries]
    return make_dataset(
        "generated-title" if len(fields) > 1 else "generated-first-sentence",
        [{"id": document, "text": text} for document, _, text in cut],
        {f"generated:{document}": query for document, query in asked},
        {f"generated:{document}": {document: 1} for document, _ in asked},
        keep_empty=True,
    )


def _field(row: Mapping[str, Any], i: int, field: Hashable) -> Any:
    if not isinstance(row, Mapping):
        raise InputError(f"documents[{i}] is {type(row).__name__}; pass dictionaries.")
    value = scalar(row.get(field))  # type: ignore[call-overload]
    if value is None:
        raise InputError(f"documents[{i}] has no field {field!r}; it has {', '.join(map(str, row))}.")
    if not isinstance(value, str | int | float):
        raise InputError(f"documents[{i}]: {field!r} is {shown(value)}; an id is a string or a number.")
    return value


def _text(row: Mapping[str, Any], i: int, field: str) -> str:
    value = scalar(row.get(field))
    if value is not None and not isinstance(value, str):
        raise InputError(f"documents[{i}]: field {field!r} is {type(value).__name__}, not a string.")
    return (value or "").strip()


def _cut(row: Mapping[str, Any], i: int, fields: list[str]) -> tuple[str, str]:
    texts = [_text(row, i, field) for field in fields]
    if len(fields) > 1:
        return " ".join(texts[0].split()), "\n".join(filter(None, texts[1:]))
    end = (_LOWER_CASE_END if texts[0].islower() else _SENTENCE_END).search(texts[0])
    if end is None:
        return "", texts[0]
    return " ".join(texts[0][: end.start()].split()), texts[0][end.end() :]


def _draw(pair: tuple[str, str], seed: int) -> str:
    return hashlib.sha256(json.dumps([seed, *pair]).encode()).hexdigest()
