"""A large simulated index on one machine: build, size, recall, latency, reopening, peak memory.

The vectors are random: unit vectors of 384 dimensions around centres (one for 500 vectors), spread in 24 directions
that matter less and less, with noise in all. They are drawn anew, block by block, each time the index asks for them, as
a store would read them, so neither memory nor disk holds them. Embeddings of text may behave differently.

    build    `FaissIndex` with "auto", told to hold all of them: training, filling, tuning; then written to disk. On one
             thread, in a process of its own
    open     that file in a fresh process: checked against its digest, mapped; then queries one by one, first cold
    recall   recall@10 on held-out queries against exact search

    python benchmarks/large_index.py [--vectors N] [--threads N] [--quick]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import bar, finish, in_fresh_process, peak_memory_mb, start_memory

DIMENSION = 384
VECTORS = 10_000_000
PER_CENTRE = 500
DIRECTIONS = 24
SPREAD, NOISE = 0.35, 0.02
BLOCK = 8_192
QUERIES = 500
K = 10
# Drawn from the same distribution as the vectors, but from blocks that none of them is from.
HELD_OUT = 1_000_000_000
OWNER = {"epoch": 0, "fingerprint": "random vectors"}


def drawn(total: int) -> Callable[[int, int], np.ndarray]:
    """A function that draws `size` vectors of block `number`, the same each time."""
    rng = np.random.default_rng(0)
    centres = _unit(rng.standard_normal((max(100, total // PER_CENTRE), DIMENSION), dtype=np.float32))
    directions = _unit(rng.standard_normal((DIRECTIONS, DIMENSION), dtype=np.float32))
    directions *= SPREAD * np.arange(1, DIRECTIONS + 1, dtype=np.float32)[:, None] ** -0.5

    def draw(number: int, size: int) -> np.ndarray:
        own = np.random.default_rng((1, number))
        vectors = own.standard_normal((size, DIMENSION), dtype=np.float32)
        vectors *= NOISE
        vectors += centres[own.integers(len(centres), size=size)]
        vectors += own.standard_normal((size, DIRECTIONS), dtype=np.float32) @ directions
        return _unit(vectors)

    return draw


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


class Source:
    """All vectors, as a store gives them; drawing them is not the index's time, so it is counted apart.

    Parameters
    ----------
    total
        How many.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._draw = drawn(total)
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers and vectors, in order."""
        for number, start in enumerate(range(0, self._total, BLOCK)):
            began, began_cpu = time.perf_counter(), time.process_time()
            size = min(BLOCK, self._total - start)
            drawn_now = np.arange(start, start + size), self._draw(number, size)
            self.seconds += time.perf_counter() - began
            self.cpu_seconds += time.process_time() - began_cpu
            yield drawn_now


def queries(total: int) -> np.ndarray:
    """Draw vectors that are like those of the index but not in it, shape (QUERIES, DIMENSION)."""
    return drawn(total)(HELD_OUT, QUERIES)


def child_build(folder: Path, total: int) -> dict[str, Any]:
    """Build the index and write it."""
    from cderetrieval.index import manifest
    from cderetrieval.index.faiss import INDEX, FaissIndex

    held = start_memory()
    source = Source(total)
    started, started_cpu = time.perf_counter(), time.process_time()
    index = FaissIndex(DIMENSION)
    index.sync(np.arange(total), lambda after: source.chunks())
    built, built_cpu = time.perf_counter(), time.process_time()
    digest = manifest.save(index, folder, generation=0, **OWNER)
    return {
        "index": index.build.factory,
        "build_seconds": built - started - source.seconds,
        "build_cpu_seconds": built_cpu - started_cpu - source.cpu_seconds,
        "write_seconds": time.perf_counter() - built,
        "gigabytes": (folder / INDEX).stat().st_size / 1e9,
        "bytes_a_vector": sum(path.stat().st_size for path in folder.iterdir()) / total,
        "tuned_recall": index.build.recall,
        **asdict(index.build.breadth),
        "memory_before_mb": held,
        "peak_memory_mb": peak_memory_mb(),
        "digest": digest,
    }


def child_open(folder: Path, total: int, digest: str) -> dict[str, Any]:
    """Open the index, then ask it."""
    from cderetrieval.index import manifest
    from cderetrieval.index.faiss import FaissIndex

    wanted = queries(total)
    held = start_memory()
    started = time.perf_counter()
    index = FaissIndex(DIMENSION)
    believed = manifest.load(index, folder, digest=digest, **OWNER)
    opened = time.perf_counter()
    assert believed, "the index that was just written is believed"
    index.search(wanted[:1], K)
    first = time.perf_counter()
    memory = peak_memory_mb()
    cold, answers = _one_by_one(index, wanted)
    warm, _ = _one_by_one(index, wanted)
    batch = time.process_time()
    index.search(wanted, K)
    batch = time.process_time() - batch
    return {
        "open_seconds": opened - started,
        "first_answer_seconds": first - opened,
        **_percentiles("cold", cold),
        **_percentiles("warm", warm),
        "batch_cpu_ms": batch / len(wanted) * 1e3,
        "memory_before_mb": held,
        "opened_memory_mb": memory,
        "peak_memory_mb": peak_memory_mb(),
        "answers": answers.tolist(),
    }


def _one_by_one(index: Any, wanted: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Milliseconds of each query alone, and all answers, shape (QUERIES, K)."""
    times, answers = [], []
    for row in range(len(wanted)):
        started = time.perf_counter()
        answers.append(index.search(wanted[row : row + 1], K)[1][0])
        times.append((time.perf_counter() - started) * 1e3)
    return times, np.stack(answers)


