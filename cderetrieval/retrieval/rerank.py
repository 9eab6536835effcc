"""Rerank hits: a cross-encoder reads a query and a passage together, which is slower than vectors, and better.

Search finds `depth` candidates for each query; the cross-encoder scores the query beside the best passage of each, and
they are sorted by that score. What was found below them keeps its order. Nogueira & Cho 2019 (arXiv 1901.04085).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError, ModelError
from ..models.locate import find, short_name

# A cross-encoder, its name or directory, any object with `predict(pairs)`, or a `Reranker`.
RerankLike = Any


@dataclass(frozen=True)
class Reranker:
    """A cross-encoder, and how many candidates of each query it reads.

    Parameters
    ----------
    model
        Name or directory of a cross-encoder, loaded when it is first needed; or an object whose ``predict(pairs)``
        scores pairs of query and passage, a ``sentence_transformers.CrossEncoder`` for example.
    depth
        Candidates of each query.
    device
        Where a cross-encoder that is loaded computes; None: the best there is.

    Examples
    --------
    >>> class Shorter:
    ...     def predict(self, pairs):
    ...         return [-len(passage) for _, passage in pairs]
    >>> hits = [[{"id": "a", "similarity": 0.9}, {"id": "b", "similarity": 0.8}]]
    >>> Reranker(Shorter()).order(["owls"], [["owls hunt at night", "owls"]], hits)
    [[{'id': 'b', 'similarity': -4.0}, {'id': 'a', 'similarity': -18.0}]]
    """

    model: Any
    depth: int = 50
    device: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str | os.PathLike) and not callable(getattr(self.model, "predict", None)):
            raise ConfigError(
                f"rerank={self.model!r} is no cross-encoder: pass its name or directory, or an object with "
                "predict(pairs)."
            )
        if not isinstance(self.depth, int) or self.depth < 1:
            raise ConfigError(f"depth={self.depth!r} must be a whole number of at least 1: candidates to rerank.")

    @classmethod
    def of(cls, given: RerankLike | None, depth: int = 50, device: str | None = None) -> Reranker | None:
        """The reranker that a user asks for; None: none."""
        return given if given is None or isinstance(given, cls) else cls(given, depth, device)

    @property
    def title(self) -> str:
        """Name of the cross-encoder, as results show it."""
        return short_name(self.model) if isinstance(self.model, str | os.PathLike) else type(self.model).__name__

    @cached_property
    def _scorer(self) -> Any:
        if isinstance(self.model, str | os.PathLike):
            return load_cross_encoder(self.model, self.device)
        return self.model

    def order(
        self, queries: Sequence[str], passages: Sequence[list[str]], hits: Sequence[list[dict[str, Any]]]
    ) -> list[list[dict[str, Any]]]:
        """Hits of each query in their new order, with the scores of the cross-encoder as similarities.

        Hits below `depth` follow, as far below the last one as they were.
        """
        pairs = [(query, text) for query, own in zip(queries, passages, strict=True) for text in own[: self.depth]]
        scores = iter(_scores(self._scorer, pairs))
        return [self._ordered(ranking, [next(scores) for _ in ranking[: self.depth]]) for ranking in hits]

    def _ordered(self, ranking: list[dict[str, Any]], scores: list[float]) -> list[dict[str, Any]]:
        order = np.argsort(-np.array(scores), kind="stable").tolist()
        read = [{**ranking[place], "similarity": scores[place]} for place in order]
        rest = ranking[self.depth :]
        if rest:
            last, shift = min(scores), ranking[self.depth - 1]["similarity"]
            rest = [{**hit, "similarity": last - 1.0 - (shift - hit["similarity"])} for hit in rest]
        return read + rest


def passage_text(hit: dict[str, Any]) -> str:
    """What is read of a hit: its best passage, under its headings."""
    heading, text = hit["passage"]["heading"], hit["passage"]["text"]
    return f"{heading}\n{text}" if heading else str(text)


def _scores(model: Any, pairs: list[tuple[str, str]]) -> list[float]:
    if not pairs:
        return []
    found = np.asarray(model.predict(pairs), dtype=np.float64)
    if found.shape not in ((len(pairs),), (len(pairs), 1)):
        raise ModelError(
            f"the cross-encoder gave scores of shape {found.shape} for {len(pairs)} pairs; it must give one score for "
            "each. A model with several labels cannot rerank."
        )
    if not np.isfinite(found).all():
        raise ModelError("the cross-encoder gave a score that is no number. Try device='cpu', or another model.")
    scores: list[float] = found.reshape(-1).tolist()
    return scores


def load_cross_encoder(name: str | os.PathLike[str], device: str | None = None) -> Any:
    """Load a cross-encoder from a directory or the hub: safetensors, no code; its scores are logits.

    A sigmoid, which many of these models end with, would make large scores equal.
    """
    from sentence_transformers import CrossEncoder
    from torch import nn

    from ..models.directory import SAFE, opened
    from ..runtime import pick_device

    directory: Path = find(os.fspath(name))
    with opened(directory) as view:
        # A sigmoid, which many of these models end with, would make large scores equal.
        model = CrossEncoder(str(view), device=str(pick_device(device)), activation_fn=nn.Identity(), **SAFE)
    if getattr(model, "num_labels", 1) != 1:
        raise ModelError(f"{directory} gives {model.num_labels} labels for a pair; a reranker gives one score.")
    return model


def check_texts_for(queries: Sequence[str] | None) -> Sequence[str]:
    """Queries as texts, which a cross-encoder reads."""
    if queries is None:
        raise InputError("a cross-encoder reads texts: pass queries as texts, or open the index without rerank=.")
    return queries
