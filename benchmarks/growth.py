"""How time and memory grow from 10,000 to a million documents, and what the Retriever adds to FAISS at each size.

The processes of `search.py` at each size, one after the other: one adds all documents in a call and, with its first
search, builds the index; one opens what is there and asks a query; one searches with batches of 1,000. Memory is the
most that a process held beyond what it had before: beyond the vectors and documents that it was given, where it adds;
beyond the imported packages, where it opens. Mapped files count. So a line that grows with the number of documents is
an index, or ids; anything else should be level.

Then batches of 1,000 queries through the Retriever take turns with FAISS itself, which reads the same file and looks as
widely. Recall@10 is that of the Retriever's answers against exact search, on queries that no index was tuned on.

Time is that of the processor, one thread, which others on the machine disturb little. The index is what `"auto"` takes:
Flat up to 100,000, IVF with RaBitQ codes above. HNSW24,SQ8 and IVF at 100,000 are in `search.py`; HNSW takes five
minutes of a core to build at a million, for as many queries a second as IVF, and is left out.

With `--passages`, as many vectors are those of passages, 2.4 a document: what is found are still documents, each once,
and FAISS finds passages. Recall is then that of a search `by="passage"`, which names the documents of passages.

    python benchmarks/growth.py [--passages] [--quick]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
from common import arguments, bar, finish, interleaved, ratio
from search import DECAY, DIMENSION, QUERIES, K, ReadyVectors, as_faiss_reads, documents, storage, unit_vectors

from cderetrieval import Retriever
from cderetrieval.types import Hits


@dataclass(frozen=True)
class Size:
    """Vectors, how often each process runs, and rounds of search."""

    vectors: int
    repeats: int
    rounds: int


SIZES = (Size(10_000, 3, 15), Size(100_000, 1, 3), Size(1_000_000, 1, 9))
THREADS = 1
QUICK = (Size(1_000, 1, 1), Size(2_000, 1, 1))
# Queries whose exact answers are looked for: 1,000 would take 25 s at a million vectors.
JUDGED = 300


def measure(size: Size, cut: bool) -> dict[str, Any]:
    """Seconds and megabytes of each step at one size, and search beside FAISS."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "storage-0"
        added, opened, searched = storage(Path(name), size.vectors, size.repeats, cut)
        store, index = ((folder / file).stat().st_size for file in ("store.sqlite", "index.faiss"))
        compared = against_faiss(folder, size, cut)
    return {
        "documents": compared.pop("documents"),
        "vectors": size.vectors,
        "index": compared.pop("index"),
        "vectors_mb": round(size.vectors * DIMENSION * 4 / 2**20, 1),
        "store_mb": round(store / 2**20, 1),
        "index_mb": round(index / 2**20, 1),
        "add_s": added["add_cpu"],
        "add_mb": beyond(added),
        "build_s": added["build_cpu"],
        "build_mb": added["build_memory_mb"],
        "open_s": opened["open_cpu"],
        "open_mb": beyond(opened),
        "search_s": searched["batch_cpu"],
        "search_mb": beyond(searched),
        **compared,
        "raw": {process["process"]: process["raw"] for process in (added, opened, searched)} | compared.pop("raw"),
    }


def beyond(process: dict[str, Any]) -> float:
    """Megabytes that a process took beyond what it held."""
    return round(process["peak_memory_mb"] - process["memory_before_mb"], 1)


def against_faiss(folder: Path, size: Size, cut: bool) -> dict[str, Any]:
    """Search an index through the Retriever and with FAISS itself."""
    queries = unit_vectors(QUERIES, seed=2)
    raw, manifest = as_faiss_reads(folder)
    with Retriever.load(folder, model=ReadyVectors()) as retriever:
        calls = {"FAISS": lambda: raw(queries), "Retriever": lambda: retriever(queries, k=K)}
        times = interleaved(calls, size.rounds, clock=time.process_time)
        hits = retriever(queries[:JUDGED], k=K, by="passage" if cut else "document")
        count = len(retriever)
    _, exact = faiss.knn(queries[:JUDGED], unit_vectors(size.vectors, seed=1), K, faiss.METRIC_INNER_PRODUCT)
    ids = [row["id"] for row in documents(size.vectors, cut) for _ in row.get("passages", [""])]
    return {
        "documents": count,
        "index": manifest["factory"],
        "recall": round(recall(hits, [[ids[number] for number in row] for row in exact.tolist()]), 4),
        "faiss_queries_per_second": QUERIES / sorted(times["FAISS"])[size.rounds // 2],
        "retriever_queries_per_second": QUERIES / sorted(times["Retriever"])[size.rounds // 2],
        "ratio": ratio(times, "FAISS", "Retriever"),
        "raw": times,
    }


def recall(hits: Hits, exact: list[list[str]]) -> float:
    """Share of the exact answers, ids of documents, among the hits; of one with two passages there, both."""
    found = [Counter(hit["id"] for hit in ranking) & Counter(near) for ranking, near in zip(hits, exact, strict=True)]
    return sum(both.total() for both in found) / (K * len(exact))


def main() -> None:
    """Measure each size."""
    cut = "--passages" in sys.argv
    quick = arguments(__doc__ or "", [word for word in sys.argv[1:] if word != "--passages"]).quick
    os.environ["OMP_NUM_THREADS"] = str(THREADS)  # of the processes
    faiss.omp_set_num_threads(THREADS)
    rows = [measure(size, cut) for size in (QUICK if quick else SIZES)]
    last, what = rows[-1], "passages" if cut else "documents"
    count = f"{last['documents']:,} documents"
    bars = [
        # Adding writes documents through, and must not copy the vectors; searching must not hold more than them.
        bar(
            f"memory of add over the vectors, {count}", round(last["add_mb"] / last["vectors_mb"], 3), 0.5, at_most=True
        ),
        bar(
            f"memory of search over the vectors, {count}",
            round(last["search_mb"] / last["vectors_mb"], 3),
            1.0,
            at_most=True,
        ),
        bar(f"recall@10 of the index that auto takes, {count}", last["recall"], 0.95),
        bar(f"{what} added a CPU second, {count}", round(last["vectors"] / last["add_s"]), 20_000),
    ]
    settings = {
        "dimension": DIMENSION,
        "queries": QUERIES,
        "k": K,
        "decay": DECAY,
        "threads": THREADS,
    }
    finish("growth_passages" if cut else "growth", settings=settings, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
