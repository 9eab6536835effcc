"""Dense search through the Retriever against raw FAISS, at 10,000, 100,000 and a million vectors.

Batches of 1,000 queries as in `search.py`, on its vectors, but CPU time on one thread, which others on the machine
disturb little. The peer is FAISS itself, which reads the file that the Retriever wrote and searches as widely.
Recall@10 is that of the Retriever's answers against exact search, on queries that the index was not tuned on. Flat is
exact; `index="auto"` takes it up to 100,000 vectors, and IVF with RaBitQ codes above. HNSW24,SQ8, the choice where
latency matters most, is left out at a million: it takes five minutes of a core to build there, for as many queries a
second as IVF.

    python benchmarks/search_sizes.py [--quick]
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from common import arguments, bar, finish, interleaved, ratio
from search import DECAY, DIMENSION, QUERIES, K, as_faiss_reads, fill, unit_vectors

from cderetrieval.types import Hits


@dataclass(frozen=True)
class Size:
    """So many documents, for each index the number of rounds, and queries of a batch of exact search."""

    documents: int
    rounds: dict[str, int]
    exact_batch: int = QUERIES


THREADS = 1
IVF = "IVF1024,RaBitQ,Refine(SQ8)"
SIZES = (
    Size(10_000, {"auto": 31, "HNSW24,SQ8": 31}),
    Size(100_000, {"auto": 7, "HNSW24,SQ8": 31, IVF: 31}),
    # 1,000 queries take 25 s there.
    Size(1_000_000, {"Flat": 3, "auto": 15}, exact_batch=200),
)
QUICK = (Size(1_000, {"auto": 2}), Size(4_000, {"Flat": 2, "HNSW24,SQ8": 2}))


def recall(hits: Hits, exact: np.ndarray) -> float:
    """Share of the exact answers, rows of shape (q, k), among the hits."""
    found = [{int(hit["id"].partition("-")[2]) for hit in ranking} for ranking in hits]
    return sum(len(ids & set(row)) for ids, row in zip(found, exact.tolist(), strict=True)) / exact.size


def measure(folder: Path, size: Size, factory: str, exact: np.ndarray | None) -> tuple[dict[str, Any], np.ndarray]:
    """Compare one index of one size with FAISS; the row, and the exact answers, which a first, flat index gives."""
    queries, rounds = unit_vectors(QUERIES, seed=2), size.rounds[factory]
    with fill(folder, size.documents, factory) as retriever:
        start = time.process_time()
        retriever.save(folder)
        seconds = time.process_time() - start
        raw, manifest = as_faiss_reads(folder)
        batch = queries[: size.exact_batch] if exact is None else queries
        calls = {"FAISS": lambda: raw(batch), "Retriever": lambda: retriever(batch, k=K)}
        times = interleaved(calls, rounds, clock=time.process_time)
        exact = raw(queries)[1] if exact is None else exact
        row = {
            "documents": size.documents,
            "index": manifest["factory"],
            "auto": "yes" if factory == "auto" else "no",
            "queries": len(batch),
            "recall": round(recall(retriever(batch, k=K), exact[: len(batch)]), 4),
            "faiss_queries_per_second": len(batch) / sorted(times["FAISS"])[rounds // 2],
            "retriever_queries_per_second": len(batch) / sorted(times["Retriever"])[rounds // 2],
            "ratio": ratio(times, "FAISS", "Retriever"),
            "build_cpu_seconds": round(seconds, 2),
            "width": manifest["breadth"]["width"],
            "raw": times,
        }
    return row, exact


def main() -> None:
    """Measure each index at each size."""
    quick = arguments(__doc__ or "").quick
    faiss.omp_set_num_threads(THREADS)
    rows: list[dict[str, Any]] = []
    for size in QUICK if quick else SIZES:
        exact = None
        for factory in size.rounds:
            with tempfile.TemporaryDirectory() as folder:
                row, exact = measure(Path(folder) / "index", size, factory, exact)
            rows.append(row)
    bars = [
        bar(f"recall@10, {row['index']}, {row['documents']:,} documents", row["recall"], 0.95)
        for row in rows
        if row["auto"] == "yes"
    ]
    settings = {
        "dimension": DIMENSION,
        "queries": QUERIES,
        "k": K,
        "decay": DECAY,
        "threads": THREADS,
    }
    finish("search_sizes", settings=settings, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
