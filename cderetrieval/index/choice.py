"""Which FAISS index for how many vectors: ``factory="auto"``, with the measurements behind it.

384 dimensions, FAISS 1.15.1, one or two cores; queries a second (QPS) at recall@10 of .95 or more.

- Up to 100,000: Flat, exact. A batch of 1,000 queries against 100,000 vectors takes 2.3 s on one thread and 1.2 s on
  two, because FAISS turns it into a matrix product; SQfp16, half the memory, has none and takes 5.1 s and 2.8 s. For
  one query at a time SQfp16 is the faster (5.3 ms against 8.5 ms), a difference that nobody feels.
- Above: IVF with 1-bit RaBitQ codes, re-ranked from 8-bit codes. 450 bytes a vector against 1,536; 4,523 QPS at 100,000
  and 1,120 at 1,000,000, where it builds in an eighth of the time of HNSW24,SQ8 (same QPS there, 592 bytes a vector).
- ``factory="HNSW24,SQ8"`` is the explicit choice where latency matters most and the corpus rests: 6,429 QPS at 100,000.
- Vectors that are not of unit length, compared by inner product: nothing changes while lengths vary by a third. Where
  they vary by a factor of e (6,000 vectors, spread of the log of the length), all kinds look more widely, and one bit a
  dimension says too little of short vectors: recall .98 at 384 dimensions, .96 at 64, .91 at 32, where SQ8 has .96.
- On a GPU, where neither RaBitQ nor HNSW runs: Flat to 1,000,000, then IVF with 8-bit codes (reasoned, not measured).
"""

from __future__ import annotations

import math

FLAT_LIMIT = 100_000
GPU_FLAT_LIMIT = 1_000_000


def choose_factory(n: int, dimension: int, *, gpu: bool = False) -> str:
    """FAISS factory string for `n` vectors.

    >>> [choose_factory(n, 384) for n in (1_000, 200_000, 1_000_000)]
    ['Flat', 'IVF1024,RaBitQ,Refine(SQ8)', 'IVF2048,RaBitQ,Refine(SQ8)']
    """
    if n <= (GPU_FLAT_LIMIT if gpu else FLAT_LIMIT):
        return "Flat"
    # The power of two nearest to 2.5 sqrt(n): 1,024 and 2,048 are what was measured at 100,000 and 1,000,000.
    lists = 2 ** round(math.log2(2.5 * math.sqrt(n)))
    codes = "SQ8" if gpu or dimension < 64 else "RaBitQ,Refine(SQ8)"
    return f"IVF{lists},{codes}"
