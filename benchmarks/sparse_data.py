"""Sparse vectors with the statistics of a SPLADE model's, drawn at random: what `sparse.py` searches.

A term's frequency falls with its rank as Zipf's and Mandelbrot's law has it. Exponent and shift are fitted: of 30,522
terms 28,000 are in use, a document has 124, a query 28, the most frequent stands in 58% of the documents, and a query
and a document share 1.97 on average (the evaluation FLOPS of SPLADE, which published models have between 1.3 and 3.8).
Each text has three of a hundred topics, which two in five of its rarer terms belong to, so that texts are near each
other in groups. Weights are log-normal, median .35, mean .50, at most 3.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

VOCABULARY = 30_522
USED = 28_000
EXPONENT, SHIFT, MASS = 0.872, 10.65, 7.07
# Draws of a query for each draw of a document, and how much the length of texts differs (log-normal).
QUERY = 0.2175
SPREAD = 0.25
TOPICS, TOPICS_OF_A_TEXT, TOPICAL, COMMON = 100, 3, 0.4, 500
MEDIAN, SIGMA, LARGEST = 0.35, 0.845, 3.5
# Texts that are drawn at a time.
BLOCK = 100_000


def documents(count: int, seed: int) -> csr_array:
    """Vectors of documents, shape (count, VOCABULARY), float32."""
    return _draw(count, 1.0, seed)


def queries(count: int, seed: int) -> csr_array:
    """Vectors of queries, shape (count, VOCABULARY), float32."""
    return _draw(count, QUERY, seed)


def embeddings(vectors: csr_array, size: int, seed: int) -> np.ndarray:
    """An embedding for each term of each text, (nnz, size), not negative: of the term, its text, and noise."""
    rng = np.random.default_rng(seed)
    of_term = np.random.default_rng(0).standard_normal((VOCABULARY, size), dtype=np.float32)
    of_text = rng.standard_normal((vectors.shape[0], size), dtype=np.float32)
    mixed = of_term[vectors.indices] + 0.7 * np.repeat(of_text, np.diff(vectors.indptr), axis=0)
    mixed += 0.5 * rng.standard_normal(mixed.shape, dtype=np.float32)
    return np.maximum(mixed, 0) * np.float32(0.3) * np.sqrt(vectors.data)[:, None]


def statistics(docs: csr_array, asked: csr_array) -> dict[str, Any]:
    """What the drawn vectors are like."""
    share, asked_share = (np.bincount(m.indices, minlength=VOCABULARY) / m.shape[0] for m in (docs, asked))
    return {
        "terms_of_a_document": round(docs.nnz / docs.shape[0], 1),
        "terms_of_a_query": round(asked.nnz / asked.shape[0], 1),
        "shared_terms": round(float(share @ asked_share), 2),
        "share_of_most_frequent": round(float(share.max()), 3),
        "terms_in_use": int((share > 0).sum()),
        "median_weight": round(float(np.median(docs.data)), 3),
        "mean_weight": round(float(docs.data.mean()), 3),
    }


def _draw(count: int, length: float, seed: int) -> csr_array:
    """Block by block: drawing takes twelve times the memory of what is drawn."""
    rng = np.random.default_rng(seed)
    blocks = [_block(min(BLOCK, count - start), length, rng) for start in range(0, count, BLOCK)]
    return blocks[0] if len(blocks) == 1 else vstack(blocks, format="csr")


def _block(count: int, length: float, rng: np.random.Generator) -> csr_array:
    rates = MASS / (np.arange(USED) + SHIFT) ** EXPONENT
    draws = rng.poisson(rates.sum() * length * rng.lognormal(-0.03, SPREAD, count))
    rows = np.repeat(np.arange(count), draws)
    ranks = np.searchsorted(np.cumsum(rates) / rates.sum(), rng.random(len(rows)))
    topics = rng.integers(TOPICS, size=(count, TOPICS_OF_A_TEXT))[rows, rng.integers(TOPICS_OF_A_TEXT, size=len(rows))]
    # A rarer term gives way to its neighbour in rank that belongs to a topic of the text.
    moved = (ranks >= COMMON) & (rng.random(len(rows)) < TOPICAL)
    ranks = np.where(moved, ranks - ranks % TOPICS + topics, ranks)
    names = np.random.default_rng(0).permutation(VOCABULARY)
    keys = np.unique(rows * np.int64(VOCABULARY) + names[ranks])
    weights = np.minimum(rng.lognormal(np.log(MEDIAN), SIGMA, len(keys)), LARGEST).astype(np.float32)
    starts = np.searchsorted(keys, np.arange(count + 1) * np.int64(VOCABULARY)).astype(np.int32)
    return csr_array((weights, (keys % VOCABULARY).astype(np.int32), starts), shape=(count, VOCABULARY))
