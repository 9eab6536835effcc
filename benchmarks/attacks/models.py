"""Model directories made to run code when they are loaded."""

from __future__ import annotations

from .child import Report


def run() -> Report:
    """Try each."""
    return Report()
