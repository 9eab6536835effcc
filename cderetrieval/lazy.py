"""Names that a package offers and imports on first use: ``import cderetrieval`` loads neither torch nor faiss.

Type checkers read the same names from a block under ``if TYPE_CHECKING``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

# What lower layers need of higher ones, by name; the front of the package, which alone may know all layers, puts it in.
GIVEN: dict[str, Callable[..., Any]] = {}


def exports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` of a package from a map of names to the modules that hold them, or are them."""

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f".{modules[name]}", package)
        return module if modules[name] == name else getattr(module, name)

    return find, lambda: sorted(import_module(package).__all__)
