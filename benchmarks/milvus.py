"""A collection on Milvus through the Retriever, beside the same calls of its raw client.

    search  batches of 1,000 queries, and one query at a time, k=10; the peer is `MilvusClient.search` on the same
            collection with the same parameters and consistency, which answers with its own hits
    add     documents with ready vectors, into the collection that is there; the peer makes rows of the same documents
            and calls `MilvusClient.upsert`, in requests of the same size
    recall  against exact search of the same vectors, beside what the collection states of itself
    first   the first add (collection, index, load), and opening the collection again

The real server is Milvus 2.3.5 standalone from PyPI (``make milvus``, or CDE_MILVUS_PYTHON), run by this script on
loopback; where there is none, only Milvus Lite is measured. Vectors are those of search.py. Client and server share the
cores, so absolute numbers say little; the ratios are what is claimed.

    python benchmarks/milvus.py [--quick]
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, arguments, bar, finish, interleaved, ratio
from search import ReadyVectors, documents, unit_vectors

from cderetrieval import Retriever
from cderetrieval.index.exact import exact_search
from cderetrieval.milvus.change import MOST_ROWS
from cderetrieval.milvus.remote import VECTOR

K = 10
QUERIES = 1_000
# Milvus Lite searches 20,000 vectors one query at a time in 0.1 s, and a batch of 1,000 in 2 s.
DOCUMENTS = {"Milvus Lite": 10_000, "Milvus 2.3.5": 100_000}
ADDED = {"Milvus Lite": 2_000, "Milvus 2.3.5": 10_000}


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str | None]:
    """A real server on loopback; its address, or None where there is no environment with one."""
    default = HERE.parent / ".venv-milvus" / "bin" / "python"
    python = Path(os.environ.get("CDE_MILVUS_PYTHON", default))
    if not python.is_file():
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = HERE.parent / "tests" / "milvus" / "milvus_server.py"
    process = subprocess.Popen(
        [python, script, folder, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith("ready"):
            raise SystemExit("Milvus did not start; is another one running?")
        yield f"127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def rows_of(found: list[dict[str, Any]], vectors: np.ndarray) -> list[dict[str, Any]]:
    """Rows as a program with the raw client would make them: a document as JSON, metadata, one passage, its vector."""
    return [
        {
            "id": f"s:raw-{row['id']}",
            "seq": number,
            "payload": json.dumps([row]),
            "metadata": {"t:id": row["id"], "t:text": row["text"]},
            "passages": -1,
            VECTOR: vector,
        }
        for number, (row, vector) in enumerate(zip(found, vectors, strict=True))
    ]


def measure(engine: str, place: str, count: int, repeats: int) -> list[dict[str, Any]]:
    """All measurements on one engine."""
    vectors, queries = unit_vectors(count, seed=1), unit_vectors(QUERIES, seed=2)
    start = time.perf_counter()
    retriever = Retriever(ReadyVectors(), index=place).add(documents(count), vectors=vectors, show_progress=False)
    first = time.perf_counter() - start
    current = retriever.collection.current
    client, name = current.collection.connection._client, current.collection.name
    width = current.collection.search_parameters(K, current.measured["parameters"])
    options = {"limit": K, "output_fields": ["id"], "search_params": width, "consistency_level": "Bounded"}

    _, exact = exact_search(vectors, queries, K)
    found = retriever(queries, k=K)
    hits = [
        len({f"document-{i}" for i in row} & {hit["id"] for hit in ranking})
        for row, ranking in zip(exact.tolist(), found, strict=True)
    ]
    time.sleep(31 if count > 20_000 else 0)  # until this process reads with "Bounded" consistency too
    rows = []
    sizes = {"1,000 queries": (QUERIES, 3 if engine == "Milvus Lite" else repeats), "1 query": (1, 20 * repeats)}
    for what, (size, rounds) in sizes.items():
        asked = iter(range(10**9))

        def part(size: int = size, asked: Iterator[int] = asked) -> np.ndarray:
            begin = next(asked) // 2 * size % QUERIES
            return queries[begin : begin + size]

        calls = {
            "raw": lambda: client.search(name, part(), **options),
            "retriever": lambda: retriever(part(), k=K),
        }
        times = interleaved(calls, rounds)
        rows.append(_row(engine, f"search, {what}", count, times))
    added = min(count, ADDED[engine])
    extra = unit_vectors(added, seed=3)
    more = [{**row, "id": f"more-{row['id']}"} for row in documents(added)]

    def upsert() -> None:
        raw = rows_of(more, extra)
        for begin in range(0, added, MOST_ROWS):
            client.upsert(name, raw[begin : begin + MOST_ROWS])

    calls = {"raw": upsert, "retriever": lambda: retriever.add(more, vectors=extra, show_progress=False)}
    rows.append(_row(engine, f"add, {added:,} documents", count, interleaved(calls, repeats)))
    retriever.close()
    start = time.perf_counter()
    with Retriever.load(place, model=ReadyVectors()) as again:
        again(queries[:1], k=K)
    opened = time.perf_counter() - start
    facts = {
        "engine": engine,
        "index": current.identity.index,
        "documents": count,
        "recall": sum(hits) / (QUERIES * K),
        "stated recall": current.measured["recall"],
        "first add s": first,
        "open and answer s": opened,
    }
    return [facts, *rows]


def _row(engine: str, what: str, count: int, times: dict[str, list[float]]) -> dict[str, Any]:
    middle = {name: sorted(values)[len(values) // 2] * 1e3 for name, values in times.items()}
    return {
        "engine": engine,
        "call": what,
        "documents": count,
        "raw client ms": middle["raw"],
        "retriever ms": middle["retriever"],
        "ratio": ratio(times, "retriever", "raw"),
        "raw": times,
    }


def main() -> None:
    """Measure Milvus Lite, and a real server where there is one."""
    quick = arguments(__doc__ or "").quick
    repeats = 2 if quick else 11
    found = []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "server") as address:
        places = {"Milvus Lite": str(Path(folder) / "lite.db")}
        if address is not None:
            places["Milvus 2.3.5"] = f"milvus://{address}/benchmark"
        for engine, place in places.items():
            found += measure(engine, place, 2_000 if quick else DOCUMENTS[engine], repeats)
    facts = [row for row in found if "recall" in row]
    measured = [row for row in found if "ratio" in row]
    bars = [
        bar(f"{row['engine']}, {row['call']}: time over the raw client's", row["ratio"]["median"], 1.1, at_most=True)
        for row in measured
    ]
    bars += [bar(f"{row['engine']}, {row['index']}: recall@{K}", row["recall"], 0.95) for row in facts]
    settings = {"dimension": unit_vectors(1, 0).shape[1], "queries": QUERIES, "k": K}
    finish("milvus", settings=settings, rows=[*facts, *measured], bars=bars, quick=quick)


if __name__ == "__main__":
    main()
