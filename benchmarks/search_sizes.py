"""Dense search through the Retriever against raw FAISS, at 10,000, 100,000 and a million vectors.

Batches of 1,000 queries as in `search.py`, on its vectors; the peer is FAISS itself, which reads the file that the
Retriever wrote and searches at the same breadth. Recall@10 is that of the Retriever's answers against exact search, on
queries that the index was not tuned on. Flat is exact; `index="auto"` takes it up to 100,000 vectors, and IVF with
RaBitQ codes above. HNSW24,SQ8, the choice where latency matters most, is left out at a million: it takes five minutes
of a core to build there, eight times as long as IVF for the same queries a second.

    python benchmarks/search_sizes.py [--quick]
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, bar, finish, interleaved, ratio
from search import DECAY, DIMENSION, QUERIES, K, as_faiss_reads, fill, unit_vectors

from cderetrieval.types import Hits


@dataclass(frozen=True)
class Size:
    """So many documents, and for each index the number of rounds."""

    documents: int
    rounds: dict[str, int]


IVF = "IVF1024,RaBitQ,Refine(SQ8)"
SIZES = (
    Size(10_000, {"auto": 31, "HNSW24,SQ8": 31}),
    Size(100_000, {"auto": 7, "HNSW24,SQ8": 31, IVF: 31}),
    Size(1_000_000, {"Flat": 3, "auto": 15}),
)
QUICK = (Size(1_000, {"auto": 2}), Size(4_000, {"Flat": 2, "HNSW24,SQ8": 2}))


def recall(hits: Hits, exact: np.ndarray) -> float:
    """Share of the exact answers, rows of shape (q, k), among the hits."""
    found = [{int(hit["id"].partition("-")[2]) for hit in ranking} for ranking in hits]
    return sum(len(ids & set(row)) for ids, row in zip(found, exact.tolist(), strict=True)) / exact.size


def measure(folder: Path, count: int, factory: str, rounds: int, exact: np.ndarray | None) -> tuple[dict, np.ndarray]:
    """Compare one index of one size with FAISS; the row, and the exact answers, which a first, flat index gives."""
    queries = unit_vectors(QUERIES, seed=2)
    with fill(folder, count, factory) as retriever:
        start = time.process_time()
        retriever.save(folder)
        seconds = time.process_time() - start
        raw, manifest = as_faiss_reads(folder)
        times = interleaved({"FAISS": lambda: raw(queries), "Retriever": lambda: retriever(queries, k=K)}, rounds)
        exact = raw(queries)[1] if exact is None else exact
        row = {
            "documents": count,
            "index": manifest["factory"],
            "auto": "yes" if factory == "auto" else "no",
            "recall": round(recall(retriever(queries, k=K), exact), 4),
            "faiss_queries_per_second": QUERIES / sorted(times["FAISS"])[rounds // 2],
            "retriever_queries_per_second": QUERIES / sorted(times["Retriever"])[rounds // 2],
            "ratio": ratio(times, "FAISS", "Retriever"),
            "build_cpu_seconds": round(seconds, 2),
            "width": manifest["breadth"]["width"],
            "raw": times,
        }
    return row, exact


def main() -> None:
    """Measure each index at each size."""
    quick = arguments(__doc__ or "").quick
    rows: list[dict[str, Any]] = []
    for size in QUICK if quick else SIZES:
        exact = None
        for factory, rounds in size.rounds.items():
            with tempfile.TemporaryDirectory() as folder:
                row, exact = measure(Path(folder) / "index", size.documents, factory, rounds, exact)
            rows.append(row)
    bars = [
        bar(f"recall@10, {row['index']}, {row['documents']:,} documents", row["recall"], 0.95)
        for row in rows
        if row["auto"] == "yes"
    ]
    settings = {"dimension": DIMENSION, "queries": QUERIES, "k": K, "decay": DECAY}
    finish("search_sizes", settings=settings, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
