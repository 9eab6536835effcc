"""Documents on disk to answers, against what one would write without this package, and against txtai; the same weights.

A JSONL file of documents and a list of queries go in, the ten nearest ids of each query come out. Each system is a
process of its own, on one thread, that reads, embeds, indexes and answers; systems take turns. Time is that of the
whole process with its imports: of the processor, which others on the machine disturb little, and on the wall. Memory is
its peak. The corpus is the embedded one: docstrings of installed packages. Ours cuts long documents into passages where
the script reads the first 256 tokens, so it reads more text and some of its answers differ.

    python benchmarks/end_to_end.py [--quick] [--txtai PYTHON]

PYTHON is the interpreter of an environment that has txtai; without it, txtai is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import HERE, Times, bar, finish, machine, ratio

PEER, OURS, CONTEXT = "sentence-transformers + FAISS", "cderetrieval, MiniLM", "cderetrieval, cde-minilm"
INT8, TXTAI = "cderetrieval, MiniLM, int8", "txtai"
PACKAGES = ("numpy", "pandas", "python")
# Documents of each package.
DOCUMENTS, QUERIES, REPEATS = 100, 200, 2
K = 10


def corpus(directory: Path, count: int, n_queries: int) -> tuple[Path, Path]:
    """Write documents and queries of the embedded corpus."""
    from cderetrieval.corpora import pydocs

    tasks = [pydocs.load(package, count) for package in PACKAGES]
    documents, queries = directory / "documents.jsonl", directory / "queries.json"
    with open(documents, "w", encoding="utf-8") as file:
        for document in itertools.chain.from_iterable(task.corpus for task in tasks):
            file.write(json.dumps(document) + "\n")
    texts = [text for task in tasks for text in list(task.queries.values())[: n_queries // len(tasks)]]
    queries.write_text(json.dumps(texts), encoding="utf-8")
    return documents, queries


def answer(model: str, precision: str, documents: str, queries: str) -> list[list[str]]:
    """What a user of this package writes."""
    from cderetrieval import Retriever
    from cderetrieval.corpora.readers import read_documents

    retriever = Retriever(model, on="text", precision=precision).add(read_documents(documents), show_progress=False)
    hits = retriever(json.loads(Path(queries).read_text(encoding="utf-8")), k=K)
    return [[hit["id"] for hit in ranking] for ranking in hits]


def child(model: str, precision: str, documents: str, queries: str) -> None:
    """Answer, and say how much memory it took."""
    found = answer(model, precision, documents, queries)
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "answers": found}))


def commands(txtai: str | None, documents: Path, queries: Path) -> dict[str, list[str]]:
    """How to run each system."""
    from cderetrieval.models.locate import find

    minilm, data = str(find("all-MiniLM-L6-v2")), [str(documents), str(queries)]
    own, peers = [sys.executable, str(HERE / "end_to_end.py"), "--child"], str(HERE / "end_to_end_peers.py")
    found = {
        PEER: [sys.executable, peers, "faiss", minilm, *data],
        OURS: [*own, minilm, "float32", *data],
        INT8: [*own, minilm, "int8", *data],
        CONTEXT: [*own, "cde-minilm", "float32", *data],
    }
    if txtai is not None:
        found[TXTAI] = [txtai, peers, "txtai", minilm, *data]
    return found


def processor_seconds() -> float:
    """What the processes that this one has waited for took of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: Sequence[str]) -> tuple[float, float, dict[str, Any]]:
    """Processor and wall seconds of a process, and the last line that it prints."""
    start, before = time.perf_counter(), processor_seconds()
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    wall, processor = time.perf_counter() - start, processor_seconds() - before
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    return processor, wall, json.loads(done.stdout.strip().splitlines()[-1])


def same(a: list[list[str]], b: list[list[str]]) -> float:
    """Share of answers that two systems have in common."""
    return sum(len(set(x) & set(y)) for x, y in zip(a, b, strict=True)) / sum(len(x) for x in a)


def main() -> None:
    """Run the systems in turn; report time, memory and agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few documents, no JSON: does it run?")
    parser.add_argument("--txtai", metavar="PYTHON", help="interpreter of an environment with txtai")
    parser.add_argument("--child", nargs=4, metavar="X", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    count, n_queries, repeats = (20, 12, 1) if given.quick else (DOCUMENTS, QUERIES, REPEATS)
    with tempfile.TemporaryDirectory() as name:
        documents, queries = corpus(Path(name), count, n_queries)
        systems = commands(given.txtai, documents, queries)
        times: Times = {system: [] for system in systems}
        walls: Times = {system: [] for system in systems}
        found: dict[str, dict[str, Any]] = {}
        for _, system in itertools.product(range(repeats), systems):
            processor, wall, found[system] = run(systems[system])
            times[system].append(processor)
            walls[system].append(wall)
        n_documents = len(documents.read_text(encoding="utf-8").splitlines())
    rows = [
        {
            "system": system,
            "processor seconds": min(times[system]),
            "over the script's": ratio(times, system, PEER),
            "wall, over the script's": ratio(walls, system, PEER),
            "peak MB": round(found[system]["peak_mb"]),
            "answers in common with the script's": round(same(found[PEER]["answers"], found[system]["answers"]), 4),
            "raw": {"processor": times[system], "wall": walls[system]},
        }
        for system in systems
    ]
    memory = found[OURS]["peak_mb"] / found[PEER]["peak_mb"]
    bars = [
        bar(f"processor time, {OURS}, over {PEER}", ratio(times, OURS, PEER)["median"], 1.0, at_most=True),
        bar(f"peak memory, {OURS}, over {PEER}", round(memory, 3), 1.2, at_most=True),
    ]
    if TXTAI in times:
        bars.append(
            bar(f"processor time, {OURS}, over {TXTAI}", ratio(times, OURS, TXTAI)["median"], 1.0, at_most=True)
        )
    settings = {"documents": n_documents, "queries": n_queries, "k": K, "packages": PACKAGES, "threads": 1}
    settings["processor"] = machine()["cpu"]
    finish("end_to_end", settings=settings, rows=rows, bars=bars, quick=given.quick)


if __name__ == "__main__":
    main()
