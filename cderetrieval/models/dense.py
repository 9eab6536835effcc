"""Any sentence-transformers model as an encoder: its own pooling, its own similarity, its own prompts.

The model computes; this module only decides which texts it computes together. Texts are sorted by token count and cut
at a token budget, where `SentenceTransformer.encode` sorts by characters and cuts at 32 texts.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, ModelError
from ..runtime import pick_device
from .encoder import EncodingSettings, TextEncoder, check_finite, check_texts, tensors_digest
from .weights import unique_tensors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Names under which models keep the prompt of a document, in the order of preference of sentence-transformers.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def _load_quietly(name: str, device: torch.device) -> SentenceTransformer:
    """Load a model; transformers' bar over its tensors shows on a terminal only, like every other."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        return SentenceTransformer(name, device=str(device))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{name} cannot be loaded as a sentence-transformers model ({error}).") from error
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


class DenseEncoder(TextEncoder):
    """A sentence-transformers model behind the :class:`~cderetrieval.types.Encoder` contract.

    Parameters
    ----------
    model
        The model, or the directory or hub name to load it from.
    dtype
        Number format of the computation, see :func:`~cderetrieval.runtime.autocast`.
    device
        Where to compute; None: the best there is.
    prompts
        Replace the model's prompts, by name.

    Raises
    ------
    ModelError
        If the directory or hub name cannot be loaded.
    ConfigError
        If the model compares vectors by a distance.
    """

    def __init__(
        self,
        model: SentenceTransformer | str,
        *,
        dtype: str = "auto",
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(model, str):
            model = _load_quietly(model, pick_device(device))
        elif device is not None:
            model = model.to(pick_device(device))
        if model.similarity_fn_name not in ("cosine", "dot"):
            raise ConfigError(
                f"this model compares vectors by {model.similarity_fn_name!r}, an index here by inner product: use a "
                "model with 'cosine' or 'dot'."
            )
        model.eval()
        self.model = model
        own = {name: text for name, text in model.prompts.items() if text}
        document = next((own[name] for name in DOCUMENT_PROMPTS if name in own), "")
        limit = model.max_seq_length or 512
        settings = EncodingSettings(
            # Static embeddings have no limit.
            max_length=int(limit) if math.isfinite(limit) else sys.maxsize,
            prompts={"query": "", **own, "document": document, **(prompts or {})},
            dtype=dtype,
            normalize=model.similarity_fn_name == "cosine",
        )
        super().__init__(model.tokenizer, settings, model.device, int(model.get_embedding_dimension()))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, modules, prompts and tokenizer."""
        values = {**dataclasses.asdict(self.settings), "dtype": None, "modules": [repr(m) for m in self.model]}
        return tensors_digest(unique_tensors(self.model), repr(sorted(values.items())), self.tokenizer)

    @cached_property
    def _takes_token_ids(self) -> bool:
        """Whether the first module is a transformer that batches of token ids can be fed to."""
        from sentence_transformers.base.modules import Transformer

        return isinstance(self.model[0], Transformer) and getattr(self.tokenizer, "is_fast", False)

    @cached_property
    def _pools_prompt(self) -> bool:
        return all(getattr(module, "include_prompt", True) for module in self.model)

    def encode(self, texts: Sequence[str], *, prompt_name: str, show_progress: bool = False) -> np.ndarray:
        """Vectors of texts under a prompt of the model, shape (n, dimension), float32."""
        if self._takes_token_ids and self._pools_prompt:
            return super().encode(texts, prompt_name=prompt_name, show_progress=show_progress)
        # Static, routed and multimodal models, and poolings that leave out the prompt, batch in their own way.
        encode = {"query": self.model.encode_query, "document": self.model.encode_document}.get(prompt_name)
        with self.autocast():
            vectors = (encode or self.model.encode)(
                check_texts(texts),
                prompt=self.prompt(prompt_name),
                show_progress_bar=show_progress,
                normalize_embeddings=self.settings.normalize,
            )
        matrix = np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dimension)
        if len(matrix):
            check_finite(matrix)
        return matrix

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (b, t) to vectors (b, dimension), as the model's modules give them."""
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        output: Tensor = self.model(features)["sentence_embedding"]
        return output
