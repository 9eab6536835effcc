"""The Retriever around FAISS, with ready vectors: search, add, open, and the peak memory of each.

    search  batches of 1,000 queries against 100,000 x 384, k=10, answers as records; the peer is raw FAISS with the
            same factory string, which answers with two arrays
    add     100,000 documents with vectors into an index on disk: what is timed ends with its commit
    open    that index in a fresh process: `Retriever.load`, then the first search with a ready vector

The variance of the vectors falls from dimension to dimension, as that of embeddings does along their principal axes: on
uniform noise an approximate index has to look everywhere. Memory is the peak of a process that does nothing else; the
vectors alone are 146 MB.

    python benchmarks/search.py [--quick]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, bar, finish, in_fresh_process, interleaved, peak_memory_mb, ratio, start_memory

from cderetrieval import Retriever
from cderetrieval.files import read_json

DIMENSION = 384
DOCUMENTS = 100_000
QUERIES = 1_000
K = 10
# Falls so that IVF1024 with RaBitQ answers as many queries a second as it does on embeddings of text.
DECAY = 0.6
# Passages of documents that have some, in turn: 2.4 on average.
PASSAGES = (1, 1, 2, 1, 8, 1, 2, 3, 1, 4)
# "auto" takes Flat up to 100,000 documents; the others are its choices and recommendations for more.
FACTORIES = ("Flat", "HNSW24,SQ8", "IVF1024,RaBitQ,Refine(SQ8)")


class ReadyVectors:
    """An encoder that never encodes: every vector is ready."""

    dimension = DIMENSION
    kind = "dense"
    fingerprint = "ready vectors"

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Refuse: nothing here may cost the time of a model."""
        raise NotImplementedError("this benchmark has ready vectors only")

    encode_document = encode_query


def unit_vectors(count: int, seed: int) -> np.ndarray:
    """Draw unit vectors whose principal axes, in no special direction, matter less and less; (count, DIMENSION)."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32)
    vectors *= np.arange(1, DIMENSION + 1, dtype=np.float32) ** -DECAY
    axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((DIMENSION, DIMENSION)))
    vectors @= axes.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def documents(count: int, cut: bool = False) -> list[dict[str, Any]]:
    """Make short documents for so many vectors, of one passage each or of several; texts are stored, not embedded."""
    line = "The text of document number {}, one line."
    if not cut:
        return [{"id": f"document-{i}", "text": line.format(i)} for i in range(count)]
    rows: list[dict[str, Any]] = []
    for number, passages in enumerate(cycle(PASSAGES)):
        if count <= 0:
            break
        rows.append({"id": f"document-{number}", "passages": [line.format(number)] * min(passages, count)})
        count -= passages
    return rows


def fill(path: Path, count: int, factory: str = "auto") -> Retriever:
    """Build an index on disk."""
    retriever = Retriever(ReadyVectors(), path=path, index=factory)
    return retriever.add(documents(count), vectors=unit_vectors(count, seed=1), show_progress=False)


def child_add(path: Path, count: int, cut: bool) -> dict[str, Any]:
    """Build the index that `child_open` opens."""
    rows, vectors = documents(count, cut), unit_vectors(count, seed=1)
    import faiss  # noqa: F401 - what a process loads before it searches is not the index's time

    held = start_memory()
    start, cpu = time.perf_counter(), time.process_time()
    retriever = Retriever(ReadyVectors(), path=path)
    retriever.add(rows, vectors=vectors, show_progress=False)
    seconds, add_cpu = time.perf_counter() - start, time.process_time() - cpu
    memory = peak_memory_mb()
    query = unit_vectors(1, seed=2)
    filled = start_memory()
    start, cpu = time.perf_counter(), time.process_time()
    retriever(query, k=K)
    first_search, build_cpu = time.perf_counter() - start, time.process_time() - cpu
    built = peak_memory_mb()
    start = time.perf_counter()
    retriever.close()
    return {
        "add": seconds,
        "first_search": first_search,
        "close": time.perf_counter() - start,
        "memory_before_mb": held,
        "peak_memory_mb": memory,
        "build_memory_mb": round(built - filled, 1),
        "add_cpu": add_cpu,
        "build_cpu": build_cpu,
    }


def child_open(path: Path, count: int, cut: bool) -> dict[str, Any]:
    """Open the index and ask one query."""
    query = unit_vectors(1, seed=2)
    import faiss  # noqa: F401

    held = start_memory()
    start, cpu = time.perf_counter(), time.process_time()
    with Retriever.load(path, model=ReadyVectors()) as retriever:
        loaded = time.perf_counter()
        retriever(query, k=K)
        done, open_cpu = time.perf_counter(), time.process_time() - cpu
        assert len(retriever) == count or cut
    return {
        "load": loaded - start,
        "load_and_search": done - start,
        "open_cpu": open_cpu,
        "memory_before_mb": held,
        "peak_memory_mb": peak_memory_mb(),
    }


def child_search(path: Path, count: int, cut: bool) -> dict[str, Any]:
    """Open the index and search with batches, for the memory of that."""
    queries = unit_vectors(QUERIES, seed=2)
    import faiss  # noqa: F401

    held = start_memory()
    with Retriever.load(path, model=ReadyVectors()) as retriever:
        assert len(retriever) == count or cut
        for _ in range(3):
            start = time.process_time()
            retriever(queries, k=K)
            seconds = time.process_time() - start
    return {"batch_cpu": seconds, "memory_before_mb": held, "peak_memory_mb": peak_memory_mb()}


CHILDREN = {"add": child_add, "open": child_open, "search": child_search}


def child(kind: str, path: Path, count: int, cut: bool) -> dict[str, Any]:
    """Run one of the children in a process of its own."""
    return in_fresh_process("search.py", "--child", kind, str(path), str(count), "cut" if cut else "")


def as_faiss_reads(path: Path) -> tuple[Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
    """FAISS's search of the very file that a Retriever wrote, as of a program without this package; its manifest."""
    import faiss

    from cderetrieval.index.faiss import INDEX
    from cderetrieval.index.manifest import MANIFEST
    from cderetrieval.index.tune import Breadth, search_parameters

    raw = faiss.read_index(str(path / INDEX))
    manifest = read_json(path / MANIFEST)
    parameters = search_parameters(raw, Breadth(**manifest["breadth"]), None, K)
    return partial(raw.search, k=K, params=parameters), manifest


