"""Any sentence-transformers model as an encoder: its own pooling, its own similarity, its own prompts.

The model computes; this module only decides which texts it computes together. Texts are sorted by token count and cut
at a token budget, where `SentenceTransformer.encode` sorts by characters and cuts at 32 texts.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, ModelError
from ..files import sha256_file
from ..runtime import autocast, check_texts, pick_device
from .directory import SAFE, opened
from .encoder import EncodingSettings, check_finite, computing
from .fingerprint import FingerprintedEncoder
from .loading import length_limit, prompts_of
from .locate import find

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def _exported_digests(model: SentenceTransformer) -> list[str]:
    """Digests of the weights of an ONNX or OpenVINO backend, which holds no tensors, only what it can write."""
    with tempfile.TemporaryDirectory() as folder:
        model[0].auto_model.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.suffix.startswith((".onnx", ".bin")))
        if not files:
            raise ModelError(f"backend={model.get_backend()!r} wrote no weights, so they cannot be told from others.")
        return [f"{file.name} {sha256_file(file)}" for file in files]


class DenseEncoder(FingerprintedEncoder):
    """A sentence-transformers model behind the :class:`~cderetrieval.types.Encoder` contract.

    Parameters
    ----------
    model
        The model, of any backend of sentence-transformers, or the directory or hub name to load it from.
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
        model: SentenceTransformer | str | Path,
        *,
        dtype: str = "auto",
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(model, str | Path):
            from sentence_transformers import SentenceTransformer

            place = str(pick_device(device))
            with opened(find(str(model))) as view:
                model = SentenceTransformer(str(view), device=place, **SAFE)
        elif device is not None:
            model = model.to(pick_device(device))
        if model.similarity_fn_name not in ("cosine", "dot"):
            raise ConfigError(
                f"this model compares vectors by {model.similarity_fn_name!r}, an index here by inner product: use a "
                "model with 'cosine' or 'dot'."
            )
        model.eval()
        self.model = model
        settings = EncodingSettings(
            max_length=length_limit(model),
            prompts=prompts_of(model, prompts),
            dtype=dtype,
            normalize=model.similarity_fn_name == "cosine",
        )
        super().__init__(model.tokenizer, settings, model.device, int(model.get_embedding_dimension()))

    def _identity(self) -> str:
        values = {**dataclasses.asdict(self.settings), "dtype": None, "modules": [repr(m) for m in self.model]}
        if self.model.truncate_dim is not None:
            values["dimension"] = self.dimension
        if self.model.get_backend() != "torch":
            values["exported"] = _exported_digests(self.model)
        return repr(sorted(values.items()))

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
        texts, prompt = check_texts(texts), self.prompt(prompt_name)
        with autocast(self.device, self.settings.dtype), computing("the model"):
            vectors = (encode or self.model.encode)(
                texts,
                prompt=prompt,
                show_progress_bar=show_progress,
                normalize_embeddings=self.settings.normalize,
            )
            matrix = np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dimension)
        if len(matrix):
            check_finite(matrix)
        return matrix

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (b, t) to vectors (b, dimension), as the model's modules give them.

        A model with a `truncate_dim` (Matryoshka) keeps so many of their dimensions.
        """
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        output: Tensor = self.model(features)["sentence_embedding"]
        return output[:, : self.dimension]
