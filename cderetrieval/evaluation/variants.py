"""The contexts that a model is evaluated in: source, size and seed of each, and how long documents are cut.

A score depends on the sample, so a source can be evaluated under several seeds, and every result names its own. Where
documents are cut, the name of the context says so: passages of ``own+passages`` take in nothing of their document,
those of ``own+passages+document`` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..context.spec import CENTRE, NULL, READY, ContextLike, ContextSpec
from ..errors import ConfigError
from ..models.document_context import ANOTHER, AUTO, NONE, DocumentContext, DocumentContextLike, OfAnother
from ..passages import Passages, PassagesLike
from ..retrieval.names import AnyModel, HybridModel, takes_context
from ..retrieval.rerank import Reranker

# The name of the one variant of a model that takes no context.
NO_CONTEXT = "none"


@dataclass(frozen=True)
class ContextVariant:
    """A context to evaluate a model in; a model that takes none has one variant, called ``"none"``."""

    name: str
    given: ContextLike = "own"
    size: int | None = None
    seed: int = 0
    passages: str | int | None = None
    # "auto" only for hybrids, each part of which has its own.
    document: DocumentContext | str = NONE
    reranker: Reranker | None = None

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
        found = {"context": self.name, "context_size": self.size, "seed": self.seed, "context_digest": self.spec.digest}
        return {**found, **self.cut}

    @property
    def cut(self) -> dict[str, Any]:
        """How documents are cut and what a passage takes in, as JSON values; None twice where they are not cut."""
        if self.passages is None:
            return {"passages": None, "document": None}
        document = self.document
        kept = document.to_dict() if isinstance(document, DocumentContext) else {AUTO: DocumentContext().to_dict()}
        return {"passages": self.passages, "document": kept}


def context_variant(given: ContextLike, size: int | None = None, seed: int = 0) -> ContextVariant:
    """Name a context that a user asks for; a size or seed that cannot change it is dropped."""
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
    model: AnyModel,
    context: ContextLike | ContextVariant = "own",
    context_size: int | None = None,
    seed: int = 0,
    *,
    passages: PassagesLike = None,
    document_context: DocumentContextLike = AUTO,
) -> ContextVariant:
    """The variant for a model and a context that a user asks for."""
    if isinstance(context, ContextVariant):
        return context
    return variants_for(model, [context], context_size, [seed], [passages], [document_context])[0]


def variants_for(
    model: AnyModel,
    contexts: Iterable[ContextLike],
    size: int | None = None,
    seeds: Sequence[int] = (0,),
    passages: Sequence[PassagesLike | Passages] = (None,),
    documents: Sequence[DocumentContextLike] = (AUTO,),
    reranker: Reranker | None = None,
) -> list[ContextVariant]:
    """All variants to evaluate a model in; a reranker is part of their names."""
    if takes_context(model):
        found = [context_variant(given, size, seed) for given in contexts for seed in seeds]
    else:
        found = [ContextVariant(NO_CONTEXT)]
    cut = [_cut(one, how, document, model) for one in found for how in passages for document in documents]
    if reranker is not None:
        name = f"+{reranker.title}@{reranker.depth}"
        cut = [replace(variant, name=variant.name + name, reranker=reranker) for variant in cut]
    return list({(variant.name, variant.seed): variant for variant in cut}.values())


def _cut(
    variant: ContextVariant, how: PassagesLike | Passages, given: DocumentContextLike, model: AnyModel
) -> ContextVariant:
    """The variant with documents cut, and that in its name: only what differs from the default of each."""
    passages = Passages.parse(how)
    if passages.how is None:
        return variant
    if passages.how != AUTO and not isinstance(passages.how, int):
        raise ConfigError(f"passages={passages.how!r} is not evaluated; pass None, 'auto' or a number of word pieces.")
    document = DocumentContext.parse(given)
    if not isinstance(model, HybridModel):
        document = DocumentContext.of(document, model)
    name = variant.name + "+passages" + ("" if passages.how == AUTO else f"-{passages.how}")
    if document == NONE:
        return replace(variant, name=name, passages=passages.how)
    name += "+another" if isinstance(document, OfAnother) else "+document"
    if isinstance(document, DocumentContext):
        values, default = document.to_dict(), DocumentContext().to_dict()
        said = ("fingerprint", ANOTHER)  # by what is trained, and above
        changed = [field for field in values if field not in said and values[field] != default.get(field)]
        name += "".join(f"-{field}{values[field]}" for field in changed)
    return replace(variant, name=name, passages=passages.how, document=document)
