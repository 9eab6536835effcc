"""A text's terms, weighted by how rare they are in a corpus, folded into a few hundred dimensions.

    weight(t) = tf / (tf + 1) * log((n + 1) / (df + 1/2)),   n documents of the context, df of them with the term t
    sketch    = (m / 24)^(1/4) * normalise(sum over t of weight(t) * sign vector of t),   m different terms, at most 128

The sign vectors are random and fixed, so the inner product of two sketches is that of the two weighted term vectors,
up to noise of 1 / sqrt(dimensions) (Achlioptas 2003, "Database-friendly random projections"): exact names, numbers and
rare words keep a place of their own in a dense vector. Terms are the tokens of the model's tokenizer; which of them are
rare is what a corpus says, as in BM25. A cosine holds each further term against a text, as 1 / sqrt(m); half of that,
1 / m^(1/4), was better on development sets (docs/cde-minilm.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import check_texts
from .word_pieces import TURN

if TYPE_CHECKING:
    from scipy import sparse

# Seed of the sign vectors: part of the method, not a setting. Other signs would make every stored vector meaningless.
SEED = 0
# Terms of a text whose sketch has length 1, between the 10 of a question and the 60 and more of a passage; and how many
# count at most, so that a sketch's length has a bound.
_USUAL_TERMS = 24
_MOST_TERMS = 128
# Dimensions of the longest sketch.
LONGEST = (_MOST_TERMS / _USUAL_TERMS) ** 0.25
# Texts that are folded together: at 640 dimensions 26 MB.
_CHUNK = 10_000


def term_counts(texts: Sequence[str], tokenizer: Any, max_length: int) -> sparse.csr_array:
    """How often each token occurs in each text, special tokens left out."""
    from scipy import sparse

    shape = (len(texts), len(tokenizer))
    if not texts:
        return sparse.csr_array(shape, dtype=np.float32)
    with getattr(tokenizer, "turn", TURN):
        rows = tokenizer(
            check_texts(texts),
            truncation=True,
            max_length=max_length,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(ends[-1]))
    counts = sparse.csr_array((np.ones(len(columns), dtype=np.float32), columns, ends), shape=shape)
    counts.sum_duplicates()
    return counts


def words_of_tokens(text: str, tokenizer: Any, max_length: int) -> dict[int, str]:
    """The word of a text that each of its tokens is in, the first of several."""
    options = {"truncation": True, "max_length": max_length, "add_special_tokens": False}
    with getattr(tokenizer, "turn", TURN):
        (encoding,) = tokenizer(*check_texts([text]), **options, return_offsets_mapping=True).encodings
    words = dict[int, str]()
    for token, word in zip(encoding.ids, encoding.word_ids, strict=True):
        start, end = encoding.word_to_chars(word)
        words.setdefault(token, text[start:end].casefold())
    return words


def document_frequencies(counts: sparse.csr_array) -> np.ndarray:
    """In how many of the texts each token occurs, shape (vocabulary,), float32."""
    return np.bincount(counts.indices, minlength=counts.shape[1]).astype(np.float32)


def rarity(frequencies: np.ndarray, documents: int) -> np.ndarray:
    """Inverse document frequency of each token, never below 0.05, shape (vocabulary,), float32."""
    idf: np.ndarray = np.log((documents + 1) / (frequencies + 0.5)).clip(0.05)
    return idf.astype(np.float32)


def weighed(counts: sparse.csr_array, idf: np.ndarray) -> sparse.csr_array:
    """Terms of each text, weighted by how often they occur and how rare they are."""
    weights = counts.copy()
    weights.data = weights.data / (weights.data + 1) * idf[weights.indices]
    return weights


def sketch(counts: sparse.csr_array, idf: np.ndarray, dimensions: int) -> np.ndarray:
    """Weighted terms of each text, folded, shape (texts, dimensions), float32; 0 without any term."""
    weighted = weighed(counts, idf)
    signs = sign_vectors(counts.shape[1], dimensions)
    folded = np.empty((counts.shape[0], dimensions), dtype=np.float32)
    for start in range(0, len(folded), _CHUNK):
        folded[start : start + _CHUNK] = weighted[start : start + _CHUNK] @ signs
    lengths = np.linalg.norm(folded, axis=1, keepdims=True)
    terms = np.minimum(np.diff(counts.indptr), _MOST_TERMS)[:, None]
    wanted = ((terms / _USUAL_TERMS) ** 0.25).astype(np.float32)
    return np.asarray(folded * (wanted / np.where(lengths > 0, lengths, 1)))


@lru_cache(maxsize=2)
def sign_vectors(vocabulary: int, dimensions: int) -> np.ndarray:
    """Random signs, shape (vocabulary, dimensions), float32; 78 MB for BERT's vocabulary and 639 dimensions.

    >>> sign_vectors(3, 7).shape, set(np.unique(sign_vectors(3, 7)).tolist()) <= {-1.0, 1.0}
    ((3, 7), True)
    """
    # RandomState's stream is frozen by NumPy's compatibility policy, a Generator's is not.
    count = vocabulary * dimensions
    bits = np.random.RandomState(SEED).bytes(-(-count // 8))
    drawn = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).reshape(vocabulary, dimensions)
    # Looked up, not computed: no second array of 78 MB beside the result.
    return np.array([-1, 1], dtype=np.float32)[drawn]
