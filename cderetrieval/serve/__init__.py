"""HTTP over an index, and a search page: ``cderetrieval serve index/``. Needs the extra ``serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

# Public name to the module that holds it.
_PUBLIC = {
    "create_app": "app",
    "serve": "run",
}
__all__ = [*_PUBLIC]

if TYPE_CHECKING:
    from .app import create_app as create_app
    from .run import serve as serve
else:
    __getattr__, __dir__ = exports(__name__, _PUBLIC)
