"""Search: `Retriever` over a `Collection`, one model or several with their rankings fused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

if TYPE_CHECKING:
    from .fusion import Fusion as Fusion
    from .hybrid import Hybrid as Hybrid
    from .retriever import Retriever as Retriever
    from .searcher import Searcher as Searcher
else:
    __all__, __getattr__, __dir__ = exports(__name__)
