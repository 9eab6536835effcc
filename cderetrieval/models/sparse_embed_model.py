"""SparseEmbed as a sentence-transformers model: SPLADE, and an embedding for each of a text's heaviest terms.

    features -> SPLADE -> weights (b, v) -> top k -> term pooling -> Terms (b, k), (b, k), (b, k, d)

Saved, it is a SPLADE directory that every SparseEncoder loads, with the term pooling in a folder beside it:

    2_SparseEmbed/config.json           hidden_size, embedding_size, k_tokens, query_k_tokens
    2_SparseEmbed/model.safetensors     linear.weight (embedding_size, hidden_size)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import ConfigError, ModelError, StoreError, WeightsError
from ..files import read_tensors, write_json, write_tensors
from .directory import is_regular, read_object
from .locate import CONVERTED_POOLING, PICKLED_POOLING, POOLING_FOLDER
from .mlm import logits_of_texts, token_states
from .splade_model import SpladeModel, is_splade, no_head, pool
from .term_pooling import TermPooling, Terms, top_terms
from .weights import load_tensors

FORMAT = 1
EMBEDDING_SIZE = 64
K_TOKENS = 96


class SparseEmbedModel(SpladeModel):
    """SPLADE with term embeddings.

    Parameters
    ----------
    model_name_or_path
        As for `SparseEncoder`. A directory without a ``2_SparseEmbed`` folder gets a new, random term pooling.
    embedding_size
        Of a term; None: as saved, or 64.
    saved
        From :func:`read_saved`; None: what the directory holds.
    settings
        More arguments of `SparseEncoder`.

    Attributes
    ----------
    k_tokens, query_k_tokens
        Terms of a document and of a query that have embeddings: as saved, or 96.
    term_pooling
        The attention pooling, linear map and ReLU.

    Raises
    ------
    ModelError
        If there is no masked language model with SPLADE pooling.
    WeightsError
        If the saved term pooling is missing, damaged or of another shape than the model.
    ConfigError
        If `embedding_size` is not the saved one.
    """

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
        """Read a directory; one without a ``2_SparseEmbed`` folder gets a new, random term pooling."""
        return super().from_directory(directory, saved=read_saved(directory), **settings)

    def forward(self, input: dict[str, Any], k_tokens: int | None = None, **kwargs: Any) -> dict[str, Any]:
        """Features of a batch: term weights and the embeddings of the heaviest terms.

        Parameters
        ----------
        input
            ``input_ids`` and ``attention_mask`` (b, t), as the tokenizer gives them; ``task`` may be ``"query"``.
        k_tokens
            Terms with embeddings; None: by task.

        Returns
        -------
        dict
            `input` with ``"sentence_embedding"``, the weights of all terms (b, v), and ``"terms"``, a
            :class:`~.term_pooling.Terms`.
        """
        if "term_pooling" not in self._modules:  # while it is saved, or not yet made: plain SPLADE
            return super().forward(input, **kwargs)
        task = kwargs.get("task") or input.get("task")
        k = k_tokens or (self.query_k_tokens if task == "query" else self.k_tokens)
        weights, terms = self._weights_and_terms(input, k)
        input["sentence_embedding"] = weights
        input["terms"] = terms
        return input

    def _weights_and_terms(self, features: dict[str, Tensor], k: int) -> tuple[Tensor, Terms]:
        transformer, pooling, term_pooling = self.children()
        rows, lengths = token_states(transformer.model, features)
        states = rows.split(lengths)
        all_weights, chosen, embeddings = [], [], []
        for text, logits in logits_of_texts(transformer.model, rows, lengths):
            weights = pool(logits, pooling)
            values, ids = top_terms(weights, k)
            all_weights.append(weights)
            chosen.append((values, ids))
            embeddings.append(term_pooling(states[text], logits[: lengths[text], ids]))
        values, ids = (torch.stack(part) for part in zip(*chosen, strict=True))
        return torch.stack(all_weights), Terms(ids, values, torch.stack(embeddings))

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Write a SPLADE directory, and the term pooling into a folder of its own beside it."""
        term_pooling = self._modules.pop("term_pooling")
        try:
            super().save(path, *args, **kwargs)
        finally:
            self._modules["term_pooling"] = term_pooling
        write_pooling(self, Path(path) / POOLING_FOLDER)


def read_saved(directory: Path) -> dict[str, Any]:
    """Numbers of terms and the linear map (``"weight"``) that a directory holds; nothing, where it has none.

    Raises
    ------
    ModelError
        If they are pickled, as older packages wrote them, or of a newer format.
    """
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


def write_pooling(model: SparseEmbedModel, folder: Path) -> None:
    """Write the term pooling of a model."""
    linear = model.term_pooling.linear
    write_tensors(
        folder / "model.safetensors", {"linear.weight": linear.weight.detach().float().cpu().numpy()}, {"format": "pt"}
    )
    config = {
        "format": FORMAT,
        "hidden_size": linear.in_features,
        "embedding_size": linear.out_features,
        "k_tokens": model.k_tokens,
        "query_k_tokens": model.query_k_tokens,
    }
    write_json(folder / "config.json", config)
