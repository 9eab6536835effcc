"""Embedding a corpus by blocks: two Ray workers against one process, and from text to an index end to end.

    workers   the same corpus, MiniLM, one thread a worker: one process and two Ray workers, in turn. "all" is a call of
              `embed_corpus` from its start to its end, "steady" the documents a second once each worker has written a
              block, which leaves out the start of workers: what a job of hours sees.
    end       the corpus to a folder of vectors, the folder to an index on disk, the first answer; against
              `Retriever.add` of the same documents into an index on disk, and its first answer. One process both, one
              vector a document.
    pipeline  the same with a model that costs nothing (hashes): what reading, checking, Parquet and SQLite cost.

Ray gives its workers a niceness of 15; here they have that of the one process.

Text is that of the embedded corpus, docstrings of the installed packages; the corpus of the pipeline repeats it.

    python benchmarks/embed.py [--quick]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, bar, finish, interleaved, ratio
from encode import MODEL, documents

from cderetrieval import Retriever
from cderetrieval.corpora.readers import read_documents
from cderetrieval.distributed import VectorFolder, embed_corpus, index_vectors
from cderetrieval.index.manifest import STORE_FILE
from cderetrieval.models.locate import find

DOCUMENTS = 600
BLOCK = 40
WORKERS = 2
PIPELINE = 100_000
DIMENSION = 384
QUERY = "merge two tables on a column"


class Free:
    """An encoder that costs nothing: a unit vector drawn for the length of each text."""

    kind, dimension, fingerprint = "dense", DIMENSION, "free"

    def __init__(self) -> None:
        vectors = np.random.default_rng(0).standard_normal((4_096, DIMENSION), dtype=np.float32)
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_query(self, texts: Sequence[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors, shape (n, DIMENSION)."""
        return self._vectors[[len(text) % 4_096 for text in texts]]

    encode_document = encode_query


def write_corpus(path: Path, count: int) -> Path:
    """Write the embedded corpus as JSONL, again and again until there are enough documents."""
    texts = documents(min(count, DOCUMENTS))
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"id": f"document-{number}", "text": texts[number % len(texts)]}) + "\n")
    return path


def steady(folder: VectorFolder, workers: int) -> float:
    """Documents a second after as many blocks were written as there are workers."""
    written = sorted((folder.file(number).stat().st_mtime, number) for number in folder.blocks)
    rest = sum(folder.plan.blocks[number].documents for _, number in written[workers:])
    return rest / (written[-1][0] - written[workers - 1][0])


def workers(corpus: Path, work: Path, repeats: int) -> dict[str, Any]:
    """Compare two Ray workers with one process."""
    source, rates = str(find(MODEL)), {"process": [], "ray": []}

    def embed(engine: str, **settings: Any) -> Callable[[], None]:
        def run() -> None:
            folder = embed_corpus(
                corpus, work / "v", source, engine=engine, block=BLOCK, show_progress=False, **settings
            )
            rates[engine].append(steady(folder, settings.get("workers", 1)))
            shutil.rmtree(work / "v")

        return run

    calls = {"process": embed("process"), "ray": embed("ray", workers=WORKERS)}
    times = interleaved(calls, repeats, warmup=False)
    count = sum(1 for _ in read_documents(corpus))
    return {
        "documents": count,
        "process_documents_per_second": count / statistics.median(times["process"]),
        "ray_documents_per_second": count / statistics.median(times["ray"]),
        "ray_start_seconds": statistics.median(
            seconds - count / rate for seconds, rate in zip(times["ray"], rates["ray"], strict=True)
        ),
        "all": ratio(times, "process", "ray"),
        "steady": ratio(rates, "ray", "process"),
        "raw": {**times, "steady": rates},
    }


def end_to_end(name: str, corpus: Path, work: Path, model: Any, repeats: int, block: int) -> dict[str, Any]:
    """Compare embedding to a folder and indexing it with `Retriever.add`."""
    steps: dict[str, list[float]] = {"embed": [], "index": [], "answer": []}
    sizes = {"corpus": corpus.stat().st_size}

    def timed(step: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        steps[step].append(time.perf_counter() - start)
        return result

    def by_blocks() -> None:
        folder = timed("embed", lambda: embed_corpus(corpus, work / "v", model, block=block, show_progress=False))
        built = timed("index", lambda: index_vectors(folder, work / "i", model=model, show_progress=False))
        timed("answer", lambda: built(QUERY))
        built.close()
        sizes.update(vectors=_bytes(work / "v"), store=(work / "i" / STORE_FILE).stat().st_size)
        shutil.rmtree(work / "v")
        shutil.rmtree(work / "i")

    def at_once() -> None:
        with Retriever(model, path=work / "r", passages=None) as retriever:
            retriever.add(read_documents(corpus), show_progress=False)
            retriever(QUERY)
        shutil.rmtree(work / "r")

    times = interleaved({"by blocks": by_blocks, "at once": at_once}, repeats, warmup=False)
    count = sum(1 for _ in read_documents(corpus))
    bytes_each = {f"{what}_bytes_a_document": round(size / count) for what, size in sizes.items()}
    middle = {step: statistics.median(seconds) for step, seconds in steps.items()}
    return {
        "corpus": name,
        "documents": count,
        "embed_per_second": count / middle["embed"],
        "index_per_second": count / middle["index"],
        "first_answer_seconds": middle["answer"],
        "time_against_add": ratio(times, "by blocks", "at once"),
        **bytes_each,
        "raw": {**times, **steps},
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure workers, then both ways end to end."""
    quick = arguments(__doc__ or "").quick
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - so Ray spells it
    torch.set_num_threads(1)
    count, repeats = (300, 1) if quick else (DOCUMENTS, 2)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpus = write_corpus(work / "corpus.jsonl", count)
        many = write_corpus(work / "many.jsonl", 5_000 if quick else PIPELINE)
        ends = [
            end_to_end("docstrings, MiniLM", corpus, work, str(find(MODEL)), repeats, BLOCK),
            end_to_end("repeated docstrings, no model", many, work, Free(), repeats, 10_000),
        ]
        compared = workers(corpus, work, repeats)
    bars = [
        bar("two Ray workers against one process, steady", compared["steady"]["median"], 1.5),
        bar("embed and index against add, MiniLM", ends[0]["time_against_add"]["median"], 1.2, at_most=True),
        bar("documents a second from vectors to an index", round(ends[1]["index_per_second"]), 10_000),
    ]
    settings = {"model": MODEL, "threads": 1, "workers": WORKERS, "block": BLOCK, "dimension": DIMENSION}
    finish("embed", settings=settings, rows=[compared, *ends], bars=bars, quick=quick)


if __name__ == "__main__":
    main()
