"""`Hybrid`: a retriever with several models, by the name and the arguments that it had before they were one class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ..context.spec import OWN, ContextLike, ContextSpec
from ..errors import InputError
from ..files import closing_on_error
from ..models.locate import HYBRID
from ..store import Store
from .embedder import Model
from .fusion import Fusion
from .local import LocalCollection
from .merge import merge
from .names import Models, named_models
from .retriever import Retriever


class Hybrid(Retriever):
    """Retrieval by several models at once, their rankings fused: a :class:`~.retriever.Retriever` of a list of models.

    Parameters
    ----------
    parts
        Models or names of models (see :func:`cderetrieval.load`); or a dictionary of names to these.
    fusion
        ``"rrf"`` (reciprocal ranks), ``"weighted"`` (normalised scores), or a :class:`~.fusion.Fusion`.
    weights, normalization, rrf_k, depth
        See :class:`~.fusion.Fusion`.
    options
        As in a retriever.

    Raises
    ------
    InputError
        If there are no parts.
    ConfigError
        If the fusion is unknown, or weights are negative or not one for each part.

    Examples
    --------
    >>> from cderetrieval.testing import HashEncoder, tiny_model
    >>> hybrid = Hybrid({"contextual": tiny_model(), "hash": HashEncoder()}, on="text")
    >>> hybrid.add([{"id": "a", "text": "owls hunt at night"}, {"id": "b", "text": "bees make honey"}])
    Hybrid(2 documents, models=['contextual', 'hash'], fusion='rrf')
    >>> hybrid("bees make honey", k=1)
    [[{'id': 'b', 'similarity': 0.333333}]]
    """

    def __init__(
        self,
        parts: Models,
        *,
        fusion: str | Fusion = "rrf",
        weights: Sequence[float] | None = None,
        normalization: str = "min-max",
        rrf_k: int = Fusion.rrf_k,
        depth: int = Fusion.depth,
        context: ContextLike | ContextSpec = OWN,
        **options: Any,
    ) -> None:
        if not isinstance(parts, Sequence | Mapping) or (isinstance(parts, str) and not parts.startswith(HYBRID)):
            raise InputError(f"parts is {type(parts).__name__}; pass a list of models or names.")
        if not isinstance(fusion, Fusion):
            fusion = Fusion(fusion, None if weights is None else tuple(weights), normalization, rrf_k, depth)
        given: dict[str, Retriever] = {}
        if not isinstance(parts, str):
            parts, given = _models(parts)
            options = {**_fields(given), **options}
        super().__init__(parts, fusion=fusion, context=context, **options)
        if any(len(retriever) for retriever in given.values()):
            with closing_on_error(self):
                self._copy(given)

    def _copy(self, given: Mapping[str, Retriever]) -> None:
        """Copy the documents of retrievers, and the vectors that each has; the other models embed."""
        _check_same(given)
        assert isinstance(self._collection, LocalCollection)
        stores: list[Store] = []
        for name in self._parts:
            collection = given[name]._collection if name in given else Store()
            if not isinstance(collection, Store):
                raise InputError(f"part {name!r} lives on a server; a hybrid keeps its parts together on one machine.")
            stores.append(collection)
        with self._collection.transaction():
            merge(stores, self._collection)
            self._complete()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: Any = None,
        models: Mapping[str, str | Path | Model] | None = None,
        **options: Any,
    ) -> Self:
        """Open an index of several models; ``models=`` is another name of ``model=``."""
        hybrid = super().load(path, model=models if model is None else model, **options)
        if hybrid.fusion is None:
            hybrid.close()
            raise InputError(f"{path} is an index of one model: open it with Retriever.load.")
        return hybrid


def _models(parts: Any) -> tuple[dict[str, Any], dict[str, Retriever]]:
    """Models by name, and the retrievers that some of them were given as."""
    values = list(parts.values() if isinstance(parts, Mapping) else parts)
    models = [_model(one) if isinstance(one, Retriever) else one for one in values]
    names = list(parts) if isinstance(parts, Mapping) else list(named_models(models))
    given = {name: one for name, one in zip(names, values, strict=True) if isinstance(one, Retriever)}
    return dict(zip(names, models, strict=True)), given


def _model(retriever: Retriever) -> Any:
    if retriever.fusion is not None:
        raise InputError(f"a part is a hybrid of {list(retriever.parts)}: pass its models one by one.")
    embedder = retriever._first.embedder
    return embedder.name or embedder.model


def _fields(given: Mapping[str, Retriever]) -> dict[str, Any]:
    """How retrievers read documents, which must be the same in all of them."""
    fields: dict[str, Any] = {}
    for name, retriever in given.items():
        for field in ("key", "on"):
            value = getattr(retriever.collection.settings, field)
            if fields.setdefault(field, value) != value:
                raise InputError(
                    f"part {name!r} reads documents differently: {field} is {value!r}, not {fields[field]!r}. Make all "
                    "parts with the same key and on."
                )
    if given:
        warnings.warn(
            "a Hybrid of ready retrievers copies their documents and vectors; pass models or their names instead.",
            DeprecationWarning,
            stacklevel=3,
        )
    return fields


def _check_same(given: Mapping[str, Retriever]) -> None:
    """Refuse retrievers of different documents; one without any is filled."""
    # By repr: 1, 1.0 and True are three ids, and equal in Python.
    full = {name: {repr(row[0]) for row in one._collection.rows()} for name, one in given.items() if len(one)}
    first = next(iter(full))
    for name in full:
        if different := full[first] ^ full[name]:
            raise InputError(
                f"parts {first!r} and {name!r} hold different documents: {len(different)} ids are in one only, the "
                f"first is {min(different)}. Give parts with the same documents, or with none: those are filled."
            )
