"""Documents a second on real text of mixed length, against `SentenceTransformer.encode` with the same weights.

The text is the embedded corpus: docstrings of the installed packages, from a line to more than the model's limit. Both
sides use the CPU with two threads and start from strings. The peer runs at its defaults: it sorts by characters and
cuts batches of 32. The largest cosine difference is 1 - min cos(ours, theirs) over the documents.

    python benchmarks/encode.py [--quick]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import arguments, bar, finish, interleaved, ratio

from cderetrieval.corpora import pydocs
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.locate import find
from cderetrieval.runtime import supports_bfloat16

MODEL = "all-MiniLM-L6-v2"
THREADS = 2
DOCUMENTS = 2_000
# Where the processor only emulates bfloat16, this many documents say how slow that is.
EMULATED = 200
BARS = {"float32": 1.3, "bfloat16": 2.5}
PEER = "SentenceTransformer"


def documents(count: int) -> list[str]:
    """Draw as many texts from each package of the embedded corpus, one corpus after the other."""
    names = pydocs.packages()
    corpora = [pydocs.load(name, max_documents=count // len(names)).corpus for name in names]
    return [document["text"] for corpus in corpora for document in corpus]


def largest_cosine_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """One minus the smallest cosine of two vectors of the same text; in float64, whose own noise is 1e-16."""
    a, b = (matrix.astype(np.float64) for matrix in (ours, theirs))
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(f"{1 - cosine.min():.3g}")


def measure(encoder: DenseEncoder, peer: Any, texts: list[str], repeats: int) -> dict[str, Any]:
    """Compare an encoder with its peer on the same texts."""
    vectors: dict[str, np.ndarray] = {}
    kind = encoder.settings.dtype

    def ours() -> None:
        vectors[kind] = encoder.encode_document(texts)

    def theirs() -> None:
        vectors[PEER] = peer.encode(texts, show_progress_bar=False)

    for warm_up in (encoder.encode_document, peer.encode):
        warm_up(texts[:64])
    times = interleaved({PEER: theirs, kind: ours}, repeats, warmup=False)
    speed = {name: len(texts) / sorted(seconds)[repeats // 2] for name, seconds in times.items()}
    return {
        "dtype": kind,
        "documents": len(texts),
        "documents_per_second": speed[kind],
        "peer_documents_per_second": speed[PEER],
        "speed": ratio(times, PEER, kind),
        "largest_cosine_difference": largest_cosine_difference(vectors[kind], vectors[PEER]),
        "raw": times,
    }


def main() -> None:
    """Measure fp32, and bf16 whether or not the processor has it: then without a bar, on fewer texts."""
    quick = arguments(__doc__ or "").quick
    torch.set_num_threads(THREADS)
    texts = documents(160 if quick else DOCUMENTS)
    source = str(find(MODEL))
    peer = DenseEncoder(source, device="cpu").model
    rows, bars = [], []
    for kind, wanted in BARS.items():
        encoder = DenseEncoder(source, dtype=kind, device="cpu")
        supported = kind == "float32" or supports_bfloat16(torch.device("cpu"))
        used = texts if supported else texts[:: max(1, len(texts) // EMULATED)]
        row = measure(encoder, peer, used, 1 if quick else 5)
        rows.append({**row, "support": "yes" if supported else "not supported here, emulated"})
        if supported:
            bars.append(bar(f"{kind} against {PEER}.encode", row["speed"]["median"], wanted))
    settings = {"model": MODEL, "threads": THREADS, "documents": len(texts), "characters": sum(map(len, texts))}
    finish("encode", settings=settings, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
