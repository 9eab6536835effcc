"""A server under 16 clients: queries a second, latency, and memory, beside the same batches asked of the retriever.

The server is the command `cderetrieval serve`, on one thread of torch, over docstrings of installed packages. Clients
are coroutines of one process, each asks again as soon as it has its answer. In turn with each round, the same queries
are asked of a `Retriever` in this process, in batches as large as those that the server made on average. Processor time
is that of the server and of the calls; the clients have their own, and take it from the server where cores are few.

    python benchmarks/serve.py [--quick]
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from common import arguments, bar, finish

from cderetrieval import Retriever
from cderetrieval.corpora import pydocs

CLIENTS, K, MODEL = 16, 10, "cde-minilm"
PACKAGES = ("numpy", "pandas", "python")
WARM = 2_000


def request(path: str, body: dict[str, Any]) -> bytes:
    """A request, as it is sent."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return head.encode() + b"\r\n\r\n" + data


async def client(port: int, requests: list[bytes], latencies: list[float]) -> None:
    """Send requests over one connection, each after the answer to the last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for one in requests:
        start = time.perf_counter()
        writer.write(one)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        await reader.readexactly(int(length[1]))
        latencies.append(time.perf_counter() - start)
    writer.close()


def ask(port: int, requests: list[bytes]) -> tuple[float, list[float]]:
    """Seconds of all requests by all clients, and of each."""
    latencies: list[float] = []

    async def all_of_them() -> None:
        await asyncio.gather(*(client(port, requests[n::CLIENTS], latencies) for n in range(CLIENTS)))

    start = time.perf_counter()
    asyncio.run(all_of_them())
    return time.perf_counter() - start, latencies


def batches(port: int) -> tuple[float, float]:
    """How many questions the server has answered, in how many batches."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    found = [re.search(rf"^cderetrieval_batch_size_{name} (\S+)", text, re.MULTILINE) for name in ("sum", "count")]
    return tuple(float(one[1]) if one else 0.0 for one in found)  # type: ignore[return-value]


def resident_mb(process: int) -> float:
    """Memory of a process."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def processor_seconds(process: int) -> float:
    """What a process has used, of all cores together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def direct(retriever: Retriever, queries: list[str], size: int) -> float:
    """Seconds of the same queries, asked of a retriever in batches."""
    start = time.perf_counter()
    for first in range(0, len(queries), size):
        retriever(queries[first : first + size], k=K, passages=True)
    return time.perf_counter() - start


def measure(port: int, process: int, directory: Path, queries: list[str], rounds: int, requests: int) -> dict[str, Any]:
    """Rounds of both in turn; then as many requests as it takes to see memory grow."""
    sent = [request("/search", {"query": query, "k": K}) for query in queries]
    ask(port, (sent * (WARM // len(sent) + 1))[:WARM])
    ratios, served, latencies, sizes, used = [], [], [], [], []
    with Retriever.load(directory) as retriever:
        direct(retriever, queries[: 2 * CLIENTS], CLIENTS)
        for _ in range(rounds):
            before, start = batches(port), processor_seconds(process)
            seconds, found = ask(port, sent)
            end, begin = processor_seconds(process), time.process_time()
            after = batches(port)
            size = (after[0] - before[0]) / (after[1] - before[1])
            ratios.append(direct(retriever, queries, max(1, round(size))) / seconds)
            used.append([1_000 * one / len(sent) for one in (end - start, time.process_time() - begin)])
            served.append(len(sent) / seconds)
            sizes.append(size)
            latencies += found
    memory = resident_mb(process)
    for _ in range(-(-requests // len(sent))):
        ask(port, sent)
    percentiles = statistics.quantiles(latencies, n=100)
    return {
        "clients": CLIENTS,
        "queries a second": round(statistics.median(served), 1),
        "mean batch": round(statistics.mean(sizes), 1),
        "processor ms a query": round(statistics.median(one for one, _ in used), 2),
        "the retriever's": round(statistics.median(one for _, one in used), 2),
        "p50 ms": round(1000 * percentiles[49], 1),
        "p95 ms": round(1000 * percentiles[94], 1),
        "over the retriever's": {
            "median": round(statistics.median(ratios), 3),
            "min": round(min(ratios), 3),
            "max": round(max(ratios), 3),
        },
        "MB": round(memory),
        "requests after that": requests,
        "MB more": round(resident_mb(process) - memory, 1),
    }


def main() -> None:
    """Serve, ask, and report."""
    given = arguments(__doc__ or "")
    documents, n_queries, rounds, requests = (30, 64, 2, 1_000) if given.quick else (400, 1_000, 5, 100_000)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy has made its threads already
    tasks = [pydocs.load(package, documents) for package in PACKAGES]
    queries = [query for task in tasks for query in task.queries.values()]
    queries = (queries * (n_queries // len(queries) + 1))[:n_queries]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "index"
        corpus = [document for task in tasks for document in task.corpus]
        Retriever(MODEL, path=directory).add(corpus, show_progress=False).close()
        command = [sys.executable, "-m", "cderetrieval", "serve", str(directory), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = int(re.search(r":(\d+)/", server.stdout.readline())[1])  # type: ignore[index]
            try:
                row = measure(port, server.pid, directory, queries, rounds, requests)
            finally:
                server.terminate()
    bars = [
        bar("queries a second over those of the retriever, same batches", row["over the retriever's"]["median"], 0.8),
        bar(f"MB more after {requests:,} requests", row["MB more"], 20, at_most=True),
    ]
    settings = {"documents": len(corpus), "queries": n_queries, "k": K, "model": MODEL, "threads": 1}
    finish("serve", settings=settings, rows=[row], bars=bars, quick=given.quick)


if __name__ == "__main__":
    main()
