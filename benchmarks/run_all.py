"""Every benchmark in its short form, one after the other: ``make bench``. Prints, and writes no result.

    python benchmarks/run_all.py [NAME ...]

Short forms say whether a benchmark runs and roughly what it finds; claims come from full runs. What needs data gets it
from the embedded corpus: docstrings of numpy as a BEIR folder, and as training pairs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import HERE, markdown

from cderetrieval.corpora import pydocs
from cderetrieval.corpora.beir_folder import write_beir

# Script to its further arguments; FOLDER and PAIRS are made here. Quick ones first.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "search": (),
    "growth": (),
    "growth_sparse": (),
    "sparse": (),
    "splade": (),
    "encode": (),
    "encode_backends": (),
    "context_cost": (),
    "end_to_end": (),
    "serve": (),
    "first_answer": (),
    "precision": ("FOLDER",),
    "hybrid": ("FOLDER",),
    "evaluation": (),
    "training": (),
    "sparse_training": ("--data", "PAIRS", "--only", "splade-minilm"),
    "embed": (),
    "milvus": (),
    "large_index": (),
    "gpu": (),
    "campaign": (),
}
DOCUMENTS = 300


def data(directory: Path) -> dict[str, str]:
    """Make what scripts read: a BEIR folder and a folder of training pairs."""
    task = pydocs.load("numpy", DOCUMENTS)
    write_beir(task, directory / "folder")
    answers = {document["id"]: document["text"] for document in task.corpus}
    pairs = directory / "pairs"
    pairs.mkdir()
    with open(pairs / "numpy.jsonl", "w", encoding="utf-8") as file:
        for query, judged in task.qrels.items():
            file.write(json.dumps({"query": task.queries[query], "document": answers[next(iter(judged))]}) + "\n")
    return {"FOLDER": str(directory / "folder"), "PAIRS": str(pairs)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run; status 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(SCRIPTS)} (default: all)")
    names = parser.parse_args(argv).names or list(SCRIPTS)
    if unknown := [name for name in names if name not in SCRIPTS]:
        parser.error(f"no benchmark is called {unknown[0]}")
    rows = []
    with tempfile.TemporaryDirectory() as place:
        made = data(Path(place))
        for name in names:
            print(f"\n## {name}\n", flush=True)
            started = time.perf_counter()
            words = [made.get(word, word) for word in SCRIPTS[name]]
            done = subprocess.run([sys.executable, str(HERE / f"{name}.py"), *words, "--quick"])
            ran = "yes" if done.returncode == 0 else f"no, status {done.returncode}"
            rows.append({"benchmark": name, "seconds": round(time.perf_counter() - started), "ran": ran})
    print(f"\n{markdown(rows)}")
    return int(any(row["ran"] != "yes" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
