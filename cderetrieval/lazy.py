"""Names that a package offers and imports on first use: ``import cderetrieval`` loads neither torch nor faiss.

Which they are is said once, to type checkers, in a block under ``if TYPE_CHECKING``.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

# What lower layers need of higher ones, by name; the front of the package, which alone may know all layers, puts it in.
GIVEN: dict[str, Callable[..., Any]] = {}


def finder(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make `__getattr__` of a package from a map of names to the modules that hold them, or are them."""

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f".{modules[name]}", package)
        return module if modules[name] == name else getattr(module, name)

    return find


def offered(package: str) -> dict[str, str]:
    """Names that a package offers, each with the module that holds it: its imports under ``if TYPE_CHECKING``."""
    front = ast.parse(inspect.getsource(sys.modules[package])).body
    blocks = (node for node in front if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = (node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.name: node.module or alias.name for node in imports for alias in node.names}


def exports(package: str, *others: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__all__`, `__getattr__` and `__dir__` of a package; `others` are names that it has itself."""
    modules = offered(package)
    names = [*modules, *others]
    return names, finder(package, modules), lambda: sorted(names)
