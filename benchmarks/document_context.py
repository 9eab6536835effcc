"""What passages and their document context gain over cutting, and what they cost.

Folders of whole documents with gold spans, at most `DOCUMENTS` of each, chosen by a hash of their ids. Document level:
nDCG@10 of documents, as found by one vector of the cut text, by passages, and by passages in the context of their
document. Passage level: nDCG@10 of passages, which count where they overlap a gold span; of all queries, and of those
that name a document whose passage does not (``qrels/unnamed.tsv``). Each with titles hidden and given. Folders of
abstracts, which fit or nearly fit the model, show what is lost. Costs are processor time on one thread, in turn.

    python benchmarks/document_context.py DATA [--folders] [--cache DIR] [--quick]

DATA holds ``docs/eval/NAME`` (spans) and ``eval/NAME`` (BEIR folders).
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import bar, finish, interleaved, ratio
from folders import Models, difference, query_scores, read_folder

from cderetrieval import DocumentContext, Retriever
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.corpora.qrels import read_qrels
from cderetrieval.corpora.spans import SpanDataset, read_spans
from cderetrieval.evaluation.spans import passage_metrics

MODELS = ("all-MiniLM-L6-v2", "cde-minilm")
# Development sets, and those that are only reported.
CHOSEN_ON = ("medquad-ghr", "masked-wiki-sections", "chunking-evaluation", "feedbackqa-pages")

FOLDERS = ("scifact", "med", "cranfield", "cisi", "nfcorpus-preprocessed", "feedbackqa", "squad-dev")
FORMS: dict[str, dict[str, Any]] = {
    "cut": {"passages": None},
    "passages": {"document_context": "none"},
    "in context": {},
    "prefix": {"document_context": DocumentContext(lead=0, mean=0.2, prefix=32)},
}
DOCUMENTS, QUERIES, DEPTH = 80, 500, 20


def sampled(dataset: SpanDataset, documents: int) -> SpanDataset:
    """Some documents, and the queries whose spans are all in them."""
    order = sorted(dataset.documents, key=lambda document: hashlib.md5(document["id"].encode()).hexdigest())
    kept = {document["id"] for document in order[:documents]}
    spans = {query: found for query, found in dataset.spans.items() if all(name in kept for name, _, _ in found)}
    spans = dict(list(spans.items())[:QUERIES])
    queries = {query: dataset.queries[query] for query in spans}
    return SpanDataset(tuple(one for one in dataset.documents if one["id"] in kept), queries, spans)


def folder_of(data: Path, name: str) -> tuple[SpanDataset, set[str]]:
    """A folder with spans, and its queries that name a document whose passage does not."""
    folder = data / "docs" / "eval" / name
    if name == "feedbackqa-pages":  # its test queries are for reporting only
        return read_spans(folder, "dev", spans="spans-dev.jsonl"), set()
    unnamed = folder / "qrels" / "unnamed.tsv"
    return read_spans(folder), set(read_qrels(unnamed)) if unnamed.is_file() else set()


def measured(model: Any, dataset: SpanDataset, titled: bool, form: str) -> tuple[np.ndarray, dict[str, float]]:
    """nDCG@10 of each query at document level, and of each query's passages."""
    documents = [{"id": one["id"], "title": one["title"], "text": one["text"]} for one in dataset.documents]
    retriever = Retriever(model, on=["title", "text"] if titled else "text", **FORMS[form])
    retriever.add(documents, skip_empty=True, show_progress=False)
    qrels = {query: {name: 1 for name, _, _ in found} for query, found in dataset.spans.items()}
    found = query_scores(retriever, make_dataset("spans", documents, dataset.queries, qrels))
    if form == "cut":
        return found, {}
    run = {}
    for query, hits in zip(
        dataset.queries, retriever(list(dataset.queries.values()), k=DEPTH, by="passage"), strict=True
    ):
        places = [(hit["id"], hit["passage"]["start"], hit["passage"]["end"]) for hit in hits]
        run[query] = [place for place in places if place[1] < place[2]]
    scored = passage_metrics(run, dataset.spans, dataset.texts, (10,))
    return found, dict(zip(scored.query_ids, scored["ndcg@10"].tolist(), strict=True))


def rows_of(models: Models, data: Path, names: Sequence[str], documents: int) -> tuple[list[dict[str, Any]], dict]:
    """A row for each model, folder and setting of titles, and the scores of all queries."""
    rows, kept = [], {}
    for name in names:
        dataset, unnamed = folder_of(data, name)
        dataset = sampled(dataset, documents)
        for model in MODELS:
            for titled in (False, True):
                row: dict[str, Any] = {"folder": name, "model": model, "titles": "given" if titled else "hidden"}
                for form in FORMS if titled else list(FORMS)[:3]:
                    scores, passages = measured(models(model), dataset, titled, form)
                    kept[model, titled, form, "document", name] = scores
                    row[f"document, {form}"] = 100 * float(scores.mean())
                    if passages:
                        few = [value for query, value in passages.items() if query in unnamed]
                        kept[model, titled, form, "passage", name] = np.array(list(passages.values()))
                        kept[model, titled, form, "unnamed", name] = np.array(few)
                        row[f"passage, {form}"] = 100 * float(np.mean(list(passages.values())))
                        row[f"unnamed, {form}"] = 100 * float(np.mean(few)) if few else None
                rows.append(row)
                print(row, flush=True)
    return rows, kept


