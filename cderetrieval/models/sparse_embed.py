"""SparseEmbed: a text as a few weighted terms, each with a small contextual embedding.

    a_ij = softmax over tokens i of logit_ij           how much token i speaks for term j
    e_j  = ReLU(W sum_i a_ij s_i)                      s_i: final hidden state of token i; W: no bias
    score(q, d) = sum over terms j of both of e_j(q) . e_j(d)

The first stage of a search uses the weights, as with SPLADE. Saved, a model is a SPLADE directory that every
SparseEncoder loads, with W and the numbers of terms in the folder 2_SparseEmbed beside it.
Kong et al. 2023, "SparseEmbed: Learning Sparse Lexical Representations with Contextual Embeddings", SIGIR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from ..errors import ConfigError, ModelError, StoreError, WeightsError
from ..files import read_tensors, write_json, write_tensors
from ..runtime import Compute
from ..vectors import TermEmbeddings
from .directory import is_regular, read_object
from .locate import CONVERTED_POOLING, PICKLED_POOLING, POOLING_FOLDER
from .mlm import SpladeModel, is_splade, logits_of_texts, no_head, pool, token_states, top_terms
from .splade import Splade
from .terms import check_k_tokens
from .weights import load_tensors

FORMAT = 1
EMBEDDING_SIZE = 64
K_TOKENS = 96


class Terms(NamedTuple):
    """Activated terms of a batch of texts, padded to the same number for each, by falling weight."""

    ids: Tensor  # (b, k) int64
    weights: Tensor  # (b, k) float32; zero where a text has fewer than k terms of positive weight
    embeddings: Tensor  # (b, k, d) float32


class TermPooling(nn.Module):
    """Embeddings of activated terms: attention over the states of a text, a linear map without bias, ReLU."""

    def __init__(self, hidden_size: int, embedding_size: int = EMBEDDING_SIZE) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, embedding_size, bias=False)

    def forward(self, states: Tensor, logits: Tensor) -> Tensor:
        """States of one text's tokens (n, h), and their logits of the chosen terms (n, k), to embeddings (k, d)."""
        attention = torch.softmax(logits.float(), dim=0)
        # The map before the mixing is equal and, from 384 down to 64 dimensions, leaves six times less to mix.
        return torch.relu(attention.T @ self.linear(states).float())


