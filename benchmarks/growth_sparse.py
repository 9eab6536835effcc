"""How the inverted index grows from 10,000 to a million sparse documents, and what one document more costs.

Vectors are drawn with the statistics of a SPLADE model's (`sparse_data.py`). At each size a process of its own builds
the index, searches it, and adds 1,000 documents; memory is the most that it held beyond the vectors that it was given.
bm25s, which keeps all scores in one sparse matrix, indexes the same terms and answers the same queries in rounds
between ours, up to 100,000 documents: it takes terms as Python lists, which a million documents make too large. So does
seismic, an approximate index, as narrowly as its recall by score reaches .99; it builds 100,000 in two minutes.

Then a dense index on disk takes one document after the other, 1,000 times, each in a call of its own, with a vector
that is ready: what a service pays for each `add` beside the model. Time is that of the processor, one thread.

    python benchmarks/growth_sparse.py [--quick] [--seismic PYTHON]

PYTHON is the interpreter of an environment that has pyseismic-lsr; without it, seismic is left out.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import numpy as np
import sparse_data
from common import arguments, bar, finish, in_fresh_process, interleaved, peak_memory_mb, ratio, start_memory
from scipy.sparse import csr_array
from search import DIMENSION, ReadyVectors, unit_vectors
from sparse import MORE, K, built, engines, insert, least_of_best, ours, seismic

from cderetrieval import Retriever

SIZES, QUICK = (10_000, 100_000, 1_000_000), (1_000, 2_000)
QUERIES, ROUNDS = 200, 5
WITH_PEERS = 100_000
ALONE = 1_000


def child(count: int, python: str = "") -> dict[str, Any]:
    """Build, search and add at one size."""
    docs, queries = sparse_data.documents(count, seed=1), sparse_data.queries(QUERIES, seed=2)
    before = start_memory()
    start = time.process_time()
    index = built(docs)
    seconds = time.process_time() - start
    call = ours(index, engines()[0], queries)
    call()
    memory = peak_memory_mb() - before
    calls = {"index": call} | ({"bm25s": bm25s_search(docs, queries)} if count <= WITH_PEERS else {})
    times = interleaved(calls, ROUNDS, clock=time.process_time)
    each = {name: 1e3 * statistics.median(found) / QUERIES for name, found in times.items()}
    approximate = beside_seismic(python, index, docs, queries) if python and count <= WITH_PEERS else {}
    more = sparse_data.documents(MORE, seed=3)
    added = []
    for _ in range(ROUNDS):
        start = time.process_time()
        insert(index, np.arange(MORE) + int(index.seqs.max()) + 1, more)
        added.append(1e3 * (time.process_time() - start))
    return {
        "documents": count,
        "build, s": seconds,
        "vectors, MB": round((docs.data.nbytes + docs.indices.nbytes) / 2**20, 1),
        "memory beyond them, MB": round(memory, 1),
        "ms a query": each["index"],
        "bm25s / index": ratio(times, "bm25s", "index") if "bm25s" in times else None,
        **approximate,
        f"ms to add {MORE}": statistics.median(added),
        "raw": times,
    }


def beside_seismic(python: str, index: Any, docs: csr_array, queries: csr_array) -> dict[str, Any]:
    """The fastest of seismic's searches that finds 99 of 100, or that which finds most."""
    exact = docs.astype(np.float64)
    rows = seismic(python, index, exact, queries, least_of_best(exact, queries), ROUNDS)
    own = f"seismic / {engines()[0]}"
    best = max(rows, key=lambda row: (min(row["recall"], 0.99), -row[own]["median"]))
    return {"seismic / index": best[own], "its recall": best["recall"], "its build, s": best["build, s"]}


def bm25s_search(docs: csr_array, queries: csr_array) -> Any:
    """The same terms in bm25s: each document names a term once."""
    import bm25s
    from bm25s.tokenization import Tokenized

    def tokens(matrix: csr_array) -> Tokenized:
        lists = [part.tolist() for part in np.split(matrix.indices, matrix.indptr[1:-1])]
        return Tokenized(ids=lists, vocab={str(term): term for term in range(sparse_data.VOCABULARY)})

    peer = bm25s.BM25(backend="numba" if engines()[0] == "numba" else "numpy")
    peer.index(tokens(docs), show_progress=False)
    asked = tokens(queries)
    return lambda: peer.retrieve(asked, k=K, show_progress=False, n_threads=0)


def one_by_one(count: int) -> dict[str, Any]:
    """Milliseconds of each of many adds of one document to an index on disk."""
    vectors = unit_vectors(count, seed=4)
    with tempfile.TemporaryDirectory() as folder, Retriever(ReadyVectors(), path=folder) as retriever:
        retriever.add([{"id": -1, "text": "The first."}], vectors=unit_vectors(1, seed=5), show_progress=False)
        times = []
        for number in range(count):
            document = [{"id": number, "text": f"The text of document number {number}."}]
            start = time.process_time()
            retriever.add(document, vectors=vectors[number : number + 1], show_progress=False)
            times.append(1e3 * (time.process_time() - start))
    tenth = max(1, count // 10)
    first, last = statistics.median(times[:tenth]), statistics.median(times[-tenth:])
    return {"single adds": count, "median ms": statistics.median(times), "first tenth": first, "last tenth": last}


def main() -> None:
    """Measure each size in a process of its own, then the single documents."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(int(sys.argv[2]), *sys.argv[3:])))
        return
    given = arguments(__doc__ or "", peers={"--seismic": "pyseismic-lsr"})
    quick, more = given.quick, [given.seismic] if given.seismic else []
    rows = [in_fresh_process("growth_sparse.py", "--child", str(size), *more) for size in (QUICK if quick else SIZES)]
    alone = one_by_one(50 if quick else ALONE)
    bars = [
        bar("ms of one add beside the model, median of 1,000", round(alone["median ms"], 2), 5, at_most=True),
        bar(
            "last hundred of 1,000 over the first",
            round(alone["last tenth"] / alone["first tenth"], 2),
            1.5,
            at_most=True,
        ),
    ]
    settings = {"queries": QUERIES, "k": K, "threads": 1, "dimension": DIMENSION, "engine": engines()[0]}
    finish("growth_sparse", settings=settings, rows=[*rows, alone], bars=bars, quick=quick)


if __name__ == "__main__":
    main()
