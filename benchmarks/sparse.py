"""The inverted index on 100,000 synthetic documents: search, recall, add, open; one thread, CPU time.

search  ten best of each query, CPU time of a query: with numba, with numpy and scipy alone, and beside them, in the
        same rounds, scipy's product of two csr matrices and torch's product of two sparse COO matrices, which is
        how sparsembed searches (32 queries at a time: in its own batches of three a query takes ten times as long)
recall  share of the ten best, by score, of brute force in float64
add     1,000 more documents: into the index, and through the Retriever into an index on disk (texts, vectors and
        ids written, committed and flushed; then the next search, which takes them into the index)
open    a saved index in a fresh process until it has answered a query: the index itself, and `Retriever.load`
numba   processor time to load it, compiled before, and after how many postings it has paid (`kernel.MANY`)
seismic an approximate inverted index in Rust, at its default build and several breadths of search: recall and CPU
        time of a query, its rounds between ours
term embeddings  10,000 documents with 64 dimensions a term: CPU time of a query that re-scores 500 candidates, and
        the share of the ten best of an exhaustive re-scoring that it finds

    python benchmarks/sparse.py [--quick] [--seismic PYTHON]

PYTHON is the interpreter of an environment that has pyseismic-lsr; without it, seismic is left out.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are imported

import numpy as np
import sparse_data
from common import Peer, Times, arguments, bar, finish, in_fresh_process, interleaved, ratio
from scipy.sparse import csr_array

from cderetrieval import Retriever
from cderetrieval.files import read_json, write_json
from cderetrieval.index import inverted, kernel, manifest
from cderetrieval.index.inverted import InvertedIndex
from cderetrieval.testing import WordEncoder
from cderetrieval.types import TermEmbeddings
from cderetrieval.vectors import Layout

DOCUMENTS = 100_000
QUERIES = 1_000
K = 10
MORE = 1_000
EMBEDDED, SIZE = 10_000, 64
LAYOUT = Layout("sparse", sparse_data.VOCABULARY)
OWNER = {"epoch": 0, "fingerprint": "benchmark"}
# Queries of each engine in a round, so that rounds of slow ones take seconds and not minutes.
ASKED = {"numba": 200, "numpy and scipy": 200, "scipy csr @ csr": 60, "torch COO": 32}
# How widely seismic looks: terms of a query that count, and how near a block must come to the tenth best so far.
BREADTHS = tuple(
    {"query_cut": cut, "heap_factor": factor} for cut, factor in ((10, 0.9), (10, 0.7), (30, 0.9), (30, 0.7), (60, 0.5))
)


@contextmanager
def computing(engine: str) -> Iterator[None]:
    """Sum with numba, or without it."""
    before = kernel.MANY
    kernel.MANY = 0 if engine == "numba" else 2**62
    try:
        yield
    finally:
        kernel.MANY = before


def ours(index: InvertedIndex, engine: str, queries: csr_array) -> Callable[[], Any]:
    """Search with the inverted index."""

    def call() -> Any:
        with computing(engine):
            return index.search(queries, K)

    return call


def scipy_product(docs: csr_array, queries: csr_array) -> Callable[[], Any]:
    """Search as neural-cherche does: a product of two csr matrices, then the best of each row."""
    transposed = docs.T.tocsr()

    def call() -> None:
        scores = (queries @ transposed).tocsr()
        for row in range(scores.shape[0]):
            values = scores.data[scores.indptr[row] : scores.indptr[row + 1]]
            np.argpartition(values, -min(K, len(values)))[-K:]

    return call


def torch_product(docs: csr_array, queries: csr_array) -> Callable[[], Any]:
    """Search as sparsembed does: a product of two COO matrices, made dense, then the best of each row."""
    import torch

    torch.set_num_threads(1)

    def coo(matrix: csr_array) -> torch.Tensor:
        entries = matrix.tocoo()
        places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
        return torch.sparse_coo_tensor(places, torch.from_numpy(entries.data), matrix.shape).coalesce()

    documents, batch = coo(docs), coo(queries)

    def call() -> None:
        torch.topk((batch @ documents.T).to_dense(), k=K, dim=1)

    return call


def engines() -> list[str]:
    """Engines of this process, the one in use first."""
    return [name for name in ASKED if name != "numba" or kernel.compiled() is not None]


def search(index: InvertedIndex, docs: csr_array, queries: csr_array, repeats: int) -> dict[str, Any]:
    """CPU milliseconds of a query with each engine, in rounds, and the ratios to ours."""
    names = engines()
    asked = {name: queries[: ASKED[name]] for name in names}
    calls: dict[str, Callable[[], Any]] = {}
    for name in names:
        if name == "torch COO":
            calls[name] = torch_product(docs, asked[name])
        elif name == "scipy csr @ csr":
            calls[name] = scipy_product(docs, asked[name])
        else:
            calls[name] = ours(index, name, asked[name])
    times = interleaved(calls, repeats, clock=time.process_time)
    each = {name: [1e3 * t / asked[name].shape[0] for t in found] for name, found in times.items()}
    own = names[0]
    row = {f"{name}, ms": statistics.median(found) for name, found in each.items()}
    row |= {f"{name} / {own}": ratio(each, name, own) for name in names[1:]}
    return {"engine": own, **row, "raw": each}


def least_of_best(exact: csr_array, queries: csr_array) -> np.ndarray:
    """The score of the tenth best document of each query, by brute force; shape (q,), float64."""
    return np.array([np.partition(_scores(exact, queries, row), -K)[-K] for row in range(queries.shape[0])])


def recall(found: Sequence[Any], exact: csr_array, queries: csr_array, least: np.ndarray) -> float:
    """Share of the ten best by score that were found; ties allowed."""
    hits = 0
    for row, seqs in enumerate(found):
        hits += int((_scores(exact[np.asarray(seqs)], queries, row) >= least[row] - 1e-9).sum())
    return hits / (K * len(found))


def _scores(exact: csr_array, queries: csr_array, row: int) -> np.ndarray:
    scores: np.ndarray = exact @ queries[[row]].toarray()[0].astype(np.float64)
    return scores


def write_csr(file: str, matrix: csr_array) -> None:
    """Write a matrix as a peer reads it: weights in float32, terms, and where rows start."""
    np.savez(file, data=matrix.data.astype(np.float32), indices=matrix.indices, indptr=matrix.indptr)


def seismic(
    python: str, index: InvertedIndex, exact: csr_array, queries: csr_array, least: np.ndarray, repeats: int
) -> list[dict[str, Any]]:
    """CPU milliseconds of a query of seismic at several breadths, its recall by score, and the ratio to ours."""
    own = next(iter(engines()))
    call, count = ours(index, own, queries), queries.shape[0]
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("documents.npz", "queries.npz")]
        for file, matrix in zip(files, (exact, queries), strict=True):
            write_csr(file, matrix)
        peer = Peer(python, "peers.py", "seismic", *files)
    rows = []
    with closing(peer):
        for breadth in BREADTHS:
            found = peer.ask(k=K, **breadth)["found"]
            times: Times = {"seismic": [], own: []}
            for _ in range(repeats):
                times["seismic"].append(peer.ask(k=K, **breadth)["seconds"])
                times[own].append(_milliseconds(call) / 1e3)
            each = {f"{name}, ms": 1e3 * statistics.median(seconds) / count for name, seconds in times.items()}
            row = {**breadth, "recall": recall(found, exact, queries, least), **each}
            row[f"seismic / {own}"] = ratio(times, "seismic", own)
            rows.append(row | {"build, s": round(peer.ready["build_seconds"], 1), "raw": times})
    return rows


def add(docs: csr_array, more: csr_array, rounds: int) -> dict[str, Any]:
    """Milliseconds for 1,000 documents: into an index of all others, and again and again into the same one."""
    fresh, running = [], []
    for _ in range(rounds):
        index = built(docs)
        fresh.append(_milliseconds(lambda index=index: insert(index, _numbers(index), more)))
    for _ in range(64):
        running.append(_milliseconds(lambda: insert(index, _numbers(index), more)))
    return {"what": f"add {MORE} to the index", "ms": statistics.median(fresh)} | {
        "then 64 times, median": statistics.median(running),
        "then 64 times, slowest": max(running),
        "segments after": len(index.segments),
        "raw": {"fresh": fresh, "running": running},
    }


def add_through_retriever(folder: Path, docs: csr_array, more: csr_array, rounds: int) -> dict[str, Any]:
    """Build an index on disk; wall milliseconds of an `add` of 1,000 documents, and of the search after it."""
    added, searched = [], []
    query = more[:1]
    start = time.perf_counter()
    retriever = Retriever(WordEncoder(dimension=sparse_data.VOCABULARY), path=folder)
    retriever.add(_rows(0, docs.shape[0]), vectors=docs, show_progress=False)
    built_in = time.perf_counter() - start
    retriever(query, k=K)
    for number in range(rounds):
        rows = _rows(docs.shape[0] + MORE * number, MORE)
        added.append(_wall(lambda rows=rows: retriever.add(rows, vectors=more, show_progress=False)))
        searched.append(_wall(lambda: retriever(query, k=K)))
    retriever.close()
    return {"what": f"add {MORE} through the Retriever, wall", "ms": statistics.median(added)} | {
        "and the next search": statistics.median(searched),
        "documents added a second at first": round(docs.shape[0] / built_in),
        "raw": {"add": added, "search": searched},
    }


def child_open(folder: Path, query: csr_array) -> dict[str, float]:
    """Open the index alone: wall milliseconds until it is there, and until it has answered."""
    digest = read_json(folder / "digest.json", str)
    start = time.perf_counter()
    index = InvertedIndex(LAYOUT.dimension, LAYOUT.embedding_size)
    believed = manifest.load(index, folder, digest=digest, **OWNER)
    loaded = time.perf_counter()
    assert believed
    index.search(query, K)
    return {"load": 1e3 * (loaded - start), "load and answer": 1e3 * (time.perf_counter() - start)}


def child_retriever(folder: Path, query: csr_array) -> dict[str, float]:
    """Open the whole retriever."""
    start = time.perf_counter()
    with Retriever.load(folder, model=WordEncoder(dimension=sparse_data.VOCABULARY)) as retriever:
        loaded = time.perf_counter()
        retriever(query, k=K)
        return {"load": 1e3 * (loaded - start), "load and answer": 1e3 * (time.perf_counter() - start)}


def child_numba(folder: Path, query: csr_array) -> dict[str, float]:
    """Load numba and what it has compiled before: milliseconds of the processor."""
    start = time.process_time()
    assert kernel.compiled() is not None
    return {"load": 1e3 * (time.process_time() - start)}


def numba_pays(docs: csr_array, queries: csr_array, found: dict[str, Any], rounds: int) -> dict[str, Any]:
    """After how many postings numba has saved what loading it takes."""
    loaded = reopen("numba", Path(), rounds)
    counts = np.bincount(docs.indices, minlength=sparse_data.VOCABULARY)
    saved = (found["numpy and scipy, ms"] - found["numba, ms"]) * queries.shape[0] / counts[queries.indices].sum()
    return {**loaded, "saved, ns a posting": 1e6 * saved, "pays after": round(loaded["load"] / saved)}


CHILDREN = {"index": child_open, "Retriever": child_retriever, "numba": child_numba}


def reopen(kind: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Medians of a child that opens what lies in a folder."""
    runs = [in_fresh_process("sparse.py", "--child", kind, str(folder)) for _ in range(rounds)]
    return {"open": kind} | {name: statistics.median(run[name] for run in runs) for name in runs[0]} | {"raw": runs}


