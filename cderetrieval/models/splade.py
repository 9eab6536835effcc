"""SPLADE: a text as weights over the vocabulary, most of them zero.

    text -> masked language model -> w_j = max_i log(1 + ReLU(logit_ij)) -> the k heaviest terms -> a row of a csr_array

Each token i votes for every vocabulary term j, so terms that the text does not hold are activated too. The model is a
sentence-transformers `SparseEncoder` (:mod:`.mlm`); any `SparseEncoder` reads what is saved here.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from ..errors import ConfigError, InputError, ModelError
from ..files import as_path
from ..runtime import Compute, autocast, check_texts, is_cpu
from ..vectors import join, take
from .bert import HEAD_BIAS, Bert, read_bert
from .bert_onnx import OnnxBert, uses_onnx
from .encoder import EncodingSettings, computing
from .fingerprint import FingerprintedEncoder, MadeOf, made_of_bert
from .loading import length_limit, prompts_of, quiet
from .locate import POOLING_FOLDER, find
from .terms import check_k_tokens, check_terms, heaviest

if TYPE_CHECKING:
    from torch import Tensor


class Splade(FingerprintedEncoder):
    """A SPLADE model behind the :class:`~cderetrieval.types.Encoder` contract.

    Parameters
    ----------
    model_name_or_path
        Directory or hub name of a SparseEncoder with SPLADE pooling, or of a masked language model.
    model
        In place of a name: a masked language model, with its tokenizer, or a `SparseEncoder`. It is used, not copied.
    tokenizer
        Directory of a masked language model.
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
    runtime, precision
        What computes, and with which weights, see :func:`~cderetrieval.load`; for BERT models in a directory, where
        `pooling`, `max_length` and `prompts` are the model's own.

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
    >>> splade.scores(["owls", "bees"], ["owls hunt at night", "bees make honey"]).shape
    (2,)
    """

    kind = "sparse"
    # The model as it lies in its directory, as long as ONNX Runtime computes it, and its modules, once they are loaded.
    _plain: Bert | None = None
    _model: Any = None

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
        runtime: str = "auto",
        precision: str = "float32",
    ) -> None:
        self.compute, bert = Compute(device, dtype, runtime, precision), None
        if all(value is None for value in (model, tokenizer, pooling, max_length, prompts)) and model_name_or_path:
            directory = find(str(model_name_or_path))
            bert = read_bert(directory, masked=True) if is_cpu(device) and dtype != "bfloat16" else None
        if uses_onnx(self.compute, str(model_name_or_path or type(model).__name__), bert is not None) and bert:
            self._plain, self._computer = bert, OnnxBert(bert, int8=precision == "int8")
            settings = EncodingSettings(bert.max_length, prompts_of(bert), dtype, normalize=False)
            super().__init__(bert.tokenizer, settings, "cpu", bert.config.vocab_size)
        else:
            self._load(model_name_or_path, model, tokenizer, pooling, max_length, prompts)
        if k_tokens is not None:
            check_k_tokens(k_tokens, self.dimension)
            if self._plain is not None:
                self._plain = dataclasses.replace(self._plain, k_tokens=k_tokens)
            else:
                self.model.max_active_dims = k_tokens

    def _load(self, name: str | Path | None, model: Any = None, tokenizer: Any = None, *settings: Any) -> Any:
        from .mlm import SpladeModel

        network = SpladeModel.make(name, model, tokenizer, self.compute.device)
        self._open(network, *settings)
        return network

    @property
    def model(self) -> Any:
        """The `SparseEncoder`; once it was asked for, it computes, because it may be trained. In int8 it does not."""
        if self._model is None and (bert := self._plain) is not None:
            self._load(bert.directory).max_active_dims = bert.k_tokens
            if self.compute.precision != "int8":
                self._plain = None
        return self._model

    def _open(
        self,
        model: Any,
        pooling: str | None = None,
        max_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        """Take over a model, once its parts fit each other."""
        if pooling not in (None, "max", "sum"):
            raise ConfigError(f"pooling={pooling!r} is unknown; use 'max' or 'sum'.")
        self._model = model.eval()
        self.pooling.pooling_strategy = pooling or self.pooling.pooling_strategy
        size, tokenizer = int(self.transformer.model.config.vocab_size), self.transformer.tokenizer
        if len(tokenizer) > size:
            raise ModelError(
                f"the tokenizer has {len(tokenizer)} tokens, the model's vocabulary {size}: they do not belong "
                "together. Use the tokenizer that the model was trained with."
            )
        if self.query_weights is not None and self.query_weights.num_dimensions != size:
            raise ModelError(
                f"queries have weights for {self.query_weights.num_dimensions} terms, documents for {size}."
            )
        if model.similarity_fn_name != "dot":
            raise ConfigError(
                f"this model compares vectors by {model.similarity_fn_name!r}, an inverted index by inner product: use "
                "similarity_fn_name='dot'."
            )
        check_k_tokens(model.max_active_dims, size, "max_active_dims")
        self.pooling.embedding_dimension = size  # noqa: V101
        if max_length is not None:
            if max_length < 1:
                raise ConfigError(f"max_length={max_length!r} must be at least 1.")
            model.max_seq_length = max_length  # the tokenizers keep it, and are saved with the model
            if self.query_weights is not None:
                self.query_weights.tokenizer.model_max_length = max_length  # noqa: V101
        model.prompts.update(prompts or {})
        settings = EncodingSettings(length_limit(model), prompts_of(model), self.compute.dtype, normalize=False)
        super().__init__(tokenizer, settings, model.device, size)

    @property
    def transformer(self) -> Any:
        """The module of the masked language model."""
        return self.model.parts()[0]

    @property
    def pooling(self) -> Any:
        """The module that makes term weights of logits."""
        return self.model.parts()[1]

    @property
    def query_weights(self) -> Any:
        """The module of queries without inference, None for others."""
        return self.model.parts()[2]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, k_tokens={self.k_tokens})"

    @property
    def k_tokens(self) -> int | None:
        """Most terms of a document; None: all of positive weight."""
        k_tokens: int | None = self.model.max_active_dims if self._plain is None else self._plain.k_tokens
        return k_tokens

    @property
    def query_k_tokens(self) -> int | None:
        """Most terms of a query."""
        return self.k_tokens

    def _identity(self) -> str:
        bert = self._plain
        modules = list(map(repr, self.model)) if bert is None else bert.module_names()
        own = {"dtype": None, "modules": modules, "k_tokens": self._limits()}
        return repr(sorted({**dataclasses.asdict(self.settings), **own}.items()))

    def _limits(self) -> Any:
        """The numbers of terms, as the fingerprint has them."""
        return self.k_tokens

    def _made_of(self) -> MadeOf:
        return super()._made_of() if self._plain is None else made_of_bert(self._plain)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (b, t) to the weights of all terms (b, dimension)."""
        from .mlm import term_weights

        return term_weights(self.transformer, self.pooling, self._features(input_ids, attention_mask))

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str = "document",
        show_progress: bool = False,
        k_tokens: int | None = None,
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
        is_query = prompt_name == "query"
        limit = k_tokens if k_tokens is not None else self.query_k_tokens if is_query else self.k_tokens
        if is_query and len(texts) and self._plain is None and self.query_weights is not None:
            vectors = self._look_up(check_texts(texts), limit)
        else:
            positions: list[int] = []
            parts: list[Any] = []
            for batch, ids, mask in self.batches(texts, prompt_name, show_progress):
                with computing("the model"):
                    parts.append(self._light_rows(ids, mask, limit) if self._plain else self._full(ids, mask, limit))
                positions += batch
            vectors = take(join(parts), np.argsort(positions)) if parts else self._nothing()
        check_terms(getattr(vectors, "weights", vectors), expected=not is_query)
        return vectors

    def _look_up(self, texts: list[str], limit: int | None) -> csr_array:
        """Queries without inference: the terms that a text holds, by their saved weights."""
        with computing("the model"):
            found = self.model.encode_query(
                texts, prompt=self.prompt("query"), max_active_dims=limit, save_to_cpu=True, show_progress_bar=False
            ).coalesce()
        rows, columns = found.indices().numpy()
        shape = (len(texts), self.dimension)
        return csr_array((found.values().float().numpy(), (rows, columns.astype(np.int32))), shape=shape)

    def _light_rows(self, ids: np.ndarray, mask: np.ndarray, limit: int | None) -> csr_array:
        """One batch as sparse rows, by ONNX Runtime."""
        bert: Any = self._plain
        return heaviest(np.log1p(np.maximum(self._computer(ids, mask) + bert.tensors[HEAD_BIAS], 0)), limit)

    def _full(self, ids: np.ndarray, mask: np.ndarray, limit: int | None) -> Any:
        """One batch, by torch."""
        import torch

        self.model.eval()  # training may have gone on since this encoder was made
        with torch.inference_mode(), autocast(self.device, self.settings.dtype):
            return self._rows([torch.from_numpy(array).to(self.device) for array in (ids, mask)], limit)

    def _rows(self, batch: Sequence[Tensor], limit: int | None) -> Any:
        """One batch as sparse rows, each cut to its heaviest terms."""
        import torch

        from .mlm import top_terms

        weights = self.embed(*batch)
        if limit is not None and limit < weights.shape[1]:
            values, ids = top_terms(weights, limit)
            weights = torch.zeros_like(weights).scatter_(1, ids, values)
        rows, columns = weights.nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=len(weights)).cumsum(0)
        indptr = np.concatenate([[0], counts.cpu().numpy()]).astype(np.int32)
        data = weights[rows, columns].float().cpu().numpy()
        return csr_array((data, columns.to(torch.int32).cpu().numpy(), indptr), shape=tuple(weights.shape))

    def _nothing(self) -> Any:
        """What no texts are encoded to."""
        return csr_array((0, self.dimension), dtype=np.float32)

    def decode(self, vectors: Any, k_tokens: int | None = None) -> list[list[tuple[str, float]]]:
        """Terms and weights of encoded texts, heaviest first; of each text at most `k_tokens`, None: all."""
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
        """Score of the i-th query with the i-th document, shape (n,), float32."""
        if len(queries) != len(documents):
            raise InputError(
                f"{len(queries)} queries and {len(documents)} documents: scores compares them pair by pair."
            )
        encoded = self.encode_query(queries, show_progress=show_progress)
        return self._scores(encoded, self.encode_document(documents, show_progress=show_progress))

    def _scores(self, queries: Any, documents: Any) -> np.ndarray:
        return np.asarray((queries * documents).sum(axis=1), dtype=np.float32)

    def inference_free(self, weights: Mapping[str, float] | None = None) -> Splade:
        """The same model for documents, sharing its modules; a query is only looked up: its own terms, by weight.

        Parameters
        ----------
        weights
            Token to weight, such as an inverse document frequency; tokens that are not named weigh nothing. None: 1 for
            every token but the special ones (SPLADE-doc).
        """
        import torch
        from sentence_transformers.base.modules import Router
        from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

        from .mlm import SpladeModel

        base = self.model
        vocabulary = self.tokenizer.get_vocab()
        if len(vocabulary) != self.dimension:
            raise ModelError(
                f"the tokenizer has {len(vocabulary)} tokens, the model's vocabulary {self.dimension}: queries without "
                "inference need the same. Call resize_token_embeddings(len(tokenizer)) on the model first."
            )
        if weights is None:
            values = torch.ones(self.dimension)
            values[self.tokenizer.all_special_ids] = 0.0
        else:
            values = torch.zeros(self.dimension)
            for token, weight in weights.items():
                if token not in vocabulary:
                    raise InputError(f"weights name the token {token!r}, which is not in the vocabulary.")
                values[vocabulary[token]] = weight
        static = SparseStaticEmbedding(self.tokenizer, values, frozen=True)
        model = SpladeModel(
            modules=[Router.for_query_document([static], [self.transformer, self.pooling])],
            prompts=dict(base.prompts),
            similarity_fn_name="dot",
            max_active_dims=base.max_active_dims,
            device=str(base.device),
        )
        return Splade(model=model, dtype=self.settings.dtype, prompts=self.settings.prompts)

    def save_pretrained(self, path: str | Path) -> None:
        """Write a directory that SparseEncoder reads, and, without a router, AutoModelForMaskedLM."""
        path = as_path(path)
        # The embeddings of a SparseEmbed model that is overwritten must not stay.
        shutil.rmtree(path / POOLING_FOLDER, ignore_errors=True)
        with quiet():
            self.model.save_pretrained(str(path))
