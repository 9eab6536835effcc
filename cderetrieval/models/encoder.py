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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CDEError, ConfigError, InputError, ModelError
from ..files import PASSED_ON, REASON
from ..runtime import autocast, check_texts, length_batches, progress, token_budget_for

logger = logging.getLogger(__name__)

Forward = Callable[[Tensor, Tensor], Tensor]
# Positions of the texts, their token ids (b, t) and their mask (b, t), on the device.
Batch = tuple[list[int], Tensor, Tensor]


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
    except (CDEError, MemoryError, torch.OutOfMemoryError, *PASSED_ON):
        raise
    except BaseException as error:  # tokenizers' panics are no `Exception`
        reason = " ".join(str(error).split())[:REASON]
        raise ModelError(
            f"{part} failed ({type(error).__name__}: {reason}). Weights, settings and tokenizer of this model do not "
            "belong together, or its length limit is above its number of positions."
        ) from error


def tokenize(texts: Sequence[str], tokenizer: Any, max_length: int) -> list[list[int]]:
    """Token ids of each text, cut at `max_length`; the log says how many were cut."""
    if not texts:
        return []
    if tokenizer is None:
        raise ModelError("this model has no tokenizer, so it takes tensors and no texts: save it again with one.")
    with computing("its tokenizer"):
        encoded = tokenizer(
            list(texts),
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
    ids: list[list[int]] = encoded["input_ids"]
    full = [row for row, tokens in enumerate(ids) if len(tokens) >= max_length]
    cut = sum(1 for row in full if encoded.encodings is None or encoded.encodings[row].overflowing)
    if cut:
        logger.info("%d of %d texts were cut at %d tokens.", cut, len(ids), max_length)
    return ids


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (b, t) int64.

    >>> pad([[5, 6], [7]], pad_id=0)[1]
    tensor([[1, 1],
            [1, 0]])
    """
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def token_batches(
    texts: Sequence[str],
    tokenizer: Any,
    settings: EncodingSettings,
    device: torch.device,
    *,
    prompt: str = "",
    description: str = "encoding",
    show_progress: bool = False,
) -> Iterator[Batch]:
    """Tokenize texts and cut them into batches of similar length."""
    rows = tokenize([prompt + text for text in check_texts(texts)], tokenizer, settings.max_length)
    budget = settings.token_budget or token_budget_for(device)
    pad_id = tokenizer.pad_token_id or 0
    with progress(range(len(rows)), description, show=show_progress) as bar:
        for batch in length_batches([len(row) for row in rows], budget):
            ids, mask = pad([rows[i] for i in batch], pad_id)
            yield batch, ids.to(device), mask.to(device)
            bar.update(len(batch))


def encode_batches(
    batches: Iterable[Batch], count: int, forward: Forward, settings: EncodingSettings, device: torch.device
) -> np.ndarray:
    """Vectors of `count` texts in order, float32; `forward` maps ids and mask, both (b, t), to vectors (b, ...)."""
    vectors: np.ndarray | None = None
    for batch, ids, mask in batches:
        with torch.inference_mode():
            with autocast(device, settings.dtype), computing("the model"):
                output = forward(ids, mask).float()
            if settings.normalize:
                output = torch.nn.functional.normalize(output, dim=-1)
        if vectors is None:
            vectors = np.empty((count, *output.shape[1:]), dtype=np.float32)
        vectors[batch] = output.cpu().numpy()
    if vectors is None:
        return np.empty((0, 0), dtype=np.float32)
    check_finite(vectors)
    return vectors


def check_finite(vectors: np.ndarray) -> None:
    """Refuse vectors with NaN or infinity; the message names the first text that has one."""
    finite = np.isfinite(vectors).reshape(len(vectors), -1).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ModelError(
            f"the model gave a vector that is not finite for text {row} ({int((~finite).sum())} such texts). "
            "Its weights are damaged, or its activations overflow: try dtype='float32'."
        )


def tensors_digest(tensors: Mapping[str, Tensor], settings: str, tokenizer: Any) -> str:
    """Sha256 over names, shapes and bytes of the tensors, the settings, and the tokenizer's own serialisation."""
    digest = hashlib.sha256(settings.encode(errors="surrogatepass"))
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode(errors="surrogatepass"))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    digest.update(_tokenizer_text(tokenizer).encode())
    return digest.hexdigest()


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

    def __init__(self, tokenizer: Any, settings: EncodingSettings, device: torch.device, dimension: int) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.device = device
        self.dimension = dimension

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dimension={self.dimension}, max_length={self.settings.max_length})"

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of all that determines a vector."""

    @abstractmethod
    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (b, t) to vectors (b, dimension)."""

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Compute in this encoder's number format."""
        return autocast(self.device, self.settings.dtype)

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
        """Texts under a prompt, tokenized, in batches of similar length."""
        return token_batches(
            texts,
            self.tokenizer,
            self.settings,
            self.device,
            prompt=self.prompt(prompt_name),
            description=f"encoding {prompt_name}s" if prompt_name in ("query", "document") else "encoding",
            show_progress=show_progress,
        )

    def encode(self, texts: Sequence[str], *, prompt_name: str, show_progress: bool = False) -> np.ndarray:
        """Vectors of texts under a prompt of the model, shape (n, dimension), float32."""
        batches = self.batches(texts, prompt_name, show_progress)
        vectors = encode_batches(batches, len(texts), self.embed, self.settings, self.device)
        return vectors if len(vectors) else np.empty((0, self.dimension), dtype=np.float32)