def gains(kept: dict, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Means over the development sets, with paired intervals, and the bars."""
    rows, bars = [], []
    pairs = [("document", "cut", "in context", 5.0), ("document", "cut", "passages", None)]
    pairs += [("unnamed", "passages", "in context", 8.0), ("passage", "passages", "in context", None)]
    for model in MODELS:
        for titled in (False, True):
            for level, before, after, least in pairs + ([("unnamed", "passages", "prefix", None)] if titled else []):
                shown = [name for name in names if len(kept.get((model, titled, before, level, name), ()))]
                a, b = ([kept[model, titled, form, level, name] for name in shown] for form in (before, after))
                found = difference(a, b)
                titles = "given" if titled else "hidden"
                rows.append({"model": model, "titles": titles, "level": level, "gain": f"{before} to {after}", **found})
                what = f"{model}, titles {titles}, {level} level: {after} over {before}"
                if least is not None:
                    bars.append(bar(f"{what}, mean", round(found["mean"], 2), least))
                if after == "in context" and level != "unnamed":
                    bars.append(
                        bar(f"{what}, worst set", round(found["worst"], 2), -0.5 if level == "document" else -0.3)
                    )
    return rows, bars


def folders(models: Models, data: Path, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """BEIR folders, cut and by passages."""
    rows, bars = [], []
    for name in names:
        dataset = read_folder(data / "eval" / name)
        for model in MODELS:
            row: dict[str, Any] = {"folder": name, "model": model}
            for form in ("cut", "in context"):
                retriever = Retriever(models(model), on=["title", "text"], **FORMS[form])
                documents = [{"id": one["id"], "title": one["title"], "text": one["text"]} for one in dataset.corpus]
                retriever.add(documents, skip_empty=True, show_progress=False)
                row[form] = 100 * float(query_scores(retriever, dataset).mean())
            rows.append(row)
            print(row, flush=True)
            bars.append(bar(f"{name}, {model}: passages over cutting", round(row["in context"] - row["cut"], 2), -0.3))
        models.keep()
    return rows, bars


def index_cost(dataset: SpanDataset, repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Indexing long documents, against encoding the same passages as separate texts."""
    from cderetrieval import load

    encoder = load(MODELS[0], device="cpu")
    documents = [{"id": one["id"], "text": one["text"]} for one in dataset.documents]
    made = Retriever(encoder, on="text").add(documents, show_progress=False)
    hits = made("gene", k=10**6, by="passage")[0]
    texts = [hit["passage"]["text"] for hit in hits]
    calls = {
        "index": lambda: Retriever(encoder, on="text").add(documents, show_progress=False),
        "encode": lambda: encoder.encode_document(texts),
    }
    times = interleaved(calls, repeats, warmup=False, clock=time.process_time)
    found = ratio(times, "index", "encode")
    name = "index documents / encode their passages"
    row = {"cost": name, "documents": len(documents), "passages": len(texts), **found}
    return row, bar(name, found["median"], 1.15, at_most=True)


def query_cost(count: int, each: int, repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A query of documents by passages, against as many documents of one vector."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    from cderetrieval import load

    encoder = load(MODELS[0], device="cpu")
    plain = Retriever(encoder, passages=None).add([f"text {i}" for i in range(count)], vectors=vectors)
    nested = [[f"passage {i} {j}" for j in range(each)] for i in range(count // each)]
    cut = Retriever(encoder).add(nested, vectors=vectors[: len(nested) * each])
    queries = vectors[rng.choice(count, 64)] + 0.05 * rng.standard_normal((64, 384)).astype(np.float32)
    calls = {
        "passages": lambda: [cut(query[None], k=10) for query in queries],
        "documents": lambda: [plain(query[None], k=10) for query in queries],
    }
    found = ratio(interleaved(calls, repeats, clock=time.process_time), "passages", "documents")
    row = {"cost": f"query of {count} passages, {each} a document / of as many documents", **found}
    return row, bar(row["cost"], found["median"], 1.1, at_most=True)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="holds docs/eval and eval")
    parser.add_argument("--folders", action="store_true", help="the folders of abstracts alone")
    parser.add_argument("--cache", type=Path, help="directory of vectors that are computed once")
    parser.add_argument("--quick", action="store_true", help="few documents, no JSON: does it run?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models, few = Models(options.cache), 12 if options.quick else DOCUMENTS
    if options.folders:
        rows, bars = folders(models, options.data, FOLDERS[1:2] if options.quick else FOLDERS)
        finish("passages_of_abstracts", settings={}, rows=rows, bars=bars, quick=options.quick)
        return
    costs = [query_cost(2_000 if options.quick else 100_000, 5, 3 if options.quick else 7)]
    costs.append(index_cost(sampled(folder_of(options.data, "medquad-ghr")[0], 5 if options.quick else 40), 3))
    rows, kept = rows_of(models, options.data, CHOSEN_ON, few)
    models.keep()
    means, bars = gains(kept, CHOSEN_ON)
    settings = {"documents": few, "queries": QUERIES, "context": DocumentContext().to_dict()}
    every = [*rows, *means, *(row for row, _ in costs)]
    finish(
        "document_context", settings=settings, rows=every, bars=bars + [one for _, one in costs], quick=options.quick
    )


if __name__ == "__main__":
    main()
