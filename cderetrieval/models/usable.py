"""What sentence-transformers' users and mteb call on a model, for contextual ones: `encode`, and mteb's protocols.

Both are about a model that knows no corpus yet: `encode` embeds in the null context, and mteb gives each task's corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..lazy import GIVEN


class Usable:
    """Base of contextual models."""

    def encode(self, texts: Any, *, prompt_name: str = "document", show_progress_bar: bool = False, **mteb: Any) -> Any:
        """Vectors without a corpus, in the null context; in one: ``context.encoder(model).encode_document(texts)``.

        Parameters
        ----------
        texts
            One text, or a list of them.
        prompt_name
            ``"document"``, ``"query"``, or another prompt of the model.
        show_progress_bar
            Show a progress bar on a terminal.
        **mteb
            What mteb passes with the texts of a task.

        Returns
        -------
        numpy.ndarray
            Shape (n, dimension), or (dimension,) for one text; float32.
        """
        if "task_metadata" in mteb:
            return self._for_mteb().encode(texts, **mteb)
        if mteb:
            raise InputError(f"encode takes prompt_name= and show_progress_bar=, and not {', '.join(map(repr, mteb))}.")
        model: Any = self
        return encoded(model.in_context(None), texts, prompt_name, show_progress_bar)

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's description of the model."""
        return self._for_mteb().mteb_model_meta

    def index(self, corpus: Any, **task: Any) -> None:
        """For mteb: take the corpus, from which the context is sampled."""
        vars(self)["_adapter"] = self._for_mteb()
        vars(self)["_adapter"].index(corpus, **task)

    def search(self, queries: Any, **task: Any) -> Any:
        """For mteb: hits of each query in the corpus."""
        if (adapter := vars(self).pop("_adapter", None)) is None:
            raise InputError("index(corpus) must come before search(queries); to search documents use a Retriever.")
        return adapter.search(queries, **task)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Inner products, shape (n, m)."""
        return self._for_mteb().similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Inner product of each pair, shape (n,)."""
        return self._for_mteb().similarity_pairwise(embeddings1, embeddings2)

    def _for_mteb(self) -> Any:
        return GIVEN["mteb"](self)


def encoded(encoder: Any, texts: str | Sequence[str], prompt_name: str, show_progress: bool = False) -> np.ndarray:
    """Vectors of texts, or the vector of one."""
    given = [texts] if isinstance(texts, str) else list(texts)
    vectors: np.ndarray = encoder.encode(given, prompt_name=prompt_name, show_progress=show_progress)
    return vectors[0] if isinstance(texts, str) else vectors
