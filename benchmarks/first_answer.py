"""What a user waits for: ``cderetrieval search`` over 200 documents, from nothing to the answer.

Against ``import torch``. Each command is a process of its own; time is that of the processor, which others on the
machine disturb little, and commands take turns. The corpus is the embedded one, the model `cde-minilm`, the index is on
disk. "Without the extra" is what torch computes where the extra `onnx` is not installed.

    python benchmarks/first_answer.py [--quick]
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Times, arguments, bar, finish, ratio
from end_to_end import processor_seconds

TORCH, ONNX, PLAIN, HEAVY = "import torch", "search", "search, without the extra", "import sentence_transformers"
DOCUMENTS, REPEATS = 200, 7


def build(path: Path, count: int) -> None:
    """Make the index that is asked."""
    from cderetrieval import Retriever
    from cderetrieval.corpora import pydocs

    with Retriever("cde-minilm", on=["title", "text"], path=path) as retriever:
        retriever.add(list(pydocs.load("python", count).corpus), show_progress=False)


def processor(command: list[str]) -> float:
    """Processor seconds of a process."""
    before = processor_seconds()
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    return processor_seconds() - before


def main() -> None:
    """Run the commands in turn."""
    quick = arguments(__doc__ or "").quick
    with tempfile.TemporaryDirectory() as name:
        index = Path(name) / "index"
        build(index, 20 if quick else DOCUMENTS)
        search = [sys.executable, "-m", "cderetrieval", "search", str(index), "merge two tables"]
        commands = {
            TORCH: [sys.executable, "-c", TORCH],
            ONNX: search,
            PLAIN: [*search, "--runtime", "torch"],
            HEAVY: [sys.executable, "-c", HEAVY],
        }
        times: Times = {label: [] for label in commands}
        for _, label in itertools.product(range(2 if quick else REPEATS), commands):
            times[label].append(processor(commands[label]))
    rows = [
        {
            "command": label,
            "processor seconds": round(min(seconds), 3),
            "over import torch": ratio(times, label, TORCH),
            "raw": seconds,
        }
        for label, seconds in times.items()
    ]
    bars = [
        bar(f"processor time, {label}, over {TORCH}", ratio(times, label, TORCH)["median"], most, at_most=True)
        for label, most in ((ONNX, 1.0), (PLAIN, 2.2))
    ]
    settings = {"documents": DOCUMENTS, "model": "cde-minilm", "repeats": REPEATS, "threads": 1}
    finish("first_answer", settings=settings, rows=rows, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
