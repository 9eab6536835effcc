"""The kinds of models that can be trained: contextual, dense, SPLADE, SparseEmbed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .base import Family

# Architecture of a recipe to module and class.
_FAMILIES = {
    "biencoder": (".contextual", "ContextualFamily"),
    "joint": (".contextual", "ContextualFamily"),
    "cached": (".contextual", "ContextualFamily"),
    "dense": (".dense", "DenseFamily"),
    "splade": (".sparse", "SpladeFamily"),
    "sparse-embed": (".sparse", "SparseEmbedFamily"),
}


def family_of(architecture: str) -> Family:
    """The family of a recipe's architecture."""
    module, name = _FAMILIES[architecture]
    return cast("Family", getattr(import_module(module, __name__), name)())