def _percentiles(name: str, times: Sequence[float]) -> dict[str, float]:
    return {f"{name}_p{share}_ms": round(float(np.percentile(times, share)), 3) for share in (50, 95)}


def child_exact(folder: Path, total: int) -> dict[str, Any]:
    """The right answers."""
    from cderetrieval.index.exact import exact_stream

    _, near = exact_stream(Source(total).chunks(), queries(total), K, dtype=np.float32)
    return {"answers": near.tolist()}


def recall(found: Sequence[Sequence[int]], right: Sequence[Sequence[int]]) -> float:
    """Share of the right answers that were found."""
    shared = [len(set(one) & set(other)) for one, other in zip(found, right, strict=True)]
    return sum(shared) / (len(right) * K)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=VECTORS, metavar="N", help=f"how many (default: {VECTORS:,})")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the build (default: 1)")
    parser.add_argument("--quick", action="store_true", help="150,000 vectors, no JSON: does it run?")
    return parser.parse_args(argv)


def main() -> None:
    """Build, open, and compare with the right answers, each in a process of its own."""
    children = {"build": child_build, "open": child_open, "exact": child_exact}
    if sys.argv[1:2] == ["--child"]:
        import faiss  # before its threads are limited
        from threadpoolctl import threadpool_limits

        kind, folder, total, threads, *rest = sys.argv[2:]
        faiss.omp_set_num_threads(int(threads))
        with threadpool_limits(int(threads)):
            print(json.dumps(children[kind](Path(folder), int(total), *rest)))
        return
    given = parse()
    total = 150_000 if given.quick else given.vectors
    with tempfile.TemporaryDirectory() as folder:

        def child(kind: str, *rest: str) -> dict[str, Any]:
            values = in_fresh_process("large_index.py", "--child", kind, folder, str(total), str(given.threads), *rest)
            print(f"{kind}: { ({name: value for name, value in values.items() if name != 'answers'}) }", flush=True)
            return values

        built = child("build")
        opened = child("open", built.pop("digest"))
        right = child("exact")["answers"]
    found = recall(opened.pop("answers"), right)
    rows = [{"vectors": total, "recall": found, **built}, {"vectors": total, **opened}]
    bars = [
        bar("recall@10 on held-out queries", round(found, 4), 0.95),
        bar("peak memory of the build, GB", round(built["peak_memory_mb"] / 1024, 2), 24.0, at_most=True),
    ]
    settings = {
        "vectors": total,
        "dimension": DIMENSION,
        "per_centre": PER_CENTRE,
        "directions": DIRECTIONS,
        "spread": SPREAD,
        "noise": NOISE,
        "queries": QUERIES,
        "k": K,
        "threads": given.threads,
    }
    finish("large_index", settings=settings, rows=rows, bars=bars, quick=given.quick)


if __name__ == "__main__":
    main()
