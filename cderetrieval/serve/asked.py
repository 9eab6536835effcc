"""What clients ask for, checked and read."""

from __future__ import annotations

import json
from typing import Any

from ..errors import InputError

# Characters of a query, and queries of a request.
CHARACTERS, QUERIES = 2**15, 256


def check_queries(queries: list[str]) -> None:
    """Refuse queries that nobody would type."""
    if len(queries) > QUERIES:
        raise InputError(f"there are {len(queries):,} queries; ask at most {QUERIES} at a time.")
    for number, query in enumerate(queries):
        if len(query) > CHARACTERS:
            raise InputError(f"query {number} has {len(query):,} characters; at most {CHARACTERS:,} are searched for.")
        if not query.strip():
            raise InputError(f"query {number} is empty.")


def filter_text(wanted: dict[str, Any] | None) -> str | None:
    """A filter as JSON, equal for equal filters."""
    return None if wanted is None else json.dumps(wanted, sort_keys=True)


def parsed(text: str, what: str) -> Any:
    """What a JSON text in an address says."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{what}={text[:80]!r} is no JSON ({error}); a text is quoted, {what}="a".') from None