def pairwise_scores(queries: Terms, documents: Terms) -> Tensor:
    """Score of the i-th query with the i-th document, shape (b,); differentiable."""
    rows = torch.arange(len(queries.ids), device=queries.ids.device)[:, None]
    # A number for each (row, term): only terms of the same row are then equal.
    stride = int(max(queries.ids.max(), documents.ids.max())) + 1 if len(rows) else 1
    left, right = _matches(
        queries.ids + rows * stride, queries.weights, documents.ids + rows * stride, documents.weights
    )
    scores = queries.embeddings.new_zeros(len(rows))
    return scores.index_add(0, left // queries.ids.shape[1], _products(queries, documents, left, right))


def all_pairs_scores(queries: Terms, documents: Terms) -> Tensor:
    """Score of every query with every document, shape (queries, documents); differentiable."""
    n, m = len(queries.ids), len(documents.ids)
    left, right = _matches(queries.ids, queries.weights, documents.ids, documents.weights)
    cells = left // queries.ids.shape[1] * m + right // documents.ids.shape[1]
    scores = queries.embeddings.new_zeros(n * m)
    return scores.index_add(0, cells, _products(queries, documents, left, right)).view(n, m)


def _products(queries: Terms, documents: Terms, left: Tensor, right: Tensor) -> Tensor:
    """Inner products of the embeddings at flat positions of both sides."""
    return (queries.embeddings.flatten(0, 1)[left] * documents.embeddings.flatten(0, 1)[right]).sum(dim=-1)


def _matches(query_keys: Tensor, query_weights: Tensor, keys: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Flat positions of every pair of active terms with equal keys, found by sorting."""
    left = query_weights.flatten().nonzero().squeeze(1)
    right = weights.flatten().nonzero().squeeze(1)
    wanted = query_keys.flatten()[left]
    ordered, order = keys.flatten()[right].sort()
    first = torch.searchsorted(ordered, wanted)
    counts = torch.searchsorted(ordered, wanted, right=True) - first
    ends = counts.cumsum(0)
    # The pairs of one query term are neighbours; within them a running number counts up from `first`.
    steps = torch.arange(int(ends[-1]) if len(ends) else 0, device=keys.device)
    offsets = (first - ends + counts).repeat_interleave(counts) + steps
    return left.repeat_interleave(counts), right[order[offsets]]


class SparseEmbedModel(SpladeModel):
    """SPLADE with a term pooling; `saved` is what :func:`read_saved` gives, None: what the directory holds."""

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        embedding_size: int | None = None,
        saved: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model_name_or_path, **settings)
        modules = list(self.children())
        if not is_splade(modules):
            raise no_head("SparseEmbed", modules)
        if saved is None:
            saved = {} if model_name_or_path is None else read_saved(Path(model_name_or_path))
        weight = saved.get("weight")
        size: int = saved.get("embedding_size", EMBEDDING_SIZE if weight is None else len(weight))
        if weight is not None and embedding_size not in (None, size):
            raise ConfigError(f"embedding_size={embedding_size!r}, but this model was saved with {size}: leave it out.")
        self.embedding_size: int = embedding_size or size
        self.k_tokens: int = saved.get("k_tokens", K_TOKENS)
        self.query_k_tokens: int = saved.get("query_k_tokens", self.k_tokens)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # every process must draw the same one, or it would refuse the other's index
            term_pooling = TermPooling(modules[0].get_embedding_dimension(), self.embedding_size)
        if weight is not None:
            load_tensors(term_pooling, {"linear.weight": weight}, f"{saved['source']}: the saved term pooling")
        self.add_module("term_pooling", term_pooling.to(self.device))

    @classmethod
    def from_directory(cls, directory: Path, **settings: Any) -> Self:
        """Read a directory; one without a term pooling gets a new, random one."""
        return super().from_directory(directory, saved=read_saved(directory), **settings)

    def forward(self, input: dict[str, Any], k_tokens: int | None = None, **kwargs: Any) -> dict[str, Any]:
        """Features of a batch, with the weights of all terms, ``"sentence_embedding"`` (b, v), and ``"terms"``.

        The :class:`Terms` are the `k_tokens` heaviest of each text; None: as many as the task (``"query"``) has.
        """
        if "term_pooling" not in self._modules:  # while it is saved, or not yet made: plain SPLADE
            return super().forward(input, **kwargs)
        is_query = (kwargs.get("task") or input.get("task")) == "query"
        k = k_tokens or (self.query_k_tokens if is_query else self.k_tokens)
        transformer, pooling, term_pooling = self.children()
        rows, lengths = token_states(transformer.model, input)
        states = rows.split(lengths)
        all_weights, chosen, embeddings = [], [], []
        for text, logits in logits_of_texts(transformer.model, rows, lengths):
            all_weights.append(pool(logits, pooling))
            chosen.append(top_terms(all_weights[-1], k))
            embeddings.append(term_pooling(states[text], logits[: lengths[text], chosen[-1][1]]))
        values, ids = (torch.stack(part) for part in zip(*chosen, strict=True))
        input["sentence_embedding"] = torch.stack(all_weights)
        input["terms"] = Terms(ids, values, torch.stack(embeddings))
        return input

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Write a SPLADE directory, and the term pooling into a folder of its own in it."""
        term_pooling = self._modules.pop("term_pooling")
        try:
            super().save(path, *args, **kwargs)
        finally:
            self._modules["term_pooling"] = term_pooling
        folder, linear = Path(path) / POOLING_FOLDER, self.term_pooling.linear
        weight = linear.weight.detach().float().cpu().numpy()
        write_tensors(folder / "model.safetensors", {"linear.weight": weight}, {"format": "pt"})
        sizes = {"hidden_size": linear.in_features, "embedding_size": linear.out_features}
        terms = {"k_tokens": self.k_tokens, "query_k_tokens": self.query_k_tokens}
        write_json(folder / "config.json", {"format": FORMAT, **sizes, **terms})


def read_saved(directory: Path) -> dict[str, Any]:
    """Numbers of terms and the linear map (``"weight"``) that a directory holds; nothing, where it has none."""
    folder = directory / POOLING_FOLDER
    if folder.is_dir():
        config: dict[str, Any] = read_object(folder / "config.json")
        if config.get("format", 0) > FORMAT:
            raise ModelError(f"{folder} has format {config['format']}, this version reads up to {FORMAT}: upgrade it.")
        for name in ("k_tokens", "query_k_tokens", "embedding_size"):
            number = config.get(name, 1)
            if not isinstance(number, int) or number < 1:
                raise ModelError(f"{folder / 'config.json'}: {name}={number!r} must be a whole number of at least 1.")
        return {**config, "weight": _only_tensor(folder / "model.safetensors", "linear.weight"), "source": folder}
    if (directory / CONVERTED_POOLING).is_file():
        return {"weight": _only_tensor(directory / CONVERTED_POOLING, "weight"), "source": directory}
    pickled = directory / PICKLED_POOLING
    if pickled.is_file():
        raise ModelError(
            f"{pickled} is a pickle, which can run code, and is not read. If you trust it, convert it: "
            f'weight = torch.load("{pickled}", weights_only=True)["weight"]; '
            f'safetensors.torch.save_file({{"weight": weight}}, "{directory / CONVERTED_POOLING}")'
        )
    return {}


def _only_tensor(path: Path, name: str) -> Tensor:
    is_regular(path)
    try:
        tensors, _ = read_tensors(path)
    except StoreError as error:
        raise WeightsError(
            f"{error} Save or fetch the model again; the term embeddings cannot do without it."
        ) from error
    if name not in tensors:
        raise WeightsError(f"{path} has no tensor {name!r}; it has {', '.join(sorted(tensors))}.")
    return torch.from_numpy(tensors[name])


class SparseEmbed(Splade):
    """A SparseEmbed model behind the :class:`~cderetrieval.types.Encoder` contract.

    Parameters
    ----------
    model_name_or_path
        Directory or hub name of a SparseEmbed model, or of any that :class:`~.splade.Splade` takes: then the embeddings
        are new and random, and have to be trained.
    model, tokenizer, pooling, max_length, dtype, device, prompts
        As in :class:`~.splade.Splade`.
    embedding_size
        Length of a term's embedding; None: that of the model, else 64.
    k_tokens, query_k_tokens
        Most terms of a document and of a query, the heaviest of positive weight; None: those of the model, else 96 and
        as documents.

    Raises
    ------
    ModelError
        If there is no masked-language-model head, or the directory holds the pickled weights of an older package.
    WeightsError
        If the saved embedding weights do not fit.

    Examples
    --------
    >>> from cderetrieval.testing import tiny_sparse_embed
    >>> model = tiny_sparse_embed()
    >>> vectors = model.encode_document(["owls hunt at night", "bees make honey"])
    >>> vectors.shape == (2, model.dimension), vectors.embeddings.shape == (vectors.weights.nnz, model.embedding_size)
    (True, True)
    """

    kind = "sparse-embed"

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        model: Any = None,
        tokenizer: Any = None,
        pooling: str | None = None,
        embedding_size: int | None = None,
        k_tokens: int | None = None,
        query_k_tokens: int | None = None,
        max_length: int | None = None,
        dtype: str = "auto",
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        if embedding_size is not None and (not isinstance(embedding_size, int) or embedding_size < 1):
            raise ConfigError(f"embedding_size={embedding_size!r} must be a whole number of at least 1.")
        self.compute = Compute(device, dtype)
        built = SparseEmbedModel.make(model_name_or_path, model, tokenizer, device, embedding_size=embedding_size)
        self._open(built, pooling, max_length, prompts)
        if embedding_size not in (None, built.embedding_size):
            raise ConfigError(
                f"embedding_size={embedding_size!r}, but this model has {built.embedding_size}: leave it out."
            )
        check_k_tokens(k_tokens, self.dimension)
        check_k_tokens(query_k_tokens, self.dimension, "query_k_tokens")
        if k_tokens is not None:
            built.k_tokens = built.query_k_tokens = k_tokens
        if query_k_tokens is not None:
            built.query_k_tokens = query_k_tokens

    @property
    def embedding_size(self) -> int:
        """Length of a term's embedding."""
        return int(self.model.embedding_size)

    @property
    def k_tokens(self) -> int | None:
        """Most terms of a document."""
        return int(self.model.k_tokens)

    @property
    def query_k_tokens(self) -> int:
        """Most terms of a query."""
        return int(self.model.query_k_tokens)

    def inference_free(self, weights: Mapping[str, float] | None = None) -> Splade:
        """Not for SparseEmbed, whose queries need embeddings too: a ConfigError."""
        raise ConfigError(
            "queries of SparseEmbed need embeddings, which only inference gives. Use Splade(model=encoder.model)"
            ".inference_free() for SPLADE with the same weights."
        )

    def _limits(self) -> Any:
        return self.k_tokens, self.query_k_tokens

    def _rows(self, batch: Sequence[Tensor], limit: int | None) -> TermEmbeddings:
        terms = self.model(self._features(*batch), k_tokens=limit)["terms"]
        return term_rows(terms, self.dimension)

    def _nothing(self) -> TermEmbeddings:
        return TermEmbeddings(super()._nothing(), np.empty((0, self.embedding_size), dtype=np.float32))

    def _scores(self, queries: TermEmbeddings, documents: TermEmbeddings) -> np.ndarray:
        return pairwise_scores(padded_terms(queries), padded_terms(documents)).numpy()


def term_rows(terms: Terms, dimension: int) -> TermEmbeddings:
    """A batch of terms without the padding, and with the terms of each text in the order of the vocabulary."""
    active = ~(terms.weights <= 0)  # what is not a number stays, to be refused and not to be lost
    order = terms.ids.masked_fill(~active, dimension).argsort(dim=1)
    active = active.gather(1, order)
    ids = terms.ids.gather(1, order)[active]
    weights = terms.weights.gather(1, order)[active]
    rows = torch.arange(len(order), device=order.device)[:, None].expand_as(order)[active]
    embeddings = terms.embeddings[rows, order[active]]
    indptr = np.concatenate([[0], active.sum(dim=1).cumsum(0).cpu().numpy()]).astype(np.int32)
    parts = (weights.float().cpu().numpy(), ids.to(torch.int32).cpu().numpy(), indptr)
    return TermEmbeddings(csr_array(parts, shape=(len(order), dimension)), embeddings.float().cpu().numpy())


def padded_terms(vectors: TermEmbeddings) -> Terms:
    """Term embeddings of texts as tensors, padded with weights of zero; the inverse of :func:`term_rows`."""
    weights = vectors.weights
    counts = np.diff(weights.indptr)
    width = max(1, int(counts.max(initial=0)))
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], counts)
    padded = Terms(
        torch.zeros(len(counts), width, dtype=torch.int64),
        torch.zeros(len(counts), width),
        torch.zeros(len(counts), width, vectors.embeddings.shape[1]),
    )
    for target, values in zip(padded, (weights.indices, weights.data, vectors.embeddings), strict=True):
        target[rows, columns] = torch.from_numpy(np.asarray(values)).to(target.dtype)
    return padded
