"""What the fuzz damages: a folder of every format that the package reads, and a question to it."""

from __future__ import annotations

import gzip
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cderetrieval import BM25, Context, Hybrid, Results, Retriever, evaluate, load
from cderetrieval.corpora.beir_folder import read_beir, write_beir
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.corpora.qrels import read_qrels
from cderetrieval.corpora.readers import read_documents
from cderetrieval.distributed import VectorFolder, embed_corpus
from cderetrieval.testing import (
    HashEncoder,
    WordEncoder,
    tiny_dense_directory,
    tiny_model,
    tiny_model_directory,
    tiny_sparse_embed_directory,
    tiny_splade_directory,
)
from cderetrieval.training.recipes import load_recipe
from cderetrieval.training.sources import find_sources, read_rows

from .fuzz import Subject

DOCUMENTS = [{"id": f"d{i}", "text": f"owl number {i} hunts {i * i} mice at night", "n": i} for i in range(60)]
QUERIES = ["owl number 7 hunts 49 mice at night", "mice", "number 12"]
HYBRID = {"hash": HashEncoder("hash"), "words": WordEncoder()}


def subjects() -> list[Subject]:
    """All of them; models are made first, in this process, and only read in children."""
    indexes = [
        _index("index, exact", HashEncoder(), share=3),
        _index("index, HNSW", HashEncoder(), "HNSW8"),
        _index("index, IVF", HashEncoder(), "IVF4,Flat"),
        _index("index, sparse", WordEncoder(), share=2),
        _index("index, sparse-embed", WordEncoder("sparse-embed")),
        _index("index, BM25", BM25(), share=2),
        Subject("hybrid", _write_hybrid, lambda folder: _hits(Hybrid.load(folder / "index", models=HYBRID)), share=2),
    ]
    models = [
        _model("dense model", tiny_dense_directory()),
        _model("contextual model", tiny_model_directory()),
        _model("SPLADE model", tiny_splade_directory()),
        _model("SparseEmbed model", tiny_sparse_embed_directory()),
        _model("statistics model", tiny_dense_directory(), "centre:"),
    ]
    return [*indexes, *models, *_files()]


def _files() -> list[Subject]:
    texts = [
        ("documents.jsonl", partial(_write_rows, ending=".jsonl")),
        ("documents.jsonl.gz", partial(_write_rows, ending=".jsonl.gz")),
        ("documents.csv", partial(_write_rows, ending=".csv")),
        ("documents.tsv", partial(_write_rows, ending=".tsv")),
        ("documents.txt", partial(_write_rows, ending=".txt")),
        ("documents.parquet", _write_parquet),
    ]
    documents = [Subject(name, write, partial(_count, name=name), exact=False) for name, write in texts]
    return [
        *documents,
        Subject("BEIR folder", _write_beir, _read_beir, exact=False, share=2),
        Subject("training pairs", _write_pairs, _read_pairs, exact=False),
        Subject("recipe", _write_recipe, lambda folder: repr(load_recipe(folder / "recipe.json")), exact=False),
        Subject("context", _write_context, lambda folder: Context.load(folder / "context.safetensors").digest),
        Subject("results", _write_results, _read_results, share=2),
        Subject("vector folder", _write_vectors, _read_vectors, share=2),
    ]


def _index(name: str, encoder: Any, factory: str = "auto", share: int = 1) -> Subject:
    def write(folder: Path) -> None:
        with Retriever(encoder, on="text", path=folder / "index", index=factory) as retriever:
            retriever.add(DOCUMENTS)
            retriever.remove(["d3", "d4"])
            retriever(QUERIES)

    return Subject(name, write, lambda folder: _hits(Retriever.load(folder / "index", model=encoder)), share=share)


def _hits(opened: Any) -> Any:
    with opened as retriever:
        return [list(ranking) for ranking in retriever(QUERIES, k=5, documents=True)]


def _write_hybrid(folder: Path) -> None:
    with Hybrid(HYBRID, on="text", path=folder / "index") as hybrid:
        hybrid.add(DOCUMENTS)


def _model(name: str, source: str, prefix: str = "") -> Subject:
    """A model's directory below an index that was made with it: another model than that one must be noticed."""

    def write(folder: Path) -> None:
        shutil.copytree(source, folder / "model")
        if prefix:
            shutil.rmtree(folder / "model")
            load(prefix + source).save_pretrained(folder / "model")
        with Retriever(load(folder / "model", device="cpu"), on="text", path=folder / "index") as retriever:
            retriever.add(DOCUMENTS[:20])

    def ask(folder: Path) -> Any:
        hits = _hits(Retriever.load(folder / "index", model=folder / "model", device="cpu"))
        return [[hit["id"] for hit in ranking] for ranking in hits]

    return Subject(name, write, ask)


def _write_rows(folder: Path, ending: str) -> None:
    header = {".csv": "id,text,n\n", ".tsv": "id\ttext\tn\n"}.get(ending, "")
    separator = "," if ending == ".csv" else "\t"
    lines = [separator.join(map(str, row.values())) if header else json.dumps(row) for row in DOCUMENTS]
    data = (header + "\n".join(lines) + "\n").encode()
    (folder / f"documents{ending}").write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)


def _write_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(DOCUMENTS), folder / "documents.parquet")


def _count(folder: Path, name: str) -> int:
    return sum(1 for _ in read_documents(folder / name))


def _dataset() -> Any:
    queries = {f"q{i}": text for i, text in enumerate(QUERIES)}
    return make_dataset("owls", DOCUMENTS, queries, {"q0": {"d7": 2}, "q1": {"d1": 1, "d2": 1}, "q2": {"d12": 1}})


def _write_beir(folder: Path) -> None:
    write_beir(_dataset(), folder)


def _read_beir(folder: Path) -> Any:
    dataset = read_beir(folder)
    read_qrels(folder / "qrels" / "test.tsv")
    return dataset.revision


def _write_pairs(folder: Path) -> None:
    rows = [{"query": f"owl {i}", "document": row["text"], "domain": "owls"} for i, row in enumerate(DOCUMENTS)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "data_config.json").write_text(json.dumps([{"name": "pairs.jsonl", "weight": 1}]))


def _read_pairs(folder: Path) -> int:
    return sum(1 for source in find_sources([folder]) for _ in read_rows(source))


def _write_recipe(folder: Path) -> None:
    from dataclasses import asdict

    (folder / "recipe.json").write_text(json.dumps(asdict(load_recipe("cde-minilm")), default=str))


def _write_context(folder: Path) -> None:
    Context.from_texts(tiny_model(), [row["text"] for row in DOCUMENTS[:8]]).save(folder / "context.safetensors")


def _write_results(folder: Path) -> None:
    evaluate({"hash": HashEncoder(), "words": WordEncoder()}, _dataset(), out=folder / "results", show_progress=False)


def _read_results(folder: Path) -> Any:
    results = Results.load(folder / "results")
    return [results.table().to_csv(), results.to_frame().drop(columns=["seconds"], errors="ignore").to_csv()]


def _write_vectors(folder: Path) -> None:
    _write_rows(folder, ".jsonl")
    embed_corpus(folder / "documents.jsonl", folder / "vectors", HashEncoder(), on="text", show_progress=False)


def _read_vectors(folder: Path) -> Any:
    stored = VectorFolder(folder / "vectors", [folder / "documents.jsonl"])
    stored.check_whole()
    return [[list(map(str, ids)), np.asarray(vectors).round(5).tolist()] for ids, vectors in stored]
