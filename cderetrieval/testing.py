"""Tiny deterministic models for tests and examples: no network, no files but those they write.

Their vectors are meaningless but stable. The vocabulary is single characters, so every text has tokens.
"""

from __future__ import annotations

import hashlib
import string
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .models.contextual import ContextualTransformer

_SHAPE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
BACKBONES: Mapping[str, Mapping[str, Any]] = {
    "bert": {"model_type": "bert", **_SHAPE},
    "nomic_bert": {"model_type": "nomic_bert", **_SHAPE, "head_dim": 8},
    "modernbert": {
        "model_type": "modernbert",
        **_SHAPE,
        "num_hidden_layers": 3,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "local_attention": 8,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}


def tiny_tokenizer() -> Any:
    """Build a tokenizer of single characters, lower-cased, with BERT's special tokens."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = special + list(characters) + ["##" + c for c in string.ascii_lowercase + string.digits]
    tokenizer = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def tiny_model(family: str = "bert", *, seed: int = 0, **settings: Any) -> ContextualTransformer:
    """Build a contextual model of 32 dimensions with random weights, the same in every process.

    Parameters
    ----------
    family
        ``"bert"``, ``"nomic_bert"`` or ``"modernbert"``.
    seed
        Of the weights.
    settings
        Fields of :class:`~cderetrieval.models.config.ContextualConfig` to change. The default has cached, gated
        attention with open gates, so that the context matters, and four context documents.
    """
    import torch

    from .models.config import ContextualConfig
    from .models.contextual import ContextualTransformer

    defaults = {
        "attention": "cached",
        "context_positions": "separate",
        "context_size": 4,
        "soft_prompt_tokens": 2,
        "null_token": True,
        "max_length": 64,
    }
    config = ContextualConfig(**{"backbone": BACKBONES[family], **defaults, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ContextualTransformer(config, tiny_tokenizer())
        with torch.no_grad():
            for parameter in model.parameters():
                # transformers' 0.02 leaves tiny models almost linear: texts would hardly differ.
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@lru_cache(maxsize=1)
def tiny_model_directory() -> str:
    """Write :func:`tiny_model` into a temporary directory; the same one for the life of the process."""
    directory = tempfile.mkdtemp(prefix="cderetrieval-tiny-")
    tiny_model().save_pretrained(directory)
    return directory


class HashEncoder:
    """An encoder without a model or torch: equal texts get equal unit vectors, different texts unrelated ones.

    Parameters
    ----------
    name
        Encoders of one name are equal.

    Examples
    --------
    >>> encoder = HashEncoder()
    >>> vectors = encoder.encode_document(["owls", "bees"])
    >>> int((encoder.encode_query(["bees"]) @ vectors.T).argmax())
    1
    """

    kind = "dense"
    dimension = 16

    def __init__(self, name: str = "hash") -> None:
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()
        self._key = name.encode()

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of queries, shape (n, 16)."""
        data = (text.encode("utf-8", "surrogatepass") for text in texts)
        digests = b"".join(hashlib.blake2b(text, digest_size=16, key=self._key).digest() for text in data)
        vectors = np.frombuffer(digests, dtype=np.int8).reshape(len(texts), 16).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)

    encode_document = encode_query