def term_embeddings(count: int, asked: int) -> dict[str, Any]:
    """CPU milliseconds of a query that re-scores its candidates, and what the candidates miss."""
    docs, queries = sparse_data.documents(count, 5), sparse_data.queries(asked, 6)
    index = InvertedIndex(sparse_data.VOCABULARY, SIZE)
    insert(index, np.arange(count), TermEmbeddings(docs, sparse_data.embeddings(docs, SIZE, 7)))
    vectors = TermEmbeddings(queries, sparse_data.embeddings(queries, SIZE, 8))
    index.search(vectors, K)
    cpu = [_milliseconds(lambda: index.search(vectors, K)) / asked for _ in range(5)]
    _, found = index.search(vectors, K)
    least, inverted.LEAST_CANDIDATES = inverted.LEAST_CANDIDATES, count
    _, best = index.search(vectors, K)
    inverted.LEAST_CANDIDATES = least
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, best, strict=True))
    return {
        "term embeddings, documents": count,
        "ms": statistics.median(cpu),
        "recall of exhaustive re-scoring": hits / best.size,
        "bytes a document": round(_bytes(index) / count),
        "raw": cpu,
    }


def built(docs: csr_array) -> InvertedIndex:
    """An index of all documents."""
    index = InvertedIndex(sparse_data.VOCABULARY)
    insert(index, np.arange(docs.shape[0]), docs)
    return index


