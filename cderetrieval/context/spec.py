"""What a user says of the context, parsed once: ``"own"``, ``"random"``, ``"null"``, texts, a file, or a `Context`.

Every entry point (a retriever, evaluation, the command line, jobs on a cluster) parses its ``context=`` here, so the
same words mean the same everywhere, and a mistake is found before a model is loaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ContextError
from ..files import as_path
from ..types import ContextualModel
from .context import Context, read_texts
from .sample import Sampler

ContextLike = Context | Sequence[str] | str | Path | None

OWN, RANDOM, NULL, CENTRE = "own", "random", "null", "centre"
TEXTS, FILE, READY = "texts", "file", "context"


@dataclass(frozen=True)
class ContextSpec:
    """Where a context comes from; made by :meth:`parse`."""

    source: str = OWN
    texts: tuple[str, ...] = ()
    path: Path | None = None
    context: Context | None = None

    @classmethod
    def parse(cls, given: ContextLike | ContextSpec) -> ContextSpec:
        """Parse what a user wrote."""
        if isinstance(given, ContextSpec):
            return given
        if given is None:
            return cls(NULL)
        if isinstance(given, Context):
            return cls(READY, context=given)
        if isinstance(given, str) and given in (OWN, RANDOM, NULL, CENTRE):
            return cls(given)
        if isinstance(given, str | Path):
            path = as_path(given)
            if not os.path.isfile(path):  # Path.is_file raises where the string is too long for a name
                raise ContextError(
                    f"context={str(given)[:80]!r} is neither 'own', 'random', 'null' nor a file. Pass one of them, a "
                    "list of texts, a Context, or None."
                )
            return cls(FILE, path=path)
        if isinstance(given, Mapping | bytes) or not isinstance(given, Iterable):
            raise ContextError(
                f"context= is {type(given).__name__}; pass 'own', 'random', 'null', a list of texts, a file, a "
                "Context, or None."
            )
        return cls(TEXTS, texts=tuple(given))

    @property
    def is_own(self) -> bool:
        """Whether it is sampled from the corpus itself."""
        return self.source == OWN

    @property
    def digest(self) -> str | None:
        """Digest of the context, the file or the texts; None for the words, which need none."""
        if self.context is not None:
            return self.context.digest
        if self.path is not None:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        if self.source == TEXTS:
            return hashlib.sha256("\0".join(self.texts).encode("utf-8", "surrogatepass")).hexdigest()
        return None

    def make(
        self,
        model: ContextualModel,
        pool: Iterable[tuple[Hashable, str]] | Sampler = (),
        *,
        seed: int = 0,
        size: int | None = None,
        show_progress: bool = False,
    ) -> Context:
        """Make the context; `pool` (ids and texts, or a sampler that has seen them) is read for ``"own"`` alone."""
        options: dict[str, Any] = {"seed": seed, "size": size, "show_progress": show_progress}
        if self.source == NULL:
            return Context.null(model)
        if self.source == RANDOM:
            return Context.random(model, seed=seed, size=size)
        if self.source == TEXTS:
            return Context.from_texts(model, self.texts, **options)
        context = self.context
        if self.path is not None:
            if self.path.suffix != ".safetensors":
                return Context.from_texts(model, read_texts(self.path), source="file", **options)
            context = Context.load(self.path)
        if context is not None:  # a null context is empty, and so false
            context.check(model)
            return context
        if self.source == CENTRE:
            raise ContextError(
                "context='centre' makes another model of a dense one; name the model 'centre:MODEL' instead."
            )
        sample = _sampled(pool, size or model.context_size, seed)
        if not sample:
            raise ContextError("there is no text to sample a context from; use the random or the null context.")
        ids, texts = zip(*sample, strict=True)
        return Context.from_texts(model, texts, ids=ids, source="own", **options)


def _sampled(pool: Iterable[tuple[Hashable, str]] | Sampler, size: int, seed: int) -> list[tuple[Hashable, str]]:
    if isinstance(pool, Sampler):
        return pool.items()
    sampler = Sampler(size, seed)
    for document_id, text in pool:
        sampler.offer(document_id, text)
    return sampler.items()
