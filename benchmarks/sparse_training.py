"""A small SPLADE and a small SparseEmbed, each trained on a CPU in minutes: nDCG@10 by step, with BM25 beside them.

Both start from all-MiniLM-L6-v2 with its word embeddings as output layer, by the recipes ``splade-minilm`` and
``sparse-embed-minilm``. Every file of the data gives a batch with the same probability. Development data: rows of each
file that are held out, searched together; and, where one is given, the dev split of a BEIR folder, of which 150 queries
and 300 documents are drawn. Learned models read 64 tokens of a text, BM25 all of it. Seconds are CPU seconds of one
thread, evaluations left out.

    python benchmarks/sparse_training.py --data FOLDER_OF_PAIRS [--dev BEIR_FOLDER] [--only splade-minilm] [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from common import bar, finish

from cderetrieval import Retriever, load
from cderetrieval.corpora.beir_folder import read_beir
from cderetrieval.corpora.dataset import Dataset, make_dataset
from cderetrieval.evaluation.metrics import evaluate_run
from cderetrieval.training.recipes import load_recipe
from cderetrieval.training.run import train
from cderetrieval.training.sources import find_sources, read_rows

RECIPES = ("splade-minilm", "sparse-embed-minilm")
# Of each file: rows whose documents are searched, and rows that are asked.
DOCUMENTS, QUERIES = 40, 20
DEV_DOCUMENTS, DEV_QUERIES = 300, 150
Row = dict[str, Any]


def number(text: str) -> int:
    """A random number that is the same in every run."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def hold_out(data: Path, train_folder: Path, documents: int, queries: int) -> Dataset:
    """Write the pairs to train on, every file with weight 1, and give the rest as a task."""
    train_folder.mkdir()
    corpus, asked, qrels, weights = [], {}, {}, []
    for source in find_sources([data]):
        rows = sorted((row for _, row in read_rows(source)), key=lambda row: number(row.query + row.document))
        held, rest = rows[:documents], rows[documents:]
        seen = {row.query for row in held} | {row.document for row in held}
        for place, row in enumerate(held):
            name = f"{source.name}-{place}"
            corpus.append({"id": name, "title": "", "text": row.document})
            if place < queries:
                asked[name], qrels[name] = row.query, {name: 1}
        kept = [row._asdict() for row in rest if not seen & {row.query, row.document}]
        lines = [json.dumps({key: row[key] for key in ("query", "document", "domain")}) + "\n" for row in kept]
        (train_folder / f"{source.name}.jsonl").write_text("".join(lines), encoding="utf-8")
        weights.append({"name": f"{source.name}.jsonl", "weight": 1})
    (train_folder / "data_config.json").write_text(json.dumps(weights), encoding="utf-8")
    return make_dataset("held out", corpus, asked, qrels)


def sample(folder: Path, documents: int, queries: int) -> Dataset:
    """Some queries of a folder's dev split, their documents, and other documents."""
    whole = read_beir(folder, "dev")
    chosen = sorted(whole.queries, key=number)[:queries]
    needed = {document for query in chosen for document in whole.qrels[query]}
    others = sorted((row["id"] for row in whole.corpus if row["id"] not in needed), key=number)
    kept = needed.union(others[: max(0, documents - len(needed))])
    corpus = [row for row in whole.corpus if row["id"] in kept]
    return make_dataset(
        f"{folder.name} dev", corpus, {q: whole.queries[q] for q in chosen}, {q: whole.qrels[q] for q in chosen}
    )


def measure(model: Any, tasks: Iterable[Dataset]) -> Row:
    """nDCG@10 of each task, and active dimensions and FLOPS over all of them."""
    found: Row = {}
    terms: dict[str, list[Any]] = {"query": [], "document": []}
    for task in tasks:
        retriever = Retriever(model, key="id", on=["title", "text"])
        texts = [f"{row['title']} {row['text']}".strip() for row in task.corpus]
        if retriever.encoder.kind == "lexical":
            hits = retriever.add(task.corpus, show_progress=False)(dict(task.queries), k=10)
        else:
            documents = retriever.encoder.encode_document(texts)
            queries = retriever.encoder.encode_query(list(task.queries.values()))
            hits = retriever.add(task.corpus, vectors=documents, show_progress=False)(queries, k=10)
            for side, vectors in (("query", queries), ("document", documents)):
                terms[side].append(getattr(vectors, "weights", vectors))
        run = {
            query: {hit["id"]: hit["similarity"] for hit in ranking}
            for query, ranking in zip(task.queries, hits, strict=True)
        }
        found[task.name] = evaluate_run(task.qrels, run).mean()["ndcg@10"]
        retriever.close()
    return found | sparsity(terms)


