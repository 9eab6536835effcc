"""SPLADE as an encoder: a text as weights over the vocabulary, most of them zero.

    text -> masked language model -> w_j = max_i log(1 + ReLU(logit_ij)) -> the k heaviest terms -> a row of a csr_array

Each position of a text votes for every vocabulary term, so terms that the text does not hold are activated too. Padding
never votes: a text's vector does not depend on its batch. The model is a sentence-transformers `SparseEncoder`; its
directories are read and written as they are.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from ..errors import InputError, ModelError
from ..files import as_path
from .encoder import EncodingSettings, check_texts, computing, token_batches
from .fingerprint import FingerprintedEncoder
from .loading import length_limit, prompts_of, quiet
from .locate import POOLING_FOLDER
from .splade_model import SpladeModel, check_k_tokens, term_weights
from .splade_parts import build, check, parts_of, route_queries, set_max_length
from .term_pooling import top_terms

logger = logging.getLogger(__name__)

# So many documents without any term are no accident; fewer can be a few lines of punctuation.
COLLAPSED = 32


class Splade(FingerprintedEncoder):
    """A SPLADE model behind the :class:`~cderetrieval.types.Encoder` contract.

    Parameters
    ----------
    model_name_or_path
        Directory or hub name of a SparseEncoder with SPLADE pooling, or of a masked language model.
    model
        In place of a name: a masked language model, with its tokenizer, or a `SparseEncoder`. It is used, not copied.
    tokenizer
        Of a masked language model.
    pooling
        ``"max"`` (SPLADE v2 and later) or ``"sum"`` (the first SPLADE); None: that of the model, else max.
    k_tokens
        Most terms of a text, the heaviest; None: that of the model, else all.
    max_length
        Tokens of a text; saved with the model. None: that of the model.
    dtype
        Number format of the computation, see :func:`~cderetrieval.runtime.autocast`.
    device
        Where to compute; None: the best there is, or where a given model is.
    prompts
        Replace the model's prompts, by name; saved with the model.

    Attributes
    ----------
    model
        The `SparseEncoder`.

    Raises
    ------
    ModelError
        If the model has no masked-language-model head, or its tokenizer is another's.
    ConfigError
        If `k_tokens` is not from 1 to the size of the vocabulary.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_splade
    >>> splade = tiny_splade()
    >>> vectors = splade.encode_document(["owls hunt at night", "bees make honey"])
    >>> vectors.shape == (2, splade.dimension)
    True
    >>> scores = splade.scores(["owls", "bees"], ["owls hunt at night", "bees make honey"])
    >>> scores.shape
    (2,)
    """

    kind = "sparse"

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        model: Any = None,
        tokenizer: Any = None,
        pooling: str | None = None,
        k_tokens: int | None = None,
        max_length: int | None = None,
        dtype: str = "auto",
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        built = build(SpladeModel, model_name_or_path, model, tokenizer, pooling, device)
        self._open(built, max_length, dtype, prompts)
        if k_tokens is not None:
            check_k_tokens(k_tokens, self.dimension)
            built.max_active_dims = k_tokens

    def _open(self, model: Any, max_length: int | None, dtype: str, prompts: Mapping[str, str] | None) -> None:
        """Take over a model that was built."""
        model.eval()
        self.model = model
        self._parts = parts_of(model)
        dimension = check(model, self._parts)
        if max_length is not None:
            set_max_length(model, self._parts, max_length)
        model.prompts.update(prompts or {})
        settings = EncodingSettings(length_limit(model), prompts_of(model), dtype, normalize=False)
        super().__init__(self._parts.transformer.tokenizer, settings, model.device, dimension)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, k_tokens={self.k_tokens})"

    @property
    def k_tokens(self) -> int | None:
        """Most terms of a text; None: all of positive weight."""
        return self.model.max_active_dims

    def _identity(self) -> str:
        own = {"dtype": None, "modules": [repr(module) for module in self.model], "k_tokens": self._limits()}
        return repr(sorted({**dataclasses.asdict(self.settings), **own}.items()))

    def _limits(self) -> Any:
        """What of the numbers of terms belongs into the fingerprint."""
        return self.k_tokens

    def _limit_of(self, prompt_name: str) -> int | None:
        """Most terms of a text under a prompt."""
        return self.k_tokens

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (b, t) to the weights of all terms (b, dimension)."""
        return term_weights(self._parts.transformer, self._parts.pooling, self._features(input_ids, attention_mask))

    def _features(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        return features

    def encode(
        self, texts: Sequence[str], *, prompt_name: str, show_progress: bool = False, k_tokens: int | None = None
    ) -> Any:
        """Term weights of texts under a prompt of the model.

        Parameters
        ----------
        texts
            Any number of strings.
        prompt_name
            ``"query"`` and ``"document"`` always work; other names must be among the model's prompts.
        show_progress
            Show a progress bar on a terminal.
        k_tokens
            Most terms of a text; None: as many as the model was made with.

        Returns
        -------
        csr_array
            Shape (n, dimension), float32; columns ascending in each row, no zeros stored.

        Raises
        ------
        ModelError
            If a weight is not finite, or none of 32 or more documents has a term; of fewer the log says so.
        """
        check_k_tokens(k_tokens, self.dimension)
        limit = self._limit_of(prompt_name) if k_tokens is None else k_tokens
        if prompt_name == "query" and self._parts.static is not None:
            vectors = self._own_terms(check_texts(texts), limit)
        else:
            vectors = self._encode_batches(texts, prompt_name, limit, show_progress)
        check_terms(getattr(vectors, "weights", vectors), expected=prompt_name != "query")
        return vectors

    def _own_terms(self, texts: list[str], limit: int | None) -> csr_array:
        """Queries without inference: the terms that a text holds, by their saved weights."""
        prompt = self.prompt("query")
        with computing("the model"):
            weights = self.model.encode_query(
                texts, prompt=prompt, max_active_dims=limit, save_to_cpu=True, show_progress_bar=False
            )
        if not texts:
            return csr_array((0, self.dimension), dtype=np.float32)
        found = weights.coalesce()
        rows, columns = found.indices().numpy()
        shape = (len(texts), self.dimension)
        return csr_array((found.values().float().numpy(), (rows, columns.astype(np.int32))), shape=shape)

    def _encode_batches(self, texts: Sequence[str], prompt_name: str, limit: int | None, show_progress: bool) -> Any:
        self.model.eval()  # training may have gone on since this encoder was made
        positions: list[int] = []
        parts: list[Any] = []
        batches = token_batches(
            texts,
            self.tokenizer,
            self.settings,
            self.device,
            prompt=self.prompt(prompt_name),
            description=f"encoding {prompt_name}s" if prompt_name in ("query", "document") else "encoding",
            show_progress=show_progress,
        )
        for batch, ids, mask in batches:
            with torch.inference_mode(), self.autocast(), computing("the model"):
                parts.append(self._rows(ids, mask, limit))
            positions += batch
        return self._ordered(parts, np.argsort(np.array(positions, dtype=np.int64)))

    def _rows(self, input_ids: Tensor, attention_mask: Tensor, limit: int | None) -> Any:
        """One batch as sparse rows."""
        return sparse_rows(self.embed(input_ids, attention_mask), limit)

    def _ordered(self, parts: list[Any], order: np.ndarray) -> Any:
        """All batches as one, in the order of the texts."""
        if not parts:
            return csr_array((0, self.dimension), dtype=np.float32)
        return vstack(parts, format="csr")[order]

    def decode(self, vectors: Any, k_tokens: int | None = None) -> list[list[tuple[str, float]]]:
        """Terms and weights of encoded texts, heaviest first.

        Parameters
        ----------
        vectors
            From `encode_query` or `encode_document`.
        k_tokens
            Most terms of a text; None: all.

        Raises
        ------
        InputError
            If the vectors are of another vocabulary.
        """
        check_k_tokens(k_tokens, self.dimension)
        weights = getattr(vectors, "weights", vectors)
        if weights.shape[1] != self.dimension:
            raise InputError(f"vectors have {weights.shape[1]} columns, this model's vocabulary {self.dimension}.")
        decoded = []
        for start, end in pairwise(weights.indptr.tolist()):
            order = start + np.argsort(-weights.data[start:end], kind="stable")[:k_tokens]
            terms = self.tokenizer.convert_ids_to_tokens(weights.indices[order].tolist())
            decoded.append(list(zip(terms, weights.data[order].tolist(), strict=True)))
        return decoded

    def scores(self, queries: Sequence[str], documents: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Score of the i-th query with the i-th document, shape (n,), float32.

        Raises
        ------
        InputError
            If there are not as many queries as documents.
        """
        if len(queries) != len(documents):
            raise InputError(
                f"{len(queries)} queries and {len(documents)} documents: scores compares them pair by pair."
            )
        return self._scores(
            self.encode_query(queries, show_progress=show_progress),
            self.encode_document(documents, show_progress=show_progress),
        )

    def _scores(self, queries: Any, documents: Any) -> np.ndarray:
        return np.asarray((queries * documents).sum(axis=1), dtype=np.float32)

    def inference_free(self, weights: Mapping[str, float] | None = None) -> Splade:
        """The same model for documents; a query is only looked up: its own terms, by given weights.

        Parameters
        ----------
        weights
            Token to weight, such as an inverse document frequency; tokens that are not named weigh nothing. None: 1 for
            every token but the special ones (SPLADE-doc).

        Returns
        -------
        Splade
            It shares this model's modules, and is saved as sentence-transformers saves such models: a router.

        Raises
        ------
        InputError
            If a token is not in the vocabulary.
        """
        model = route_queries(self.model, self._parts, weights)
        return Splade(model=model, dtype=self.settings.dtype, prompts=self.settings.prompts)

    def save_pretrained(self, path: str | Path) -> None:
        """Write the model into a directory that SparseEncoder reads, and, without a router, AutoModelForMaskedLM.

        A SparseEmbed model that lies there is overwritten whole: its embeddings do not stay behind.
        """
        path = as_path(path)
        shutil.rmtree(path / POOLING_FOLDER, ignore_errors=True)
        with quiet():
            self.model.save_pretrained(str(path))


def sparse_rows(weights: Tensor, limit: int | None) -> csr_array:
    """Weights (b, v) as sparse rows, each cut to its heaviest terms."""
    if limit is not None and limit < weights.shape[1]:
        values, ids = top_terms(weights, limit)
        weights = torch.zeros_like(weights).scatter_(1, ids, values)
    rows, columns = weights.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(weights)).cumsum(0)
    indptr = np.concatenate([[0], counts.cpu().numpy()])
    data = weights[rows, columns].float().cpu().numpy()
    return csr_array((data, columns.to(torch.int32).cpu().numpy(), indptr.astype(np.int32)), shape=tuple(weights.shape))


def check_terms(weights: csr_array, *, expected: bool) -> None:
    """Check that weights are finite and, where terms are `expected`, that texts have some.

    Raises
    ------
    ModelError
        If a weight is not finite, or none of many texts has a term.
    """
    finite = np.isfinite(weights.data)
    if not finite.all():
        row = int(np.searchsorted(weights.indptr, np.argmin(finite), side="right")) - 1
        raise ModelError(
            f"the model gave a weight that is not finite for text {row}. Its weights are damaged, or its activations "
            "overflow: try dtype='float32'."
        )
    if not expected or not weights.shape[0] or weights.nnz:
        return
    found = f"the model activates no term for any of {weights.shape[0]} texts"
    if weights.shape[0] >= COLLAPSED:
        raise ModelError(
            f"{found}: it has collapsed, or its head was never trained. Train it again with smaller FLOPS weights or a "
            "slower ramp, or use another model."
        )
    logger.warning("%s; where these are ordinary texts, it has collapsed, or its head was never trained.", found)
