"""`Splade` and `SparsEmbed` as torch modules that take texts.

Thin over :class:`cderetrieval.Splade` and :class:`cderetrieval.SparseEmbed`, which `encoder()` returns.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.mlm import top_terms
from ..models.sparse_embed import SparseEmbed, Terms, pairwise_scores
from ..models.splade import Splade as SpladeEncoder
from ..models.terms import check_k_tokens
from ..runtime import check_texts

MAX_LENGTH = 256
Usual = Literal["usual"]
_NO_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))


class Splade(nn.Module):
    """SPLADE: texts to weights over the vocabulary."""

    _encoder: type[SpladeEncoder] = SpladeEncoder
    # Terms of a text, as the model was made for, and as `encode` keeps where it is told nothing.
    k_tokens: int | None = None
    _usual: int | None = 256

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        tokenizer: Any = None,
        model: Any = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        encoder = self._encoder(model_name_or_path, model=model, tokenizer=tokenizer, device=device, **settings)
        if encoder.settings.max_length > MAX_LENGTH:
            encoder = self._encoder(model=encoder.model, max_length=MAX_LENGTH)
        self.model = encoder.model
        self.tokenizer = encoder.tokenizer
        self.dimension = encoder.dimension
        self.max_length = encoder.settings.max_length

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    def encoder(self) -> SpladeEncoder:
        """The model as it is now, as an encoder: for :class:`~cderetrieval.Retriever`, evaluation, saving."""
        return self._encoder(model=self.model)

    def forward(
        self,
        texts: list[str],
        truncation: bool = True,
        padding: bool = True,
        max_length: int | None = None,
        k_tokens: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Term weights of texts, ``{"sparse_activations": (n, vocabulary)}``, with gradients.

        `k_tokens` keeps the heaviest terms of each text; other arguments are the tokenizer's.
        """
        check_k_tokens(k_tokens, self.dimension)
        features = self._features(texts, truncation=truncation, padding=padding, max_length=max_length, **kwargs)
        return self._output(features, k_tokens)

    def _output(self, features: dict[str, Tensor], k_tokens: int | None) -> dict[str, Tensor]:
        weights = self.model(features)["sentence_embedding"]
        if k_tokens is not None:
            values, ids = top_terms(weights, k_tokens)
            weights = torch.zeros_like(weights).scatter(1, ids, values)
        return {"sparse_activations": weights}

    def _features(self, texts: list[str], max_length: int | None, **settings: Any) -> dict[str, Tensor]:
        features = self.tokenizer(
            check_texts(texts), max_length=max_length or self.max_length, return_tensors="pt", **settings
        )
        return {name: tensor.to(self.device) for name, tensor in features.items()}

    def encode(
        self,
        texts: list[str],
        truncation: bool = True,
        padding: bool = True,
        max_length: int | None = None,
        k_tokens: int | Usual | None = "usual",
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """What :meth:`forward` gives, without gradients; usually of 256 terms, of `SparsEmbed` as the model has."""
        k_tokens = self._usual if k_tokens == "usual" else k_tokens
        training = self.training
        self.eval()
        with torch.no_grad():
            output = self(texts, truncation, padding, max_length, k_tokens, **kwargs)
        self.train(training)
        return dict(output)

    def decode(
        self,
        sparse_activations: Tensor,
        clean_up_tokenization_spaces: bool = False,
        skip_special_tokens: bool = True,
        k_tokens: int = 96,
        **kwargs: Any,
    ) -> list[str]:
        """Activated terms of each text, the heaviest first, as one string."""
        del kwargs
        check_k_tokens(k_tokens, self.dimension)
        decoded = []
        for weights in sparse_activations:
            values, ids = top_terms(weights, k_tokens)
            text = self.tokenizer.decode(
                ids[values > 0],
                clean_up_tokenization_spaces=clean_up_tokenization_spaces,
                skip_special_tokens=skip_special_tokens,
            )
            decoded.append(" ".join(text.translate(_NO_PUNCTUATION).split()))
        return decoded

    def scores(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        batch_size: int = 32,
        k_tokens: int | Usual | None = "usual",
        **kwargs: Any,
    ) -> Tensor:
        """Score of the i-th query with the i-th document, shape (n,); of `SparsEmbed` by the embeddings."""
        if len(queries) != len(documents):
            raise InputError(f"{len(queries)} queries and {len(documents)} documents: scores takes pairs.")
        found = [
            self._pairs(
                self.encode(list(queries[start : start + batch_size]), k_tokens=k_tokens, **kwargs),
                self.encode(list(documents[start : start + batch_size]), k_tokens=k_tokens, **kwargs),
            )
            for start in range(0, len(queries), batch_size)
        ]
        return torch.cat(found) if found else torch.empty(0)

    def _pairs(self, queries: dict[str, Tensor], documents: dict[str, Tensor]) -> Tensor:
        return (queries["sparse_activations"] * documents["sparse_activations"]).sum(dim=1)

    def save_pretrained(self, path: str | Path) -> None:
        """Write a directory that this class, `cderetrieval.load` and `SparseEncoder` read."""
        self.encoder().save_pretrained(path)


class SparsEmbed(Splade):
    """SparseEmbed: texts to weighted terms with contextual embeddings."""

    _encoder = SparseEmbed
    _usual = None

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        tokenizer: Any = None,
        model: Any = None,
        embedding_size: int | None = None,
        k_tokens: int | None = None,
        device: str | None = None,
    ) -> None:
        settings = {"embedding_size": embedding_size, "k_tokens": k_tokens}
        super().__init__(model_name_or_path, tokenizer, model, device, **settings)
        self.k_tokens = self.model.k_tokens

    def _output(self, features: dict[str, Tensor], k_tokens: int | None) -> dict[str, Tensor]:
        """Also ``"activations"`` (n, k), term ids, and ``"embeddings"`` (n, k, size)."""
        output = self.model(features, k_tokens=k_tokens or self.k_tokens)
        ids, weights, embeddings = output["terms"]
        sparse = torch.zeros_like(output["sentence_embedding"]).scatter(1, ids, weights)
        return {"embeddings": embeddings, "sparse_activations": sparse, "activations": ids}

    def _pairs(self, queries: dict[str, Tensor], documents: dict[str, Tensor]) -> Tensor:
        return pairwise_scores(terms_of(queries), terms_of(documents))


def terms_of(output: dict[str, Tensor]) -> Terms:
    """What `SparsEmbed` gives as :class:`~cderetrieval.models.sparse_embed.Terms`, which its scores take."""
    weights = output["sparse_activations"].gather(1, output["activations"])
    return Terms(output["activations"], weights, output["embeddings"])
