"""What a corpus looks like: sampled, embedded once, saved, inspected, refreshed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

if TYPE_CHECKING:
    from .context import Context as Context
    from .drift import Drift as Drift
else:
    __all__, __getattr__, __dir__ = exports(__name__)
