"""What a corpus looks like: sampled, embedded once, saved, inspected, refreshed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "Context": "context",
    "Drift": "drift",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .context import Context as Context
    from .drift import Drift as Drift
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
