"""Texts to vectors in batches of similar length: what every encoder shares.

    prompt + text --tokenize--> ids --sort by length, cut at a token budget--> batches --forward--> vectors, in order

Padding is what mixed lengths cost: 2.8 computed tokens for each real one in corpus order, 1.4 when sorted by
characters, 1.01 when sorted by tokens after truncation. Models differ only in `embed`, which maps token ids to vectors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CDEError, ConfigError, InputError, ModelError
from ..files import PASSED_ON, REASON
from ..runtime import autocast, check_texts, length_batches, progress, token_budget_for
from .word_pieces import TURN

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger(__name__)

# Positions of the texts, their token ids (b, t) and their mask (b, t), int64.
Batch = tuple[list[int], np.ndarray, np.ndarray]


@dataclass(frozen=True)
class EncodingSettings:
    """How texts become vectors."""

    max_length: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "auto"
    normalize: bool = True
    token_budget: int | None = None

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ConfigError(f"max_length={self.max_length!r} must be at least 1.")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"dtype={self.dtype!r} is unknown; use 'auto', 'float32' or 'bfloat16'.")
        if not all(isinstance(text, str) for text in self.prompts.values()):
            raise ConfigError(f"prompts={dict(self.prompts)!r} must be names and texts.")


@contextlib.contextmanager
def computing(part: str) -> Iterator[None]:
    """Name an error of a part of a model that does not fit the others: a token, a position or a width too many.

    Memory that ran out and an interrupt pass through.
    """
    try:
        yield
    except (CDEError, MemoryError, *PASSED_ON):
        raise
    except BaseException as error:  # tokenizers' panics are no `Exception`
        if type(error).__name__ == "OutOfMemoryError":  # torch's
            raise
        reason = " ".join(str(error).split())[:REASON]
        raise ModelError(
            f"{part} failed ({type(error).__name__}: {reason}). Weights, settings and tokenizer of this model do not "
            "belong together, or its length limit is above its number of positions."
        ) from error


def check_finite(vectors: np.ndarray) -> None:
    """Refuse vectors with NaN or infinity; the message names the first text that has one."""
    finite = np.isfinite(vectors).reshape(len(vectors), -1).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ModelError(
            f"the model gave a vector that is not finite for text {row} ({int((~finite).sum())} such texts). "
            "Its weights are damaged, or its activations overflow: try dtype='float32'."
        )


def tensors_digest(tensors: Mapping[str, Tensor | np.ndarray], settings: str, tokenizer: Any) -> str:
    """Sha256 over names, shapes and bytes of the tensors, the settings, and the tokenizer's own serialisation."""
    digest = hashlib.sha256(settings.encode(errors="surrogatepass"))
    for name in sorted(tensors):
        kind, array = _bytes(tensors[name])
        digest.update(f"{name}{tuple(tensors[name].shape)}{kind}".encode(errors="surrogatepass"))
        digest.update(array.data)
    digest.update(_tokenizer_text(tokenizer).encode())
    return digest.hexdigest()


def _bytes(tensor: Tensor | np.ndarray) -> tuple[str, np.ndarray]:
    """The number format of a tensor, as torch calls it, and its bytes."""
    if isinstance(tensor, np.ndarray):
        return f"torch.{tensor.dtype}", np.ascontiguousarray(tensor)
    import torch

    found = tensor.detach().cpu().contiguous()
    return str(found.dtype), found.reshape(-1).view(torch.uint8).numpy()


def _tokenizer_text(tokenizer: Any) -> str:
    """Serialise a tokenizer, without the truncation and padding that its last call left behind."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        return type(tokenizer).__name__
    values = json.loads(backend.to_str())
    return json.dumps({**values, "truncation": None, "padding": None}, sort_keys=True)


class TextEncoder(ABC):
    """Base of the encoders: prompts, batches and order here, the mathematics in :meth:`embed`."""

    kind = "dense"
    # Text of the progress bar; empty: that of the prompt.
    label = ""

    def __init__(self, tokenizer: Any, settings: EncodingSettings, device: torch.device | str, dimension: int) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self._device = device
        self.dimension = dimension

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension={self.dimension}, max_length={self.settings.max_length})"

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        import torch

        return torch.device(self._device)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of all that determines a vector."""

    @abstractmethod
    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (b, t) to vectors (b, dimension)."""

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of queries, shape (n, dimension), float32."""
        return self.encode(texts, prompt_name="query", show_progress=show_progress)

    def encode_document(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of documents, shape (n, dimension), float32."""
        return self.encode(texts, prompt_name="document", show_progress=show_progress)

    def prompt(self, name: str) -> str:
        """The string put before a text; an unknown name is an error."""
        prompts = {"query": "", "document": "", **self.settings.prompts}
        if name not in prompts:
            raise InputError(f"prompt_name={name!r} is unknown; this model has {', '.join(sorted(prompts))}.")
        return prompts[name]

    def batches(self, texts: Sequence[str], prompt_name: str, show_progress: bool) -> Iterator[Batch]:
        """Texts under a prompt as padded token ids, in batches of similar length; the log says how many were cut."""
        prompt, most = self.prompt(prompt_name), self.settings.max_length
        texts = list(map(prompt.__add__, check_texts(texts)))
        if not texts:
            return
        if self.tokenizer is None:
            raise ModelError("this model has no tokenizer, so it takes tensors and no texts: save it again with one.")
        with computing("its tokenizer"), getattr(self.tokenizer, "turn", TURN):
            encoded = self.tokenizer(
                texts,
                truncation=True,
                max_length=most,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        rows = encoded["input_ids"]
        lengths = list(map(len, rows))
        cut: list[int] = []
        if max(lengths) >= most:
            encodings = encoded.encodings
            full = (row for row, length in enumerate(lengths) if length >= most)
            cut = [row for row in full if encodings is None or encodings[row].overflowing]
        if cut:
            logger.info("%d of %d texts were cut at %d tokens.", len(cut), len(rows), most)
        budget = self.settings.token_budget or token_budget_for(self._device)
        pad_id = self.tokenizer.pad_token_id or 0
        label = self.label or (f"encoding {prompt_name}s" if prompt_name in ("query", "document") else "encoding")
        with progress(range(len(rows)), label, show=show_progress) as bar:
            for batch in length_batches(lengths, budget, apart=cut):
                shape = (len(batch), lengths[batch[0]])  # the longest text is the first
                ids, mask = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
                for line, row in enumerate(batch):
                    ids[line, : lengths[row]] = rows[row]
                    mask[line, : lengths[row]] = 1
                yield batch, ids, mask
                bar.update(len(batch))

    def encode(self, texts: Sequence[str], *, prompt_name: str = "document", show_progress: bool = False) -> np.ndarray:
        """Vectors of texts under a prompt of the model, shape (n, dimension), float32, in the order of the texts."""
        vectors: np.ndarray | None = None
        for batch, ids, mask in self.batches(texts, prompt_name, show_progress):
            with computing("the model"):
                output = self._vectors(ids, mask)
            if vectors is None:
                vectors = np.empty((len(texts), *output.shape[1:]), dtype=np.float32)
            vectors[batch] = output
        if vectors is None:
            return np.empty((0, self.dimension), dtype=np.float32)
        check_finite(vectors)
        return vectors

    def _vectors(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Vectors of one batch, shape (b, dimension), float32."""
        import torch

        with torch.inference_mode():
            device = torch.device(self._device)
            with autocast(device, self.settings.dtype):
                output = self.embed(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)).float()
            if self.settings.normalize:
                output = torch.nn.functional.normalize(output, dim=-1)
            return np.asarray(output.cpu().numpy())
