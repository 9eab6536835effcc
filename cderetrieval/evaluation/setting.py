"""The context that a contextual model is evaluated in: where it comes from, how large it is, under which seed.

A score is a random variable of the context's sample. So one source is evaluated under several seeds, and each result
says which one it had. Settings that no seed can change (the null context, a ready `Context`) exist once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..context.context import Context
from ..context.sample import Sampler
from ..context.spec import ContextSpec as Spec
from ..embedding import ContextSpec
from ..errors import ConfigError, ContextError
from ..files import as_path
from ..fusion.model import AnyModel, takes_context
from ..types import ContextualModel

# The setting of models that take no context.
PLAIN = "none"
NAMES = ("own", "random", "null")


@dataclass(frozen=True)
class ContextSetting:
    """Where a context comes from.

    Attributes
    ----------
    name
        In results: ``"own"``, ``"random"``, ``"null"``, ``"texts"``, ``"context"``, a file's stem, or ``"none"`` for a
        model that takes none.
    spec
        What a :class:`~cderetrieval.retriever.Retriever` takes as its context.
    size
        Number of context documents; None: what the model was made for.
    seed
        Of the sample.

    Examples
    --------
    >>> context_setting("null").spec is None, context_setting("random", seed=2).folder
    (True, 'random/seed-2')
    """

    name: str
    spec: ContextSpec
    size: int | None = None
    seed: int = 0

    @property
    def is_sampled(self) -> bool:
        """Whether it is sampled from what is evaluated."""
        return isinstance(self.spec, str) and self.spec == "own" and self.name != PLAIN

    @property
    def folder(self) -> str:
        """Where its results go below the model's."""
        return f"{self.name}/seed-{self.seed}"

    def make(
        self, model: ContextualModel, pool: Iterable[tuple[Hashable, str]], *, show_progress: bool = False
    ) -> Context:
        """Make the context, as a :class:`~cderetrieval.retriever.Retriever` makes it from the same documents.

        Parameters
        ----------
        model
            A contextual model.
        pool
            Ids and texts to sample from; only read where the context is sampled.
        show_progress
            Show a progress bar on a terminal.
        """
        if not self.is_sampled:
            return Spec.parse(self.spec).make(model, seed=self.seed, size=self.size, show_progress=show_progress)
        sampler = Sampler(self.size or model.context_size, self.seed)
        for identity, text in pool:
            sampler.offer(identity, text)
        if not sampler.items():
            raise ContextError("there is no text to sample a context from; use the random or the null context.")
        ids, texts = zip(*sampler.items(), strict=True)
        return Context.from_texts(
            model, texts, ids=ids, source="own", seed=self.seed, size=self.size, show_progress=show_progress
        )

    def identity(self) -> dict[str, Any]:
        """What must be equal for two results to belong to one setting, as JSON values."""
        return {"context": self.name, "context_size": self.size, "seed": self.seed, "context_digest": self._digest()}

    def _digest(self) -> str | None:
        if isinstance(self.spec, Context):
            return self.spec.digest
        if self.spec is None or (isinstance(self.spec, str) and self.spec in NAMES):
            return None
        if isinstance(self.spec, str | Path):
            return hashlib.sha256(as_path(self.spec).read_bytes()).hexdigest()
        return hashlib.sha256("\0".join(self.spec).encode("utf-8", "surrogatepass")).hexdigest()


def context_setting(spec: ContextSpec, size: int | None = None, seed: int = 0) -> ContextSetting:
    """Name what a user said of the context; ``"null"`` and None are the same.

    Raises
    ------
    ConfigError
        If it is neither a known word nor a file, or the size is below 1.
    """
    if size is not None and size < 1:
        raise ConfigError(f"context_size={size!r} must be at least 1; for none use the null context.")
    if spec is None or (isinstance(spec, str) and spec == "null"):
        return ContextSetting("null", None)
    if isinstance(spec, Context):
        return ContextSetting("context", spec)
    if isinstance(spec, str) and spec in NAMES:
        return ContextSetting(spec, spec, size, seed)
    if isinstance(spec, str | Path):
        path = as_path(spec)
        if not path.is_file():
            raise ConfigError(f"context {str(spec)!r} is neither {', '.join(NAMES)} nor a file.")
        if path.suffix == ".safetensors":
            return ContextSetting(path.stem, path)
        return ContextSetting(path.stem, path, size, seed)
    return ContextSetting("texts", list(spec), size, seed)


def settings_for(
    model: AnyModel, specs: Iterable[ContextSpec], size: int | None = None, seeds: Sequence[int] = (0,)
) -> list[ContextSetting]:
    """All settings to evaluate a model in; one, ``"none"``, for a model that takes no context."""
    if not takes_context(model):
        return [ContextSetting(PLAIN, "own")]
    settings = (context_setting(spec, size, seed) for spec in specs for seed in seeds)
    return list({(setting.name, setting.seed): setting for setting in settings}.values())