def against_faiss(folder: Path, count: int, factory: str, repeats: int) -> dict[str, Any]:
    """Compare queries a second through the Retriever with FAISS itself, at the same breadth of search."""
    retriever = fill(folder / "index", count, factory)
    retriever.save(folder / "index")
    raw, manifest = as_faiss_reads(folder / "index")
    queries = unit_vectors(QUERIES, seed=2)
    times = interleaved({"FAISS": lambda: raw(queries), "Retriever": lambda: retriever(queries, k=K)}, repeats)
    retriever.close()
    return {
        "index": manifest["factory"],
        "recall": manifest["recall"],
        "faiss_queries_per_second": QUERIES / sorted(times["FAISS"])[repeats // 2],
        "retriever_queries_per_second": QUERIES / sorted(times["Retriever"])[repeats // 2],
        "ratio": ratio(times, "FAISS", "Retriever"),
        "raw": times,
    }


def storage(folder: Path, count: int, repeats: int, cut: bool = False) -> list[dict[str, Any]]:
    """Time add, open and the memory of search in fresh processes; medians of the repeats."""
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in CHILDREN}
    for repeat in range(repeats):
        for kind in CHILDREN:
            runs[kind].append(child(kind, folder / f"storage-{repeat}", count, cut))
    rows = []
    for kind, values in runs.items():
        middle = {name: statistics.median(value[name] for value in values) for name in values[0]}
        rows.append({"process": kind, **middle, "raw": values})
    return rows


def main() -> None:
    """Measure search against FAISS, then add and open."""
    if sys.argv[1:2] == ["--child"]:
        kind, path, count, cut = sys.argv[2:]
        print(json.dumps(CHILDREN[kind](Path(path), int(count), bool(cut))))
        return
    quick = arguments(__doc__ or "").quick
    count = 2_000 if quick else DOCUMENTS
    searches = []
    for factory in FACTORIES[:1] if quick else FACTORIES:
        # Flat takes a second, the others 0.1 s: there a median needs more rounds.
        repeats = 2 if quick else 9 if factory == "Flat" else 61
        with tempfile.TemporaryDirectory() as folder:
            searches.append(against_faiss(Path(folder), count, factory, repeats))
    with tempfile.TemporaryDirectory() as folder:
        stored = storage(Path(folder), count, 1 if quick else 3)
    added, opened, _ = stored
    bars = [bar(f"search against FAISS, {row['index']}", row["ratio"]["median"], 0.95) for row in searches]
    bars.append(bar("documents added a second", round(count / added["add"]), 20_000))
    bars.append(bar("seconds to open and answer", round(opened["load_and_search"], 3), 2.0, at_most=True))
    settings = {"documents": count, "dimension": DIMENSION, "queries": QUERIES, "k": K, "decay": DECAY}
    finish("search", settings=settings, rows=[*searches, *stored], bars=bars, quick=quick)


if __name__ == "__main__":
    main()
