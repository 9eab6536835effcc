"""The protocols that models fulfil: `Encoder` and `ContextualModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from .queries import Hits as Hits
from .vectors import TermEmbeddings as TermEmbeddings


@runtime_checkable
class Encoder(Protocol):
    """Text to vectors; the one contract between models and everything else."""

    @property
    def dimension(self) -> int:
        """Length of a vector; of a sparse one the size of its vocabulary."""

    @property
    def kind(self) -> str:
        """``"dense"``, ``"sparse"`` or ``"sparse-embed"``."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that determines a vector: weights, tokenizer, prompts, length limit and context."""

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> Any:
        """Vectors of queries (`Vectors` of this encoder's kind), shape (n, dimension), float32."""

    def encode_document(self, texts: Sequence[str], *, show_progress: bool = False) -> Any:
        """Vectors of documents (`Vectors` of this encoder's kind), shape (n, dimension), float32."""


@runtime_checkable
class ContextualModel(Protocol):
    """A model that becomes an :class:`Encoder` once it is given a context."""

    @property
    def context_size(self) -> int:
        """Number of context documents the model was made for (J)."""

    @property
    def exact_context_size(self) -> bool:
        """Whether the weights need exactly that many, so that a smaller corpus is repeated."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights, tokenizer and prompts, without a context."""

    def embed_context(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """First stage: one embedding for each sampled document, shape (J, H), float32."""

    def in_context(self, embeddings: np.ndarray | None, digest: str = "", *, dtype: str = "auto") -> Encoder:
        """Second stage under these context embeddings; `None` is the null context."""


@runtime_checkable
class TermCounting(Protocol):
    """A contextual model that also reads which terms are rare among the context documents."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights, tokenizer and prompts, without a context."""

    def count_terms(self, texts: Sequence[str]) -> np.ndarray | None:
        """In how many of the texts each token occurs, shape (vocabulary,), float32; None: not needed."""

    def in_context(
        self,
        embeddings: np.ndarray | None,
        digest: str = "",
        *,
        terms: np.ndarray | None = None,
        dtype: str = "auto",
    ) -> Encoder:
        """Second stage under these context embeddings and terms; `None` is the null context."""


def is_contextual(model: Any) -> TypeGuard[ContextualModel]:
    """Whether a model needs a context to become an encoder."""
    return hasattr(model, "in_context")
