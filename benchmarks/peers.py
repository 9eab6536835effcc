"""Peers that run in environments of their own: they load once and answer, a line of JSON for a line of JSON.

    python benchmarks/peers.py onnx|openvino MODEL THREADS      {"texts": FILE, "vectors": FILE}
    python benchmarks/peers.py seismic DOCUMENTS QUERIES        {"k": 10, "query_cut": 10, "heap_factor": 0.8}

At the other end is `common.Peer`; of this package nothing is needed here. The first line says what was loaded; each
answer has the seconds of the processor.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PACKAGES = (
    "sentence-transformers",
    "transformers",
    "optimum-onnx",
    "onnxruntime",
    "optimum-intel",
    "openvino",
    "pyseismic-lsr",
)

Answer = Callable[..., dict[str, Any]]


def sentence_transformers(backend: str, model: str, threads: str) -> tuple[dict[str, Any], Answer]:
    """Export a model in float32, for so many threads, and encode texts at the defaults of `SentenceTransformer`."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(int(threads))
    encoder = SentenceTransformer(
        model, device="cpu", backend=backend, model_kwargs={"export": True, **OPTIONS[backend](int(threads))}
    )

    def encode(texts: str, vectors: str) -> dict[str, Any]:
        with open(texts, encoding="utf-8") as file:
            asked = json.load(file)
        start = time.process_time()
        found = encoder.encode(asked, show_progress_bar=False)
        seconds = time.process_time() - start
        np.save(vectors, found)
        return {"seconds": seconds}

    return {}, encode


def _onnx(threads: int) -> dict[str, Any]:
    from onnxruntime import SessionOptions

    session = SessionOptions()
    session.intra_op_num_threads = threads
    return {"provider": "CPUExecutionProvider", "session_options": session}


def _openvino(threads: int) -> dict[str, Any]:
    return {"ov_config": {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}}


OPTIONS = {"onnx": _onnx, "openvino": _openvino}


def seismic(documents: str, queries: str) -> tuple[dict[str, Any], Answer]:
    """Build an index with default settings and search it, all on one thread."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # `batch_search(num_threads=1)` alone was seen to take two
    from seismic import SeismicDataset, SeismicIndex, get_seismic_string

    dataset = SeismicDataset()
    with np.load(documents) as file:
        indptr, indices, values = file["indptr"], file["indices"], file["data"]
    names = [str(number) for number in range(len(indptr) - 1)]
    dataset.add_documents_by_id(names, indices.astype(np.int64), values, indptr.astype(np.int64))
    start = time.process_time()
    index = SeismicIndex.build_from_dataset(dataset, num_threads=1)
    seconds = time.process_time() - start
    with np.load(queries) as file:
        spans = list(zip(file["indptr"][:-1].tolist(), file["indptr"][1:].tolist(), strict=True))
        terms = file["indices"].astype(get_seismic_string())
        asked = [terms[low:high] for low, high in spans]
        weights = [file["data"][low:high] for low, high in spans]
    numbers = np.array([str(number) for number in range(len(spans))], dtype=get_seismic_string())

    def search(k: int, query_cut: int, heap_factor: float) -> dict[str, Any]:
        start = time.process_time()
        found = index.batch_search(
            numbers, asked, weights, k=k, query_cut=query_cut, heap_factor=heap_factor, num_threads=1
        )
        seconds = time.process_time() - start
        # Rankings come in the order in which threads finished them, and name their query; one may be empty.
        rankings = {int(ranking[0][0]): [int(document) for _, _, document in ranking] for ranking in found if ranking}
        return {"seconds": seconds, "found": [rankings.get(number, []) for number in range(len(spans))]}

    return {"build_seconds": seconds}, search


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of those packages that this environment has; by default the peers' own."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(system: str, *values: str) -> None:
    """Load, say so, and answer until there are no more requests."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not stand between the answers
    loaded, answer = seismic(*values) if system == "seismic" else sentence_transformers(system, *values)
    print(json.dumps({**loaded, "versions": versions()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
