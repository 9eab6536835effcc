"""What clients ask for, checked and read."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from ..errors import InputError

# Characters of a query, and queries of a request.
CHARACTERS, QUERIES = 2**15, 256


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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


def filter_of(text: str | None) -> dict[str, Any] | None:
    """A filter in an address."""
    if text is None:
        return None
    found = parsed(text, "filter")
    if not isinstance(found, dict | None):
        raise InputError(f'filter={text[:80]!r} is no object; write fields and values, filter={{"year": 2020}}.')
    return found


def parsed(text: str, what: str) -> Any:
    """What a JSON text in an address says."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{what}={text[:80]!r} is no JSON ({error}); a text is quoted, {what}="a".') from None
