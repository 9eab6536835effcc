"""Documents a second on real text of mixed length, against `SentenceTransformer.encode` with the same weights.

The text is the embedded corpus: docstrings of the installed packages, from a line to more than the model's limit. Both
sides start from strings; all take turns, with one thread and with two. The peer runs in float32 by torch, at its
defaults: it sorts by characters and cuts batches of 32. Speed is by the wall and by the processor's time, which others
on the machine disturb less. The largest cosine difference is 1 - min cos(ours, theirs) over the documents, and memory
the peak of a process that encodes some of them. bfloat16 is left out where the processor only emulates it.

    python benchmarks/encode.py [--quick]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Times, arguments, bar, finish, in_fresh_process, machine, peak_memory_mb, ratio

from cderetrieval.corpora import pydocs
from cderetrieval.models.dense import DenseEncoder
from cderetrieval.models.locate import find
from cderetrieval.runtime import supports_bfloat16

MODEL = "all-MiniLM-L6-v2"
THREADS = (1, 2)
DOCUMENTS, REPEATS, WEIGHED = 400, 5, 200
OURS: dict[str, dict[str, str]] = {
    "float32": {"runtime": "onnx"},
    "int8": {"precision": "int8"},
    "float32, torch": {"runtime": "torch"},
    "bfloat16": {"dtype": "bfloat16"},
}
# What sums products of eight bits in one instruction.
VNNI = ("avx512_vnni", "avx_vnni")
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


def has_vnni() -> bool:
    """Whether the processor says that it has the instructions of int8; elsewhere than on Linux it does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return any(flag in flags for flag in VNNI)


def encode_of(name: str) -> Callable[[list[str]], np.ndarray]:
    """What encodes texts, by its name in the tables."""
    source = str(find(MODEL))
    if name != PEER:
        return DenseEncoder(source, device="cpu", **OURS[name]).encode_document
    peer: Any = DenseEncoder(source, device="cpu").model
    return lambda texts: peer.encode(texts, show_progress_bar=False)


def measure(names: Sequence[str], texts: list[str], threads: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each of ours; all of them and the peer take turns."""
    torch.set_num_threads(threads)
    calls = {name: encode_of(name) for name in (PEER, *names)}
    for call in calls.values():
        call(texts[:64])
    walls: Times = {name: [] for name in calls}
    times: Times = {name: [] for name in calls}
    vectors = {}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            vectors[name] = call(texts)
            walls[name].append(time.perf_counter() - wall)
            times[name].append(time.process_time() - processor)
    return [
        {
            "ours": name,
            "threads": threads,
            "documents_per_second": len(texts) / sorted(walls[name])[repeats // 2],
            "peer_documents_per_second": len(texts) / sorted(walls[PEER])[repeats // 2],
            "speed": ratio(walls, PEER, name),
            "speed, processor time": ratio(times, PEER, name),
            "largest_cosine_difference": largest_cosine_difference(vectors[name], vectors[PEER]),
            "raw": {"wall": [walls[PEER], walls[name]], "processor": [times[PEER], times[name]]},
        }
        for name in names
    ]


def child(name: str, count: str) -> None:
    """Encode in a process of its own, and say how much memory it took."""
    encode_of(name)(documents(int(count)))
    print(json.dumps({"peak_mb": round(peak_memory_mb())}))


def main() -> None:
    """Measure all formats that the processor has."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    quick = arguments(__doc__ or "").quick
    texts, repeats = documents(40 if quick else DOCUMENTS), 1 if quick else REPEATS
    names = [name for name in OURS if name != "bfloat16" or supports_bfloat16(torch.device("cpu"))]
    rows = [row for threads in THREADS for row in measure(names, texts, threads, repeats)]
    weighed = "20" if quick else str(WEIGHED)
    peaks = {name: in_fresh_process("encode.py", "--child", name, weighed)["peak_mb"] for name in (PEER, *names)}
    rows = [{**row, "peak MB": peaks[row["ours"]], "peer's peak MB": peaks[PEER]} for row in rows]
    least = {"float32": 1.3, "int8": 3.0 if has_vnni() else 1.8, "bfloat16": 2.5}
    bars = [
        bar(f"{row['ours']} against {PEER}.encode, threads: {row['threads']}", row[kind]["median"], least[row["ours"]])
        for row in rows
        if row["ours"] in least
        # With one thread both are the same but for what else the machine does.
        for kind in (["speed, processor time"] if row["threads"] == 1 else ["speed"])
    ]
    shown = {"model": MODEL, "documents": len(texts), "characters": sum(map(len, texts)), "vnni": has_vnni()}
    finish("encode", settings={**shown, "processor": machine()["cpu"]}, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
