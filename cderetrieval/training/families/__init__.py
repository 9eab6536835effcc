"""The kinds of models that can be trained: contextual, dense, SPLADE, SparseEmbed, document context."""

from ..recipes import Recipe
from .base import Family
from .contextual import ContextualFamily
from .dense import DenseFamily
from .document import DocumentContextFamily
from .sparse import SparseEmbedFamily, SpladeFamily

_FAMILIES: dict[str, type[Family]] = {
    **dict.fromkeys(("biencoder", "joint", "cached"), ContextualFamily),
    "dense": DenseFamily,
    "document-context": DocumentContextFamily,
    "splade": SpladeFamily,
    "sparse-embed": SparseEmbedFamily,
}


def family_of(recipe: Recipe) -> Family:
    """The family of a recipe's architecture."""
    return _FAMILIES[recipe.architecture](recipe)
