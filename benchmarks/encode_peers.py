"""A peer of `encode_backends.py`: all-MiniLM-L6-v2 in sentence-transformers' ONNX or OpenVINO backend.

    python benchmarks/encode_peers.py onnx|openvino MODEL THREADS

Exports the model, in float32, and then answers requests: a line on standard input names a JSON file of texts and where
to write their vectors (.npy); a line comes back when they lie there. So the model stays loaded, and its rounds take
turns with those of another process. Needs nothing of this package, so that it runs in an environment of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from typing import Any

PACKAGES = ("sentence-transformers", "transformers", "optimum-onnx", "onnxruntime", "optimum-intel", "openvino")


def options(backend: str, threads: int) -> dict[str, Any]:
    """What the backend is told: so many threads, and no number format but float32."""
    if backend == "onnx":
        from onnxruntime import SessionOptions

        session = SessionOptions()
        session.intra_op_num_threads = threads
        return {"export": True, "provider": "CPUExecutionProvider", "session_options": session}
    return {"export": True, "ov_config": {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}}


def versions() -> dict[str, str]:
    """Versions of what this environment has of the packages that matter."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(backend: str, model: str, threads: int) -> None:
    """Load, say so, and encode on request."""
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the export prints must not stand between the answers
    torch.set_num_threads(threads)
    encoder = SentenceTransformer(model, device="cpu", backend=backend, model_kwargs=options(backend, threads))
    print(json.dumps({"versions": versions()}), file=answers, flush=True)
    for line in sys.stdin:
        texts, vectors = json.loads(line)
        with open(texts, encoding="utf-8") as file:
            found = encoder.encode(json.load(file), show_progress_bar=False)
        np.save(vectors, found)
        print(json.dumps({"vectors": len(found)}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
