"""What passages and their document context gain over cutting, and what they cost.

Folders of whole documents with gold spans, some documents of each. Document level: nDCG@10 of documents, as found by
one vector of the cut text, by passages, and by passages in the context of their document, or of another document as a
control. Passage level: nDCG@10 of passages, which count where they overlap a gold span; of all queries, and of those
that name a document whose passage does not (``qrels/unnamed.tsv``). Each with titles hidden and given. Settings were
chosen on the development sets alone; the others are reported. Folders of abstracts, which fit or nearly fit the model,
show what is lost. Costs are processor time on one thread, in turn, and memory of processes of their own.

    python benchmarks/document_context.py DATA [--folders] [--cache DIR] [--quick]

DATA holds ``docs/eval/NAME`` (spans), ``eval/NAME`` (BEIR folders) and ``train/NAME.jsonl.gz`` (pairs).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import bar, finish, in_fresh_process, interleaved, peak_memory_mb, ratio, start_memory
from document_sets import CHOSEN_ON, REPORTED, SLICES, DocumentSet, codebases, of_folder, of_pairs, of_questions
from folders import Models, difference, query_scores, read_folder

from cderetrieval import DocumentContext, Retriever, context_gain, load
from cderetrieval.corpora.dataset import make_dataset
from cderetrieval.evaluation.spans import passage_metrics
from cderetrieval.models.document_context import OfAnother, limit_of, token_starts, tokenizer_of

MODELS = ("all-MiniLM-L6-v2", "cde-minilm")
FOLDERS = ("scifact", "med", "cranfield", "cisi", "nfcorpus-preprocessed", "feedbackqa", "squad-dev")
FORMS: dict[str, dict[str, Any]] = {
    "cut": {"passages": None},
    "passages": {"document_context": "none"},
    "in context": {},
    "another": {"document_context": OfAnother()},
    "prefix": {"document_context": DocumentContext(lead=0, mean=0.2, prefix=32)},
    "trained": {"document_context": {"trained": "cde-doc-minilm"}},
}
# Documents of a development set, of a slice, and of a set that is only reported.
MOST = {"chosen": 80, "slice": 100, "reported": 20}
DEPTH = 20
# Share of the golden chunks among the first 5, 10 and 20: voyage-2, and with context that a language model wrote.
PUBLISHED = {"voyage-2": (80.92, 87.15, 90.06), "voyage-2, contexts by a language model": (86.37, 92.81, 93.78)}


def measured(model: Any, some: DocumentSet, titled: bool, form: str, parts: str = "") -> dict[str, np.ndarray]:
    """nDCG@10 of each query: of documents, of passages, and of passages that do not name their document."""
    documents = some.documents(titled, parts)
    settings = {**FORMS[form], "on": ["title", "text"] if titled else "text"}
    if parts:
        settings |= {"passages": parts, "on": ["title", parts] if titled else parts}
    retriever = Retriever(model, **settings)
    retriever.add(documents, skip_empty=True, show_progress=False)
    qrels = {query: {name: 1 for name, _, _ in found} for query, found in some.spans.spans.items()}
    scores = {"document": query_scores(retriever, make_dataset("spans", documents, some.queries, qrels))}
    if form == "cut":
        return scores
    run = {}
    found = retriever(list(some.queries.values()), k=DEPTH, by="passage")
    for query, hits in zip(some.queries, found, strict=True):
        places = [(hit["id"], hit["passage"]["start"], hit["passage"]["end"]) for hit in hits]
        run[query] = [place for place in places if place[1] < place[2]]
    ranked = passage_metrics(run, some.spans.spans, some.spans.texts, (10,))
    values = dict(zip(ranked.query_ids, ranked["ndcg@10"].tolist(), strict=True))
    few = [value for query, value in values.items() if query in some.unnamed]
    return {**scores, "passage": np.array(list(values.values())), "unnamed": np.array(few)}


def forms_of(model: str, titled: bool, parts: str) -> list[str]:
    """The forms that a model, titles and a split allow."""
    without = {"prefix": not titled, "cut": bool(parts), "trained": model != MODELS[1]}
    return [form for form in FORMS if not without.get(form)]


def rows_of(models: Models, sets: Sequence[DocumentSet], parts: str = "") -> tuple[list[dict[str, Any]], dict]:
    """A row for each set, model and setting of titles, and the scores of all queries."""
    rows, kept = [], {}
    for some in sets:
        for model in MODELS:
            for titled in (False, True) if any(one["title"] for one in some.spans.documents) else (False,):
                row: dict[str, Any] = {"folder": some.name, "documents": len(some.spans.documents)}
                row |= {"queries": len(some.queries), "model": model, "titles": "given" if titled else "hidden"}
                for form in forms_of(model, titled, parts):
                    for level, scores in measured(models(model), some, titled, form, parts).items():
                        kept[model, titled, form, level, some.name] = scores
                        row[f"{level}, {form}"] = 100 * float(scores.mean()) if len(scores) else None
                rows.append(row)
                print(row, flush=True)
        models.keep()
    return rows, kept


def gains(kept: dict, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Means over the development sets, with paired intervals, and the bars."""
    rows, bars = [], []
    pairs = [("document", "cut", "in context", 5.0, -0.5), ("document", "cut", "passages", None, None)]
    pairs += [("unnamed", "passages", "in context", 8.0, None), ("unnamed", "another", "in context", 5.0, None)]
    pairs += [("passage", "passages", "in context", None, -0.3), ("unnamed", "passages", "prefix", None, None)]
    for model in MODELS:
        for titled in (False, True):
            for level, before, after, least, worst in pairs if titled else pairs[:-1]:
                shown = [name for name in names if len(kept.get((model, titled, before, level, name), ()))]
                shown = [name for name in shown if name not in SLICES or level == "document"]
                a, b = ([kept[model, titled, form, level, name] for name in shown] for form in (before, after))
                found, titles = difference(a, b), "given" if titled else "hidden"
                rows.append({"model": model, "titles": titles, "level": level, "gain": f"{before} to {after}", **found})
                what = f"{model}, titles {titles}, {level} level: {after} over {before}"
                if least is not None:
                    bars.append(bar(f"{what}, mean", round(found["mean"], 2), least))
                if worst is not None:
                    bars.append(bar(f"{what}, worst set", round(found["worst"], 2), worst))
    return rows, bars


