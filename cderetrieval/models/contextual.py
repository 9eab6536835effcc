"""A contextual model as users hold it: both stages, the tokenizer, and the way to an encoder.

    model = load("cde-minilm")
    context = model.embed_context(sample_of_the_corpus)      # first stage, once
    encoder = model.in_context(context)                       # second stage, for every query and document
    encoder.encode_query(["what is a reservoir sample?"])

The two stages keep the names that the authors of CDE gave them, so code written for the published models runs here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..files import reading
from ..runtime import autocast, pick_device
from . import persistence
from .config import ContextualConfig
from .directory import AGAIN, config_of
from .encoder import EncodingSettings, TextEncoder, tensors_digest
from .fits import check_size
from .locate import find, is_published
from .published import NULL_TOKEN, instruction_end, native_names, published_config, read_published
from .stages import FirstStage, SecondStage
from .usable import Usable
from .weights import load_tensors, unique_tensors


class ContextualTransformer(Usable, nn.Module):
    """Both stages of a contextual encoder and its tokenizer.

    Parameters
    ----------
    config
        Settings.
    tokenizer
        A transformers tokenizer; None for a model that is only fed tensors.
    """

    def __init__(self, config: ContextualConfig, tokenizer: Any = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.second_stage_model = SecondStage(config)
        shared = self.second_stage_model.backbone if config.first_stage == "tied" else None
        self.first_stage_model = FirstStage(config, shared)
        if config.tie_token_embeddings and shared is None:
            words = self.first_stage_model.backbone.get_input_embeddings()
            self.second_stage_model.backbone.set_input_embeddings(words)
        self.eval()

    @classmethod
    def from_published(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        backbone: Mapping[str, Any],
        *,
        first_stage_backbone: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        instruction_end_id: int | None = None,
        source: str = "the checkpoint",
    ) -> ContextualTransformer:
        """Build a model from the published configuration and state dict.

        Parameters
        ----------
        config
            The published ``config.json``.
        tensors
            The published state dict.
        backbone, first_stage_backbone
            transformers configurations of the backbones, as dictionaries.
        tokenizer
            The tokenizer, where texts will be encoded.
        instruction_end_id
            Id of the token that ends a prompt; None: the tokenizer's first token of ``": "``.
        source
            What to call the tensors in an error.

        Raises
        ------
        WeightsError
            If a tensor is missing, unexpected or of another shape; the message lists every one.
        """
        if instruction_end_id is None:
            instruction_end_id = instruction_end(config, tokenizer)
        settings = published_config(
            config,
            backbone,
            first_stage_backbone=first_stage_backbone,
            null_token=NULL_TOKEN in tensors,
            instruction_end_id=instruction_end_id,
        )
        model = cls(settings, tokenizer)
        load_tensors(model, native_names(tensors), source)
        return model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, dataset_input_ids: Tensor, dataset_attention_mask: Tensor
    ) -> Tensor:
        """Run both stages on token ids: embed the context documents, then the texts in that context, (b, h)."""
        context = self.first_stage_model(input_ids=dataset_input_ids, attention_mask=dataset_attention_mask)
        output: Tensor = self.second_stage_model(
            input_ids=input_ids, attention_mask=attention_mask, dataset_embeddings=context
        )
        return output

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def context_size(self) -> int:
        """J, the number of context documents the model was made for."""
        return self.config.context_size

    @property
    def exact_context_size(self) -> bool:
        """Whether a smaller corpus is repeated until it has J documents."""
        return self.config.exact_context_size

    @cached_property
    def fingerprint(self) -> str:
        """Digest of settings, weights and tokenizer; computed once, so load a model anew after training it."""
        return tensors_digest(unique_tensors(self), json.dumps(self.config.to_dict(), sort_keys=True), self.tokenizer)

    def embed_context(self, texts: Sequence[str], *, dtype: str = "auto", show_progress: bool = False) -> np.ndarray:
        """First stage: one embedding for each sampled document.

        Parameters
        ----------
        texts
            Sampled documents, without prompt.
        dtype
            Number format of the computation, see :func:`~cderetrieval.runtime.autocast`.
        show_progress
            Show a progress bar on a terminal.

        Returns
        -------
        numpy.ndarray
            Shape (J, H), float32; (J, n, H) where the model makes n vectors of a document. Not normalised.
        """
        return _FirstStageEncoder(self, dtype).encode(texts, prompt_name="document", show_progress=show_progress)

    def in_context(
        self, embeddings: np.ndarray | Tensor | None, digest: str = "", *, dtype: str = "auto"
    ) -> ContextualEncoder:
        """Second stage under a context.

        Parameters
        ----------
        embeddings
            From :meth:`embed_context`, shape (J, H). None: the null context, which is J null tokens for a model that
            was trained with one, no context document for the others.
        digest
            Names the context inside the encoder's fingerprint; empty: a digest of the embeddings.
        dtype
            Number format of the computation.
        """
        return ContextualEncoder(self, embeddings, digest, dtype)

    def save_pretrained(self, path: str, **card: Any) -> None:
        """Write settings, weights (safetensors), tokenizer and model card into a directory; see `persistence`."""
        persistence.write(path, self.config, self.tokenizer, unique_tensors(self), **card)

    @classmethod
    def from_pretrained(
        cls, name: str, *, revision: str | None = None, device: str | None = None
    ) -> ContextualTransformer:
        """Load a directory or hub name in this package's or in the published layout."""
        directory = find(name, revision)
        path = directory / "config.json"
        with reading(directory, error=ModelError, remedy=AGAIN):
            values = config_of(directory) if path.is_file() else {}
            if is_published(values):
                config, tokenizer, tensors = read_published(directory, values)
            elif values.get("model_type") == "cderetrieval":
                config, tokenizer, tensors = persistence.read(directory, values)
            else:
                raise ModelError(
                    f"{directory} holds no contextual model: its config.json has neither model_type 'cderetrieval' nor "
                    "transductive_corpus_size. Use cderetrieval.load for other models."
                )
            check_size(lambda: cls(config), sum(tensor.numel() for tensor in tensors.values()), str(path))
            model = cls(config, tokenizer)
            load_tensors(model, tensors, str(directory))
        return model.to(pick_device(device))


