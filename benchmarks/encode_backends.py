"""Documents a second on real text of mixed length, against sentence-transformers' PyTorch, ONNX and OpenVINO backends.

The same weights, float32, two threads and the documents of `encode.py`, a part of them. Each peer runs at its defaults:
batches of 32, sorted by characters. optimum-onnx 0.1 and optimum-intel 2.2 ask for older versions of transformers than
this package is developed with, so these two run in environments of their own, each in a process that keeps its model
loaded; all take turns. Cosine difference: 1 - min cos(ours, theirs) over the documents. No bar: it says who is faster.

What a context costs a text, cached and joint, over the same encoder without one is measured by `context_cost.py`, at
fixed lengths; multiply.

    python benchmarks/encode_backends.py [--quick] [--onnx PYTHON] [--openvino PYTHON]

PYTHON is the interpreter of an environment with sentence-transformers and optimum-onnx, or optimum-intel; a backend
without one is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, finish, interleaved, ratio
from encode import MODEL, THREADS, documents, largest_cosine_difference

from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.hub import find

OURS, PEER = "cderetrieval", "sentence-transformers, torch"
BACKENDS = {"onnx": "sentence-transformers, ONNX", "openvino": "sentence-transformers, OpenVINO"}
DOCUMENTS, ROUNDS = 480, 5


class Backend:
    """A backend in a process of its own, that encodes the texts of a file."""

    def __init__(self, python: str, backend: str, model: str, texts: Path) -> None:
        script = str(HERE / "encode_peers.py")
        # Its own packages and none of this environment's.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, script, backend, model, str(THREADS)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._request = [str(texts), str(texts.with_name(f"{backend}.npy"))]
        self.versions: dict[str, str] = self._answer()["versions"]

    def encode(self, texts: str | None = None) -> np.ndarray:
        """Vectors of the texts, or of those in another file."""
        request = [texts or self._request[0], self._request[1]]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self._answer()
        vectors: np.ndarray = np.load(self._request[1])
        return vectors

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def backends(given: dict[str, str], model: str, texts: Path) -> Iterator[dict[str, Backend]]:
    """The backends whose interpreters were given, started one after the other."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name, python in given.items():
            found[BACKENDS[name]] = backend = Backend(python, name, model, texts)
            stack.callback(backend.close)
        yield found


def measure(texts: list[str], given: dict[str, str], rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Encode with each in turn; a row for each peer, and the versions of those in other environments."""
    source = str(find(MODEL))
    encoder = DenseEncoder(source, dtype="float32", device="cpu")
    peer = DenseEncoder(source, device="cpu").model
    vectors: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        all_texts, few = Path(folder) / "texts.json", Path(folder) / "few.json"
        all_texts.write_text(json.dumps(texts), encoding="utf-8")
        few.write_text(json.dumps(texts[:64]), encoding="utf-8")
        with backends(given, source, all_texts) as found:
            ours = {OURS: lambda: vectors.update({OURS: encoder.encode_document(texts)})}
            ours[PEER] = lambda: vectors.update({PEER: peer.encode(texts, show_progress_bar=False)})
            theirs = {name: lambda name=name: vectors.update({name: found[name].encode()}) for name in found}
            for warm_up in (encoder.encode_document, peer.encode):
                warm_up(texts[:64])
            for backend in found.values():
                backend.encode(str(few))
            times = interleaved({**ours, **theirs}, rounds, warmup=False)
            versions = {name: backend.versions for name, backend in found.items()}
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
        for name in times
        if name != OURS
    ]
    return rows, versions


def main() -> None:
    """Measure against the backends that there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few documents, one round, no JSON: does it run?")
    parser.add_argument("--onnx", metavar="PYTHON", help="interpreter of an environment with optimum-onnx")
    parser.add_argument("--openvino", metavar="PYTHON", help="interpreter of an environment with optimum-intel")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    texts = documents(160 if given.quick else DOCUMENTS)
    wanted = {name: getattr(given, name) for name in BACKENDS if getattr(given, name)}
    rows, versions = measure(texts, wanted, 1 if given.quick else ROUNDS)
    settings = {"model": MODEL, "threads": THREADS, "documents": len(texts), "peers": versions}
    finish("encode_backends", settings=settings, rows=rows, bars=[], quick=given.quick)


if __name__ == "__main__":
    main()
