"""Search: `Retriever` over a `Collection`, one model or several with their rankings fused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "Fusion": "fusion",
    "Hybrid": "hybrid",
    "Retriever": "retriever",
    "Searcher": "searcher",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .fusion import Fusion as Fusion
    from .hybrid import Hybrid as Hybrid
    from .retriever import Retriever as Retriever
    from .searcher import Searcher as Searcher
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
