"""Documents a second on real text of mixed length, against sentence-transformers' PyTorch, ONNX and OpenVINO backends.

The same weights, float32, and the documents of `encode.py`, a part of them. Processor time on one thread, which others
on the machine disturb little. Each peer runs at its defaults: batches of 32, sorted by characters. optimum-onnx 0.1 and
optimum-intel 2.2 ask for older versions of transformers than this package is developed with, so these two run in
environments of their own, each in a process that keeps its model loaded; all take turns. Cosine difference:
1 - min cos(ours, theirs) over the documents. No bar: it says who is faster.

What a context costs a text, cached and joint, over the same encoder without one is measured by `context_cost.py`, at
fixed lengths; multiply.

    python benchmarks/encode_backends.py [--quick] [--onnx PYTHON] [--openvino PYTHON]

PYTHON is the interpreter of an environment with sentence-transformers and optimum-onnx, or optimum-intel; a backend
without one is left out.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Peer, arguments, finish, ratio
from encode import MODEL, documents, largest_cosine_difference

from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.locate import find

OURS, PEER = "cderetrieval", "sentence-transformers, torch"
BACKENDS = {"onnx": "sentence-transformers, ONNX", "openvino": "sentence-transformers, OpenVINO"}
DOCUMENTS, ROUNDS = 240, 3
THREADS = 1

Encode = Callable[[list[str]], tuple[float, np.ndarray]]


def measure(texts: list[str], given: dict[str, str], rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Encode with each in turn; a row for each peer, and the versions of those in other environments."""
    source = str(find(MODEL))
    encoder = DenseEncoder(source, dtype="float32", device="cpu")
    model = DenseEncoder(source, device="cpu").model
    calls: dict[str, Encode] = {
        OURS: partial(here, encoder.encode_document),
        PEER: partial(here, partial(model.encode, show_progress_bar=False)),
    }
    versions = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        for backend, python in given.items():
            peer = Peer(python, "peers.py", backend, source, str(THREADS))
            running.callback(peer.close)
            calls[BACKENDS[backend]] = partial(elsewhere, peer, Path(folder))
            versions[BACKENDS[backend]] = peer.ready["versions"]
        for call in calls.values():
            call(texts[:64])
        found = [{name: call(texts) for name, call in calls.items()} for _ in range(rounds)]
    vectors = {name: answer[1] for name, answer in found[-1].items()}
    times = {name: [answers[name][0] for answers in found] for name in calls}
    speed = {name: len(texts) / sorted(seconds)[rounds // 2] for name, seconds in times.items()}
    rows = [
        {
            "peer": name,
            "documents": len(texts),
            "documents_per_second": speed[OURS],
            "peer_documents_per_second": speed[name],
            "speed": ratio(times, name, OURS),
            "largest_cosine_difference": largest_cosine_difference(vectors[OURS], vectors[name]),
            "raw": {OURS: times[OURS], name: times[name]},
        }
        for name in calls
        if name != OURS
    ]
    return rows, versions


def here(encode: Callable[[list[str]], np.ndarray], texts: list[str]) -> tuple[float, np.ndarray]:
    """Processor seconds, and vectors."""
    start = time.process_time()
    vectors = encode(texts)
    return time.process_time() - start, vectors


def elsewhere(peer: Peer, folder: Path, texts: list[str]) -> tuple[float, np.ndarray]:
    """Processor seconds, and vectors, of another process; files carry texts and vectors."""
    given, made = folder / "texts.json", folder / "vectors.npy"
    given.write_text(json.dumps(texts), encoding="utf-8")
    seconds = peer.ask(texts=str(given), vectors=str(made))["seconds"]
    return seconds, np.load(made)


def main() -> None:
    """Measure against the backends that there are."""
    given = arguments(__doc__ or "", peers={"--onnx": "optimum-onnx", "--openvino": "optimum-intel"})
    torch.set_num_threads(THREADS)
    texts = documents(160 if given.quick else DOCUMENTS)
    wanted = {name: getattr(given, name) for name in BACKENDS if getattr(given, name)}
    rows, versions = measure(texts, wanted, 1 if given.quick else ROUNDS)
    settings = {"model": MODEL, "threads": THREADS, "documents": len(texts), "peers": versions}
    finish("encode_backends", settings=settings, rows=rows, bars=[], quick=given.quick)


if __name__ == "__main__":
    main()
