"""Documents a second on real text of mixed length, in float32 and int8, against other ways to run the same weights.

These are sentence-transformers' PyTorch, ONNX and OpenVINO backends, fastembed and txtai. The documents are those of
`encode.py`, a part of them. Processor time on one thread, which others on the machine disturb little. Each peer runs at
its defaults: batches of 32, sorted by characters. In int8, sentence-transformers' ONNX model is quantized dynamically
for this processor, and its OpenVINO model statically on the first 300 documents, both as its documentation shows.
fastembed is given the exported ONNX model. Peers run in environments of their own, each in a process that keeps its
model loaded; all take turns. Memory is the peak of that process; ours and PyTorch's share one. Cosine difference:
1 - min cos(float32 here, theirs) over the documents. No bar: it says who is faster.

What a context costs a text, cached and joint, over the same encoder without one is measured by `context_cost.py`, at
fixed lengths; multiply.

    python benchmarks/encode_backends.py [--quick] [--onnx PYTHON] [--openvino PYTHON] [--txtai PYTHON]

PYTHON is the interpreter of an environment with sentence-transformers[onnx] and fastembed, sentence-transformers
[openvino], or txtai; what is without one is left out.
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
from common import Peer, arguments, finish, machine, ratio
from encode import MODEL, documents, largest_cosine_difference

from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.locate import find

OURS, INT8, PEER = "cderetrieval", "cderetrieval, int8", "sentence-transformers, torch"
# Environment to what runs in it: the word for `peers.py`, and the name in the table.
BACKENDS = {
    "onnx": {
        "onnx": "sentence-transformers, ONNX",
        "onnx-int8": "sentence-transformers, ONNX int8",
        "fastembed": "fastembed",
    },
    "openvino": {
        "openvino": "sentence-transformers, OpenVINO",
        "openvino-int8": "sentence-transformers, OpenVINO int8",
    },
    "txtai": {"txtai": "txtai"},
}
DOCUMENTS, ROUNDS = 240, 3
THREADS = 1

Encode = Callable[[list[str]], tuple[float, np.ndarray]]


def measure(texts: list[str], given: dict[str, str], rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Encode with each in turn; a row for each peer, and the versions of those in other environments."""
    source = str(find(MODEL))
    model = DenseEncoder(source, device="cpu").model
    calls: dict[str, Encode] = {
        OURS: partial(here, DenseEncoder(source, device="cpu").encode_document),
        INT8: partial(here, DenseEncoder(source, device="cpu", precision="int8").encode_document),
        PEER: partial(here, partial(model.encode, show_progress_bar=False)),
    }
    versions, peers = {}, dict[str, Peer]()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        (calibration := Path(folder) / "calibration.json").write_text(json.dumps(documents(300)), encoding="utf-8")
        for environment, python in given.items():
            for backend, name in BACKENDS[environment].items():
                try:
                    peer = Peer(python, "peers.py", backend, source, str(THREADS), str(calibration))
                except RuntimeError as error:  # it lacks what this one needs
                    print(f"{name} is left out: {error}")
                    continue
                running.callback(peer.close)
                calls[name], peers[name] = partial(elsewhere, peer, Path(folder)), peer
                versions[name] = peer.ready["versions"]
        for call in calls.values():
            call(texts[:64])
        found = [{name: call(texts) for name, call in calls.items()} for _ in range(rounds)]
        memory = {name: peer.ask()["peak_mb"] for name, peer in peers.items()}
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
            "speed of int8": ratio(times, name, INT8),
            "peer's peak MB": memory.get(name, ""),
            "largest_cosine_difference": largest_cosine_difference(vectors[OURS], vectors[name]),
            "raw": {OURS: times[OURS], name: times[name]},
        }
        for name in calls
        if name not in (OURS, INT8)
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
    peers = {"--onnx": "optimum-onnx and fastembed", "--openvino": "optimum-intel", "--txtai": "txtai"}
    given = arguments(__doc__ or "", peers=peers)
    torch.set_num_threads(THREADS)
    texts = documents(40 if given.quick else DOCUMENTS)
    wanted = {name: getattr(given, name) for name in BACKENDS if getattr(given, name)}
    rows, versions = measure(texts, wanted, 1 if given.quick else ROUNDS)
    settings = {"model": MODEL, "threads": THREADS, "documents": len(texts), "peers": versions}
    settings["processor"] = machine()["cpu"]
    finish("encode_backends", settings=settings, rows=rows, bars=[], quick=given.quick)


if __name__ == "__main__":
    main()