def insert(index: InvertedIndex, numbers: np.ndarray, vectors: Any) -> None:
    """Sync the index to what it holds and these documents."""
    index.sync(np.concatenate([index.seqs, numbers]), lambda after: iter([(numbers, vectors)]))


def _bytes(index: InvertedIndex) -> int:
    """Bytes of all arrays of an index."""
    parts = [part for segment in index.segments for part in (segment, segment.postings, segment.forward) if part]
    return sum(array.nbytes for part in parts for array in vars(part).values() if isinstance(array, np.ndarray))


def _numbers(index: InvertedIndex) -> np.ndarray:
    return np.arange(MORE) + int(index.segments[-1].seqs[-1]) + 1


def _rows(first: int, count: int) -> list[dict[str, Any]]:
    return [{"id": f"document-{i}", "text": f"The text of document number {i}."} for i in range(first, first + count)]


def _milliseconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def _wall(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Measure search, then add, open and term embeddings."""
    if sys.argv[1:2] == ["--child"]:
        kind, folder = sys.argv[2], Path(sys.argv[3])
        print(json.dumps(CHILDREN[kind](folder, sparse_data.queries(1, seed=2))))
        return
    given = arguments(__doc__ or "", peers={"--seismic": "pyseismic-lsr"})
    quick = given.quick
    count, repeats, rounds = (5_000, 2, 2) if quick else (DOCUMENTS, 9, 5)
    docs, queries = sparse_data.documents(count, seed=1), sparse_data.queries(QUERIES, seed=2)
    more = sparse_data.documents(MORE, seed=3)
    start = time.process_time()
    index = built(docs)
    seconds = time.process_time() - start
    found = search(index, docs, queries, repeats)
    exact, asked = docs.astype(np.float64), queries[: 50 if quick else QUERIES]
    least = least_of_best(exact, asked)
    found |= {"recall": recall(index.search(asked, K)[1], exact, asked, least)}
    found |= {"build, s": seconds, "bytes a document": round(_bytes(index) / count)}
    few = min(200, asked.shape[0])
    peers = seismic(given.seismic, index, exact, asked[:few], least[:few], repeats) if given.seismic else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "index").mkdir()
        write_json(folder / "index" / "digest.json", manifest.save(index, folder / "index", generation=1, **OWNER))
        added = [add(docs, more, rounds), add_through_retriever(folder / "retriever", docs, more, rounds)]
        opened = [reopen(kind, folder / kind.lower(), rounds) for kind in ("index", "Retriever")]
    embedded = term_embeddings(500 if quick else EMBEDDED, 20 if quick else 200)
    own = found["engine"]
    paid = [numba_pays(docs, queries[: ASKED[own]], found, rounds)] if own == "numba" else []
    bars = [
        *(bar(f"CPU ms of a query ({name})", found[f"{name}, ms"], 0.45, at_most=True) for name in engines()[:-2]),
        bar("recall@10 by score", found["recall"], 1.0),
        bar("times faster than scipy csr @ csr", found[f"scipy csr @ csr / {own}"]["median"], 5),
        bar("times faster than torch COO", found[f"torch COO / {own}"]["median"], 100),
        bar(f"CPU ms to add {MORE} documents to the index", added[0]["ms"], 10, at_most=True),
        bar("wall ms to open the index and answer", opened[0]["load and answer"], 50, at_most=True),
    ]
    settings = {"documents": count, "queries": QUERIES, "k": K, "threads": 1, **sparse_data.statistics(docs, queries)}
    finish("sparse", settings=settings, rows=[found, *peers, *added, *opened, *paid, embedded], bars=bars, quick=quick)


if __name__ == "__main__":
    main()