def in_full(models: Models, data: Path, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All documents of a set, cut and in context, titles hidden, where a sample left it open."""
    some, rows, bars = of_folder(data, name, 10**6), [], []
    for model in MODELS:
        a, b = ([measured(models(model), some, False, form)["document"]] for form in ("cut", "in context"))
        found = difference(a, b)
        size = {"in full": name, "documents": len(some.spans.documents), "queries": len(some.queries)}
        rows.append({**size, "model": model, "cut": 100 * float(a[0].mean()), **found})
        bars.append(bar(f"{name} in full, {model}, titles hidden: in context over cut", round(found["mean"], 2), -0.5))
    models.keep()
    return rows, bars


def self_contained(models: Models, some: DocumentSet) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Documents by their own paragraphs, whose questions need no context: what the context takes from them."""
    rows, kept = rows_of(models, [some], "paragraphs")
    bars = []
    for row in rows:
        row["folder"] = f"{some.name}, paragraphs"
        key = row["model"], row["titles"] == "given"
        a, b = ([kept[*key, form, "passage", some.name]] for form in ("passages", "in context"))
        row |= {name: value for name, value in difference(a, b).items() if name != "worst"}
        what = f"{row['folder']}, {row['model']}, titles {row['titles']}: in context over passages"
        bars.append(bar(what, round(row["mean"], 2), -0.3))
    return rows, bars


def anchors(models: Models, some: DocumentSet, golden: Mapping[str, set[tuple[str, int]]]) -> list[dict[str, Any]]:
    """Share of each query's golden chunks among the first k, beside published ones."""
    rows = [{"chunks": name, "titles": "hidden", "pass": list(found)} for name, found in PUBLISHED.items()]
    for model in MODELS:
        for titled, form in ((False, "passages"), (False, "in context"), (True, "in context"), (True, "prefix")):
            on: Any = ["title", "chunks"] if titled else "chunks"
            retriever = Retriever(models(model), on=on, **{**FORMS[form], "passages": "chunks"})
            retriever.add(some.documents(titled, "chunks"), show_progress=False)
            shares = []
            hits = retriever([some.queries[query] for query in golden], k=20, by="passage")
            starts = {one["id"]: _starts(one) for one in some.spans.documents}
            for wanted, found in zip(golden.values(), hits, strict=True):
                places = [(hit["id"], starts[hit["id"]][hit["passage"]["start"]]) for hit in found]
                shares.append([len(wanted & set(places[:k])) / len(wanted) for k in (5, 10, 20)])
            passed = [round(100 * float(share), 2) for share in np.mean(shares, axis=0)]
            titles = "given" if titled else "hidden"
            rows.append({"chunks": f"{model}, {form}", "titles": titles, "pass": passed})
            print(rows[-1], flush=True)
    models.keep()
    return rows


def _starts(document: Mapping[str, Any]) -> dict[int, int]:
    """Where each chunk starts in the text that joins them, each stripped, by two line ends, and where in the file."""
    found, place = {}, 0
    for start, end in document["chunks"]:
        found[place] = start
        place += len(document["text"][start:end].strip()) + 2
    return found


def recommendations(
    models: Models, sets: Sequence[DocumentSet], kept: dict
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What `context_gain` recommends from generated queries, and which form judged queries find better."""
    rows = []
    for some in sets:
        for model in MODELS:
            gain = context_gain(
                some.documents(False), model=models(model), on="text", seeds=1, n_queries=100, show_progress=False
            )
            own = gain.recommended != "none"
            a, b = ([kept[model, False, form, "passage", some.name]] for form in ("passages", "in context"))
            judged = difference(a, b)
            found = dict(gain.gain(None, "none").rows[0])
            row = {"recommended for": some.name, "model": model, "generated": 100 * found["difference"]}
            row |= {"low": 100 * found["low"], "high": 100 * found["high"], "own": own, "judged": judged["mean"]}
            rows.append({**row, "right": own == (judged["mean"] >= 0)})
            print(rows[-1], flush=True)
    right = sum(row["right"] for row in rows) / len(MODELS)
    return rows, bar(f"context_gain recommends the better setting, of {len(sets)} sets", right, 7)


def folders(models: Models, data: Path, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """BEIR folders, cut and by passages, with paired intervals."""
    rows, bars = [], []
    for name in names:
        dataset = read_folder(data / "eval" / name)
        for model in MODELS:
            row: dict[str, Any] = {"folder": name, "model": model}
            scores = []
            for form in ("cut", "in context"):
                retriever = Retriever(models(model), on=["title", "text"], **FORMS[form])
                documents = [{"id": one["id"], "title": one["title"], "text": one["text"]} for one in dataset.corpus]
                retriever.add(documents, skip_empty=True, show_progress=False)
                scores.append(query_scores(retriever, dataset))
                row[form] = 100 * float(scores[-1].mean())
            found = difference(scores[:1], scores[1:])
            rows.append({**row, "queries": len(scores[0]), **found})
            print(rows[-1], flush=True)
            bars.append(bar(f"{name}, {model}: passages over cutting", round(found["mean"], 2), -0.3))
        models.keep()
    return rows, bars


def index_cost(some: DocumentSet, repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Indexing long documents, against encoding the same passages as separate texts."""
    encoder = load(MODELS[0], device="cpu")
    documents = some.documents(False)
    made = Retriever(encoder, on="text").add(documents, show_progress=False)
    hits = made("gene", k=10**6, by="passage")[0]
    texts = [hit["passage"]["text"] for hit in hits]
    calls = {
        "index": lambda: Retriever(encoder, on="text").add(documents, show_progress=False),
        "encode": lambda: encoder.encode_document(texts),
    }
    times = interleaved(calls, repeats, warmup=False, clock=time.process_time)
    found = ratio(times, "index", "encode")
    name = f"index {some.name} / encode its passages"
    row = {"cost": name, "documents": len(documents), "passages": len(texts), **found}
    return row, bar(name, found["median"], 1.15, at_most=True)


def query_cost(count: int, each: int, repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A query of documents by passages, against as many documents of one vector."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
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


def held(count: int, each: int) -> dict[str, Any]:
    """Memory of an index of ready vectors that answers one query, in a process of its own."""
    vectors = np.random.default_rng(0).standard_normal((count, 384)).astype(np.float32)
    encoder = load(MODELS[0], device="cpu")
    encoder.encode_query(["a query"])
    documents = [[f"passage {i} {j}" for j in range(each)] for i in range(count // each)]
    before = start_memory()
    retriever = Retriever(encoder).add(documents, vectors=vectors)
    retriever(vectors[:1], k=10)
    return {"mb": peak_memory_mb() - before}


def memory(count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Memory of passages, five a document, against as many documents of one vector."""
    script = Path(__file__).name
    cut, whole = (in_fresh_process(script, "DATA", "--held", str(count), str(each))["mb"] for each in (5, 1))
    name = f"memory of {count} passages, 5 a document / of as many documents"
    row = {
        "cost": name,
        "median": cut / whole,
        "min": cut / whole,
        "max": cut / whole,
        "mb": cut,
        "documents mb": whole,
    }
    return row, bar(name, round(cut / whole, 2), 1.05, at_most=True)


def longer_than_read(model: Any) -> Callable[[str], bool]:
    """Tells whether a text is longer than a model reads."""
    tokenizer, most = tokenizer_of(model), limit_of(model) or 0
    return lambda text: len(token_starts(text, tokenizer)) > most


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="holds docs/eval, eval and train")
    parser.add_argument("--folders", action="store_true", help="the folders of abstracts alone")
    parser.add_argument("--cache", type=Path, help="directory of vectors that are computed once")
    parser.add_argument("--quick", action="store_true", help="few documents, no JSON: does it run?")
    parser.add_argument("--held", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.held:
        print(json.dumps(held(*options.held)))
        return
    models, data, quick = Models(options.cache), options.data, options.quick
    if options.folders:
        rows, bars = folders(models, data, FOLDERS[1:2] if quick else FOLDERS)
        finish("passages_of_abstracts", settings={}, rows=rows, bars=bars, quick=quick)
        return
    most = dict.fromkeys(MOST, 8) if quick else MOST
    is_long = longer_than_read(models(MODELS[0]))
    chosen = [of_folder(data, name, most["chosen"]) for name in CHOSEN_ON]
    slices = [of_pairs(data, name, most["slice"], is_long) for name in SLICES]
    reported = [of_folder(data, name, most["reported"]) for name in REPORTED]
    rows, kept = rows_of(models, [*chosen, *slices])
    means, bars = gains(kept, [*CHOSEN_ON, *SLICES])
    full, more = in_full(models, data, CHOSEN_ON[1]) if not quick else ([], [])
    others, known = rows_of(models, reported)
    apart = [self_contained(models, one) for one in (of_questions(data, most["chosen"]), reported[0])]
    alone, some = ([one for parts in both for one in parts] for both in zip(*apart, strict=True))
    passed = anchors(models, *codebases(data))
    eight = [one for one in [*chosen, *reported] if not one.name.endswith("-test")]
    advice, right = recommendations(models, eight, kept | known)
    costs = [query_cost(2_000 if quick else 100_000, 5, 3 if quick else 7), memory(2_000 if quick else 100_000)]
    costs.append(index_cost(of_folder(data, "medquad-ghr", 5 if quick else 40), 3))
    settings = {"documents": most, "context": DocumentContext().to_dict(), "chosen on": [*CHOSEN_ON, *SLICES]}
    every = [*rows, *means, *full, *others, *alone, *passed, *advice, *(row for row, _ in costs)]
    bars += [*more, *some, right, *(one for _, one in costs)]
    finish("document_context", settings=settings, rows=every, bars=bars, quick=quick)


if __name__ == "__main__":
    main()
