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
from collections.abc import Mapping, Sequence
from typing import Any

from ..documents import DEFAULT_FIELDS, each_row
from ..errors import InputError
from ..values import id_name
from .dataset import Dataset, make_dataset

MIN_QUERY_WORDS = 3
MIN_DOCUMENT_WORDS = 10
MAX_QUERY_WORDS = 60

# A full stop ends a sentence where a capital or a quote follows; after one letter ("J. Smith") it does not.
_SENTENCE_END = re.compile(r"(?<=\w\w[.!?])\s+(?=[\"'(\[]?[A-Z])|(?<=[.!?][\"')\]])\s+(?=[A-Z])|\n\s*\n")
# Text in lower case, as old collections are, has no capitals to go by, and often a space before the full stop.
_LOWER_CASE_END = re.compile(r"(?<=[^\W\d_]{2}[.!?])\s+|(?<=\s[.!?])\s+|\n\s*\n")


def known_item(
    documents: Any,
    key: str = "id",
    on: str | Sequence[str] = DEFAULT_FIELDS,
    n_queries: int = 200,
    seed: int = 0,
) -> Dataset:
    """Build a dataset whose queries are parts of the documents."""
    fields = [on] if isinstance(on, str) else list(on)
    if not fields or n_queries < 1:
        raise InputError(f"on={on!r}, n_queries={n_queries!r}: known_item needs a text field and at least one query.")
    # By default only the text is required.
    rows = each_row(documents, key, None if fields == [*DEFAULT_FIELDS] else fields)
    cut = [(id_name(identity), *_cut(payload, fields)) for identity, _, payload in rows]
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


def _cut(payload: Mapping[str, Any], fields: list[str]) -> tuple[str, str]:
    """Query and rest of a document."""
    texts = [(payload.get(field) or "").strip() for field in fields]
    if len(fields) > 1:
        return " ".join(texts[0].split()), "\n".join(filter(None, texts[1:]))
    end = (_LOWER_CASE_END if texts[0].islower() else _SENTENCE_END).search(texts[0])
    if end is None:
        return "", texts[0]
    return " ".join(texts[0][: end.start()].split()), texts[0][end.end() :]


def _draw(pair: tuple[str, str], seed: int) -> str:
    return hashlib.sha256(json.dumps([seed, *pair]).encode()).hexdigest()
