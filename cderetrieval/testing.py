"""Tiny deterministic models for tests and examples, which need no network; their vectors are meaningless but stable.

The vocabulary is single characters, for sparse models also pairs of letters, so every text has tokens.
"""

from __future__ import annotations

import hashlib
import string
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .models.contextual import ContextualTransformer
    from .models.sparse_embed import SparseEmbed
    from .models.splade import Splade

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


def tiny_tokenizer(*, pairs: bool = False) -> Any:
    """Build a tokenizer of single characters, lower-cased, with BERT's special tokens."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = special + list(characters) + ["##" + c for c in string.ascii_lowercase + string.digits]
    if pairs:
        two = [a + b for a in string.ascii_lowercase for b in string.ascii_lowercase]
        pieces += two + ["##" + pair for pair in two]
    tokenizer = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # noqa: V101
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # noqa: V101
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(  # noqa: V101
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


def _randomized(make: Callable[[], Any], seed: int, words: float = 0.1) -> Any:
    """A model with noise added to its weights: transformers' 0.02 leaves tiny models almost linear."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(torch.randn_like(parameter) * (words if "word_embeddings" in name else 0.1))
    return model


@lru_cache
def _saved(make: Callable[[], Any]) -> str:
    """A temporary directory with what a function makes; the same one for the life of the process."""
    directory = tempfile.mkdtemp(prefix="cderetrieval-tiny-")
    make().save_pretrained(directory)
    return directory


def tiny_model(family: str = "bert", *, seed: int = 0, **settings: Any) -> ContextualTransformer:
    """Build a contextual model of 32 dimensions; its gates are open, so that the context matters."""
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
    model: ContextualTransformer = _randomized(lambda: ContextualTransformer(config, tiny_tokenizer()), seed)
    return model


def tiny_model_directory() -> str:
    """Write :func:`tiny_model` into a temporary directory."""
    return _saved(tiny_model)


def tiny_dense_directory() -> str:
    """Write a sentence-transformers model of 32 dimensions into a temporary directory."""
    return _saved(_tiny_dense)


def _tiny_dense() -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    settings = {key: value for key, value in BACKBONES["bert"].items() if key != "model_type"}
    model = _randomized(lambda: BertModel(BertConfig(**settings)), seed=0)
    with tempfile.TemporaryDirectory(prefix="cderetrieval-tiny-") as directory:
        model.save_pretrained(directory)
        tiny_tokenizer().save_pretrained(directory)
        modules = [Transformer(directory, max_seq_length=48), Pooling(settings["hidden_size"], "mean")]
    return SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="cosine")


def tiny_masked_lm(*, seed: int = 0) -> tuple[Any, Any]:
    """Build a masked language model of 32 dimensions, and its tokenizer of 1,461 letters and pairs of letters.

    Its logits name a text's own tokens and, since embeddings are random, a few others.
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM

    tokenizer = tiny_tokenizer(pairs=True)
    settings = {**BACKBONES["bert"], "vocab_size": len(tokenizer)}
    settings.pop("model_type")
    # Large embeddings outweigh what the layers add to them.
    model = _randomized(lambda: BertForMaskedLM(BertConfig(**settings)), seed, words=1.0)
    with torch.no_grad():
        head = model.cls.predictions
        head.transform.dense.weight.copy_(torch.eye(settings["hidden_size"]))
        head.bias.fill_(-15.0)
        head.bias[tokenizer.all_special_ids] = -100.0
    return model.eval(), tokenizer


def tiny_splade(*, seed: int = 0, **settings: Any) -> Splade:
    """Build a SPLADE model on :func:`tiny_masked_lm`; `settings` are those of :class:`~.models.splade.Splade`."""
    from .models.splade import Splade

    model, tokenizer = tiny_masked_lm(seed=seed)
    return Splade(model=model, tokenizer=tokenizer, device="cpu", **settings)


def tiny_sparse_embed(*, seed: int = 0, **settings: Any) -> SparseEmbed:
    """Build a SparseEmbed model on :func:`tiny_masked_lm`, of 8 dimensions a term if `settings` say nothing else."""
    from .models.sparse_embed import SparseEmbed

    model, tokenizer = tiny_masked_lm(seed=seed)
    defaults = {"embedding_size": 8, "k_tokens": 32}
    return SparseEmbed(model=model, tokenizer=tokenizer, device="cpu", **{**defaults, **settings})


def tiny_cross_encoder_directory() -> str:
    """Write a cross-encoder of random weights into a temporary directory."""
    return _saved(_tiny_cross_encoder)


def _tiny_cross_encoder() -> Any:
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tiny_tokenizer(pairs=True)
    settings = {**BACKBONES["bert"], "vocab_size": len(tokenizer), "num_labels": 1}
    settings.pop("model_type")
    with tempfile.TemporaryDirectory(prefix="cderetrieval-tiny-") as directory:
        _randomized(lambda: BertForSequenceClassification(BertConfig(**settings)), seed=0).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return CrossEncoder(directory)


def tiny_splade_directory() -> str:
    """Write :func:`tiny_splade` into a temporary directory."""
    return _saved(tiny_splade)


def tiny_sparse_embed_directory() -> str:
    """Write :func:`tiny_sparse_embed` into a temporary directory."""
    return _saved(tiny_sparse_embed)


class HashEncoder:
    """An encoder without a model or torch: equal texts get equal unit vectors, different texts unrelated ones.

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
        digests = b"".join(
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key).digest()
            for text in texts
        )
        vectors = np.frombuffer(digests, dtype=np.int8).reshape(len(texts), 16).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9))

    encode_document = encode_query


class WordEncoder:
    """A sparse encoder without a model or torch: each word of a text is a term, with a weight of its own.

    >>> encoder = WordEncoder()
    >>> vectors = encoder.encode_document(["owls hunt", "bees hum", "--"])
    >>> vectors.shape, vectors.nnz, int((encoder.encode_query(["the bees"]) @ vectors.T).toarray().argmax())
    ((3, 4096), 4, 1)
    """

    def __init__(self, kind: str = "sparse", dimension: int = 4_096, name: str = "words") -> None:
        self.kind = kind
        self.dimension = dimension
        self.embedding_size = 4 if kind == "sparse-embed" else 0
        self.fingerprint = hashlib.sha256(f"{name} {kind} {dimension}".encode()).hexdigest()
        self._key = name.encode()

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> Any:
        """Vectors of queries, shape (n, dimension)."""
        from scipy.sparse import csr_array

        from .vectors import TermEmbeddings

        rows = [self._terms(text) for text in texts]
        terms = np.array([term for row in rows for term in row], dtype=np.int32)
        digests = b"".join(digest for row in rows for digest in row.values())
        values = np.frombuffer(digests, dtype=np.uint8).reshape(len(terms), 8)
        weights = (1 + values[:, 0].astype(np.float32) / 256).astype(np.float32)
        indptr = np.cumsum([0, *(len(row) for row in rows)])
        matrix = csr_array((weights, terms, indptr), shape=(len(rows), self.dimension))
        if not self.embedding_size:
            return matrix
        return TermEmbeddings(matrix, values[:, 4:].astype(np.float32) / 128)

    encode_document = encode_query

    def _terms(self, text: str) -> dict[int, bytes]:
        """Terms of a text, ascending, and eight bytes that the word decides; punctuation alone is not a word."""
        words = {word for word in text.lower().split() if any(map(str.isalnum, word))}
        digests = (
            hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=12, key=self._key).digest()
            for word in words
        )
        terms = {int.from_bytes(digest[8:], "little") % self.dimension: digest[:8] for digest in sorted(digests)}
        return dict(sorted(terms.items()))
