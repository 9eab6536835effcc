"""How time and memory grow from 10,000 to a million documents: add, build, open and search, with ready vectors.

The processes of `search.py` at each size, one after the other: one adds all documents in a call and, with its first
search, builds the index; one opens what is there and asks a query; one searches with batches of 1,000. Time is that of
the processor, one thread, which others on the machine disturb little. Memory is the most that a process held beyond
what it had before: beyond the vectors and documents that it was given, where it adds; beyond the imported packages,
where it opens. Mapped files count. So a line that grows with the number of documents is an index, or ids; anything else
should be level.

    python benchmarks/growth.py [--quick]
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from common import arguments, bar, finish
from search import DECAY, DIMENSION, QUERIES, K, storage

from cderetrieval.index.choice import choose_factory

# Documents, and how often each process runs.
SIZES = {10_000: 3, 100_000: 3, 1_000_000: 1}
THREADS = 1
QUICK = {1_000: 1, 2_000: 1}


def measure(count: int, repeats: int) -> dict[str, Any]:
    """Seconds and megabytes of each step at one size."""
    with tempfile.TemporaryDirectory() as folder:
        added, opened, searched = storage(Path(folder), count, repeats)
        store = (Path(folder) / "storage-0" / "store.sqlite").stat().st_size
        index = (Path(folder) / "storage-0" / "index.faiss").stat().st_size
    return {
        "documents": count,
        "index": choose_factory(count, DIMENSION),
        "vectors_mb": round(count * DIMENSION * 4 / 2**20, 1),
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
        "raw": {process["process"]: process["raw"] for process in (added, opened, searched)},
    }


def beyond(process: dict[str, Any]) -> float:
    """Megabytes that a process took beyond what it held."""
    return round(process["peak_memory_mb"] - process["memory_before_mb"], 1)


def main() -> None:
    """Measure each size."""
    quick = arguments(__doc__ or "").quick
    os.environ["OMP_NUM_THREADS"] = str(THREADS)  # of the processes
    rows = [measure(count, repeats) for count, repeats in (QUICK if quick else SIZES).items()]
    last = rows[-1]
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
        bar(f"documents added a CPU second, {count}", round(last["documents"] / last["add_s"]), 20_000),
    ]
    settings = {
        "dimension": DIMENSION,
        "queries": QUERIES,
        "k": K,
        "decay": DECAY,
        "threads": THREADS,
    }
    finish("growth", settings=settings, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