def sparsity(terms: dict[str, list[Any]]) -> Row:
    """Mean active dimensions of each side, and products for each pair of a query and a document."""
    if not terms["query"] or not hasattr(terms["query"][0], "indptr"):
        return {"query terms": "", "document terms": "", "FLOPS": ""}
    shares = {}
    for side, parts in terms.items():
        rows = sum(part.shape[0] for part in parts)
        shares[side] = sum((part > 0).sum(axis=0) for part in parts) / rows
    active = {f"{side} terms": round(float(share.sum()), 1) for side, share in shares.items()}
    return {**active, "FLOPS": round(float(shares["query"] @ shares["document"]), 2)}


def train_and_measure(name: str, folder: Path, work: Path, tasks: list[Dataset], quick: bool) -> list[Row]:
    """Rows of one recipe: before training, and every `evaluate_steps`."""
    recipe = load_recipe(name).replace(data=[str(folder)], log_steps=1)
    if quick:
        recipe = recipe.replace(max_steps=2, evaluate_steps=1, batch_size=4)
    rows: list[Row] = []
    spent = {"since": time.process_time(), "training": 0.0}

    def evaluate(model: Any, step: int) -> Row:
        spent["training"] += time.process_time() - spent["since"]
        found = measure(model, tasks)
        rows.append({"model": name, "step": step, **found, "seconds": round(spent["training"], 1)})
        print(rows[-1], flush=True)
        spent["since"] = time.process_time()
        return {task.name: found[task.name] for task in tasks}

    def before(trainer: Any) -> None:
        spent["training"], spent["since"] = 0.0, time.process_time()
        trainer.evaluator(trainer.model, steps=0)
        spent["training"] = 0.0

    train(recipe, work / name, cache=work / "cache", evaluate=evaluate, on_ready=before)
    return rows


def main() -> None:
    """Train, measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of training pairs")
    parser.add_argument("--dev", type=Path, help="BEIR folder whose dev split is used")
    parser.add_argument("--only", choices=RECIPES, nargs="+", default=list(RECIPES))
    parser.add_argument("--quick", action="store_true", help="two steps on little data, no JSON: does it run?")
    given = parser.parse_args()
    torch.set_num_threads(1)
    share = 10 if given.quick else 1
    with tempfile.TemporaryDirectory(prefix="cderetrieval-") as temporary:
        work = Path(temporary)
        tasks = [hold_out(given.data, work / "train", DOCUMENTS // share, QUERIES // share)]
        if given.dev is not None:
            tasks.append(sample(given.dev, DEV_DOCUMENTS // share, DEV_QUERIES // share))
        rows: list[Row] = []
        for name, model in (("BM25", "bm25"), ("all-MiniLM-L6-v2", cut_minilm())):
            rows.append({"model": name, "step": "", **measure(model, tasks), "seconds": ""})
            print(rows[-1], flush=True)
        bars = []
        for name in given.only:
            own = train_and_measure(name, work / "train", work, tasks, given.quick)
            rows += own
            for task in tasks:
                gain = round(own[-1][task.name] - own[0][task.name], 4)
                bars.append(bar(f"{name}, {task.name}: nDCG@10, last step minus first", gain, 0.0))
    settings = {
        "recipes": {name: load_recipe(name).to_dict() for name in given.only},
        "files": sorted(path.name for path in given.data.iterdir()),
        "tasks": {task.name: {"documents": len(task.corpus), "queries": len(task.queries)} for task in tasks},
    }
    finish("sparse_training", settings=settings, rows=rows, bars=bars, quick=given.quick)


def cut_minilm() -> Any:
    """all-MiniLM-L6-v2 at the length at which the sparse models read."""
    import dataclasses

    encoder = load("all-MiniLM-L6-v2", device="cpu")
    encoder.settings = dataclasses.replace(encoder.settings, max_length=load_recipe(RECIPES[0]).max_length)
    return encoder


if __name__ == "__main__":
    main()