class _FirstStageEncoder(TextEncoder):
    """The first stage as an encoder of context documents; its vectors are not normalised."""

    label = "embedding the context"

    def __init__(self, model: ContextualTransformer, dtype: str) -> None:
        # A document cut into parts is cut along its padded length: alone, its parts depend on no other document.
        budget = 1 if model.config.tokens_per_document > 1 else None
        settings = EncodingSettings(model.config.max_length, model.config.prompts, dtype, False, budget)
        super().__init__(model.tokenizer, settings, model.device, model.config.hidden_size)
        self.model = model

    @property
    def fingerprint(self) -> str:
        """Digest of the model."""
        return self.model.fingerprint

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids (b, t) to embeddings (b, h), or (b, n, h) where a document has n of them."""
        output: Tensor = self.model.first_stage_model(input_ids, attention_mask)
        return output


class ContextualEncoder(TextEncoder):
    """The second stage in one context: an encoder like any other.

    With ``attention="cached"`` the context's keys and values are computed here, once.
    """

    def __init__(
        self,
        model: ContextualTransformer,
        embeddings: np.ndarray | Tensor | None,
        digest: str = "",
        dtype: str = "auto",
    ) -> None:
        settings = EncodingSettings(model.config.max_length, model.config.prompts, dtype=dtype, normalize=True)
        context = None if embeddings is None else torch.as_tensor(embeddings, dtype=torch.float32).to(model.device)
        digest = digest or ("null" if context is None else hashlib.sha256(context.cpu().numpy().tobytes()).hexdigest())
        super().__init__(model.tokenizer, settings, model.device, model.config.hidden_size)
        self.model = model
        self.context_digest = digest
        self._context = context
        self._null = context is None and model.config.null_token
        self._cache = None
        if model.config.attention == "cached":
            with torch.inference_mode(), autocast(self.device, self.settings.dtype):
                self._cache = model.second_stage_model.context_cache(self._context, self._null)

    @property
    def fingerprint(self) -> str:
        """Digest of the model and its context."""
        return hashlib.sha256(f"{self.model.fingerprint}:{self.context_digest}".encode()).hexdigest()

    @property
    def cache_bytes(self) -> int:
        """Memory of the context's keys and values; 0 where the model computes the context with every text."""
        return 0 if self._cache is None else self._cache.nbytes

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids (b, t) to vectors (b, h), not normalised."""
        output: Tensor = self.model.second_stage_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            dataset_embeddings=self._context,
            null_dataset_embedding=self._null,
            context_cache=self._cache,
        )
        return output
