"""Evaluation of a BEIR folder: wall time against `mteb.evaluate` with the same weights, and memory of a large one.

Time: docstrings of installed packages, `--documents` of them (5,000), as mteb's SciFact, all-MiniLM-L6-v2 on both
sides, in one process and in turn. mteb encodes through `SentenceTransformer.encode`, which sorts by characters and cuts
at 32 texts; here all texts are sorted by token count and cut at a number of tokens. One thread and CPU time: what other
processes take from a shared machine is left out. Scores must agree to three digits.

Memory: a generated folder of half a million documents, streamed, with an encoder that costs nothing; the process's peak
less what it held before, and less the vectors.

    python benchmarks/evaluation.py [--quick]
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, bar, finish, in_fresh_process, interleaved, peak_memory_mb, ratio

from cderetrieval.corpora import pydocs
from cderetrieval.corpora.beir_folder import read_beir, write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.models.load import load
from cderetrieval.models.locate import find

MODEL = "all-MiniLM-L6-v2"
DOCUMENTS, QUICK_DOCUMENTS, REPEATS = 5_000, 400, 2
STREAMED, QUICK_STREAMED, DIMENSION = 500_000, 20_000, 64


def folder_of_docstrings(n_documents: int, directory: Path) -> Path:
    """Write docstrings of all installed packages as one BEIR folder."""
    parts = [pydocs.load(package) for package in pydocs.packages()]
    in_turn = (document for row in zip_longest(*(part.corpus for part in parts)) for document in row)
    documents = [document for document in in_turn if document is not None][:n_documents]
    ids = {document["id"] for document in documents}
    judged = {query: (part, grades) for part in parts for query, grades in part.qrels.items() if set(grades) <= ids}
    queries = {query: part.queries[query] for query, (part, _) in judged.items()}
    qrels = {query: grades for query, (_, grades) in judged.items()}
    return write_beir(make_dataset("docstrings", documents, queries, qrels), directory / "docstrings")


def compare_time(n_documents: int, repeats: int, directory: Path) -> dict[str, Any]:
    """Time both evaluations in turn; scores of the last round."""
    import mteb
    import torch
    from sentence_transformers import SentenceTransformer

    from cderetrieval.evaluation.api import evaluate
    from cderetrieval.evaluation.mteb_data import use_folder

    torch.set_num_threads(1)
    folder = folder_of_docstrings(n_documents, directory)
    ours, theirs = load(MODEL, device="cpu", dtype="float32"), SentenceTransformer(str(find(MODEL)), device="cpu")
    scores: dict[str, float] = {}

    def here() -> None:
        [cell] = evaluate({"m": ours}, f"SciFact={folder}", dtype="float32", show_progress=False).cells
        scores["here"] = cell.metrics["ndcg@10"]

    def there() -> None:
        task = mteb.get_task("SciFact")
        with tempfile.TemporaryDirectory() as place:
            use_folder(task, folder, Path(place))
            found = mteb.evaluate(theirs, task, cache=None, show_progress_bar=False, co2_tracker=False)
        scores["mteb"] = found.task_results[0].scores["test"][0]["ndcg_at_10"]

    here_and_there = {"here": here, "mteb": there}
    times = interleaved(here_and_there, repeats, warmup=False, clock=time.process_time)
    found = ratio(times, "here", "mteb")
    return {"documents": n_documents, "ratio": found, **{f"ndcg@10 {k}": round(v, 5) for k, v in scores.items()}}


class FreeEncoder:
    """Vectors from a hash of the text: no model, no memory."""

    kind, dimension, fingerprint = "dense", DIMENSION, "free"

    def encode_document(self, texts: list[str], *, show_progress: bool = False) -> np.ndarray:
        """Vectors of length 1, shape (n, dimension)."""
        hashed = b"".join(hashlib.blake2b(text.encode(), digest_size=DIMENSION).digest() for text in texts)
        rows = np.frombuffer(hashed, np.int8).reshape(len(texts), DIMENSION).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    encode_query = encode_document


def generated_folder(n_documents: int, directory: Path) -> Path:
    """Write a folder of documents of 1,000 characters, 200 of them with queries."""
    folder = directory / "generated"
    (folder / "qrels").mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 6)) for _ in range(2_000)]
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for i in range(n_documents):
            text = " ".join(words[j] for j in rng.integers(0, len(words), 142))
            file.write(json.dumps({"_id": f"d{i}", "title": "", "text": f"{i} {text}"}) + "\n")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"_id": f"q{i}", "text": f"question {i}"}) + "\n" for i in range(200))
    lines = "".join(f"q{i}\td{i}\t1\n" for i in range(200))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


def stream(folder: str) -> dict[str, Any]:
    """Evaluate a folder in this process and say how much memory that took, in MB."""
    import mteb  # noqa: F401  # what is loaded anyway does not count

    from cderetrieval.evaluation.api import evaluate

    evaluate({"m": FreeEncoder()}, make_dataset("warm", [{"id": "a", "text": "b"}], {"q": "b"}, {"q": {"a": 1}}))
    before = peak_memory_mb()
    dataset = read_beir(folder)
    evaluate({"m": FreeEncoder()}, dataset, show_progress=False)
    vectors = len(dataset.corpus) * DIMENSION * 4 / 2**20
    return {"documents": len(dataset.corpus), "beyond_mb": round(peak_memory_mb() - before - vectors, 1)}


def main() -> None:
    """Measure time and memory."""
    quick = arguments(__doc__ or "").quick
    with tempfile.TemporaryDirectory() as directory:
        speed = compare_time(QUICK_DOCUMENTS if quick else DOCUMENTS, 1 if quick else REPEATS, Path(directory))
        folder = generated_folder(QUICK_STREAMED if quick else STREAMED, Path(directory))
        text = round((folder / "corpus.jsonl").stat().st_size / 2**20)
        memory = {**in_fresh_process("evaluation.py", "--stream", str(folder)), "corpus_mb": text}
    same = abs(speed["ndcg@10 here"] - speed["ndcg@10 mteb"])
    bars = [
        bar("time, here / mteb", speed["ratio"]["median"], 0.75, at_most=True),
        bar("difference in nDCG@10", round(same, 5), 0.0005, at_most=True),
        bar("memory beyond model and vectors, MB", memory["beyond_mb"], 2_000, at_most=True),
    ]
    finish("evaluation", settings={"model": MODEL, "repeats": REPEATS}, rows=[speed, memory], bars=bars, quick=quick)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stream"]:
        print(json.dumps(stream(sys.argv[2])))
    else:
        main()
