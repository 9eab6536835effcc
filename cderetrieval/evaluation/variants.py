"""The contexts that a model is evaluated in: the source, size and seed of each.

A score depends on the sample, so a source can be evaluated under several seeds, and every result names its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..context.spec import CENTRE, NULL, READY, ContextLike, ContextSpec
from ..errors import ConfigError
from ..retrieval.names import AnyModel, takes_context

# The name of the one variant of a model that takes no context.
NO_CONTEXT = "none"


@dataclass(frozen=True)
class ContextVariant:
    """A context to evaluate a model in; a model that takes none has one variant, called ``"none"``."""

    name: str
    given: ContextLike = "own"
    size: int | None = None
    seed: int = 0

    @property
    def spec(self) -> ContextSpec:
        """Where the context comes from."""
        return ContextSpec.parse(self.given)

    @property
    def folder(self) -> str:
        """Folder of the results, below the model's."""
        return f"{self.name}/seed-{self.seed}"

    def identity(self) -> dict[str, Any]:
        """What two results of one variant have in common, as JSON values."""
        return {"context": self.name, "context_size": self.size, "seed": self.seed, "context_digest": self.spec.digest}


def context_variant(given: ContextLike, size: int | None = None, seed: int = 0) -> ContextVariant:
    """Name a context that a user asks for; a size or seed that cannot change it is dropped.

    >>> context_variant("null").name, context_variant("random", seed=2).folder
    ('null', 'random/seed-2')
    """
    if size is not None and size < 1:
        raise ConfigError(f"context_size={size!r} must be at least 1; for none use the null context.")
    spec = ContextSpec.parse(given)
    if spec.source == CENTRE:
        raise ConfigError("context='centre' is not evaluated as a context: name the model 'centre:MODEL' instead.")
    if spec.source == NULL:
        return ContextVariant("null", None)
    if spec.source == READY:
        return ContextVariant("context", given)
    if spec.texts:
        given = list(spec.texts)  # an iterator can be read once
    name = spec.source if spec.path is None else spec.path.stem
    if spec.path is not None and spec.path.suffix == ".safetensors":
        return ContextVariant(name, given)
    return ContextVariant(name, given, size, seed)


def as_variant(
    model: AnyModel, context: ContextLike | ContextVariant = "own", context_size: int | None = None, seed: int = 0
) -> ContextVariant:
    """The variant for a model and a context that a user asks for."""
    return context if isinstance(context, ContextVariant) else variants_for(model, [context], context_size, [seed])[0]


def variants_for(
    model: AnyModel, contexts: Iterable[ContextLike], size: int | None = None, seeds: Sequence[int] = (0,)
) -> list[ContextVariant]:
    """All variants to evaluate a model in."""
    if not takes_context(model):
        return [ContextVariant(NO_CONTEXT)]
    variants = (context_variant(given, size, seed) for given in contexts for seed in seeds)
    return list({(variant.name, variant.seed): variant for variant in variants}.values())
