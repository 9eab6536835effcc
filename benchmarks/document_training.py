"""Trained document contexts beside those that need no training, on development sets, with paired intervals.

    python benchmarks/document_training.py DATA --prepare FOLDER            training documents from DATA
    python run_train.py cde-doc-minilm --data FOLDER --out RUN --seed 0
    python benchmarks/document_training.py DATA --steps RUN                 what each checkpoint gains
    python benchmarks/document_training.py DATA --runs RUN/model RUN2/model [--cache DIR] [--quick]
    python benchmarks/document_training.py DATA --late FILE FILE2 --runs RUN3/model   beside late_chunking.py
    python benchmarks/document_training.py DATA --ship RUN/model FILE       the file that the package brings

DATA holds ``docs/eval/NAME``, ``docs/train`` and ``train``. Step and share were chosen on the development sets alone;
nothing here reads the sets that are only reported. Of several runs (seeds), each query's scores are averaged. Points
are nDCG@10 x 100. Controls: no context, another document's, and the passages in another order, which changes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import bar, finish, interleaved, ratio
from document_forms import LEVELS, SELF_CONTAINED, Embedded, development_sets
from document_sets import of_folder
from folders import Models, difference
from late_chunking import MODEL

from cderetrieval import DocumentContext, load
from cderetrieval.files import read_tensors
from cderetrieval.models.document_context import NONE, OfAnother, Units, encode_passages
from cderetrieval.models.trained_context import TrainedContext, meaning_of
from cderetrieval.passages import Passages
from cderetrieval.retrieval.cut import splitter_of

BASE = "cde-minilm"
SHARE = 0.5
SHARES = (0.25, 0.5, 0.75)
DOCUMENTS = 80
# Documents of each training set, by a hash of their ids; long documents of many kinds, and pages of an encyclopedia.
TAKEN = {"wikipedia": 500, "dc-law": 50, "medquad": 170, "powershell": 60, "peps": 40, "rust-rfcs": 40, "code": 40}
TAKEN |= {"tensorflow": 25, "rust-book": 10, "azure-cli": 12}

Kept = Mapping[tuple[str, str, str, bool], np.ndarray]
Forms = dict[str, Callable[[Embedded], list[np.ndarray]]]


def prepare(data: Path, folder: Path) -> None:
    """Write training documents, and sentences of an encyclopedia with their questions, in pieces of documents."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in TAKEN.items():
        with gzip.open(data / "docs" / "train" / f"documents-{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            drawn = sorted(lines, key=lambda line: hashlib.md5(json.loads(line)["id"].encode()).hexdigest())
        with gzip.open(folder / f"documents-{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(drawn[:count])
    with gzip.open(data / "train" / "nqg-squad.jsonl.gz", "rt", encoding="utf-8") as lines:
        asked: dict[str, list[str]] = {}
        for pair in map(json.loads, lines):
            asked.setdefault(pair["document"], []).append(pair["query"])
    sentences, chance, start = list(asked.items()), random.Random(0), 0
    with gzip.open(folder / "documents-questions.jsonl.gz", "wt", encoding="utf-8") as file:
        while start < len(sentences):
            some = sentences[start : start + chance.choice([8, 16, 40])]
            start += len(some)
            sections = [{"heading": "", "text": text, "queries": queries[:3]} for text, queries in some]
            if len(sections) > 2:
                file.write(json.dumps({"title": "", "sections": sections}) + "\n")


def forms_of(modules: Sequence[TrainedContext], share: float) -> Forms:
    """Vectors of a set in each form; of several modules, those of each."""
    mixed, another = (dataclasses.replace(kind(), share=share) for kind in (DocumentContext, OfAnother))
    return {
        "plain": lambda one: [one.own],
        "sum": lambda one: [one.in_context(DocumentContext())],
        "strong sum": lambda one: [one.in_context(DocumentContext(lead=0.4, mean=0.2))],
        "prefix and mean": lambda one: [one.in_context(DocumentContext(lead=0, mean=0.2), prefix=True)],
        "trained": lambda one: [one.in_context(mixed, module) for module in modules],
        "trained alone": lambda one: [one.in_context(dataclasses.replace(mixed, share=1.0), m) for m in modules],
        "trained and prefix": lambda one: [one.in_context(mixed, module, prefix=True) for module in modules],
        "another document": lambda one: [one.in_context(another, module) for module in modules],
        "another order": lambda one: [shuffled(one, mixed, module) for module in modules],
    }


def shuffled(one: Embedded, context: DocumentContext, module: TrainedContext) -> np.ndarray:
    """The vectors where the passages of each document come in another order, put back."""
    order = np.random.default_rng(0).permutation(len(one.units.owners))
    units = one.units
    moved = Units(units.texts, units.titles, units.owners[order], units.heads[order], units.leads)
    found = dataclasses.replace(one, units=moved, own=one.own[order]).in_context(context, module)
    return found[np.argsort(order)]


def measured(
    sets: Sequence[Embedded], forms: Forms, late: Mapping[str, np.ndarray]
) -> dict[tuple[str, str, str, bool], np.ndarray]:
    """Scores by form, level, set and whether titles are given; means over modules; `late` may have own queries."""
    kept = {}
    for one in sets:
        for form, vectors in forms.items():
            if form.endswith(("prefix", "prefix and mean")) and not one.titled:
                continue
            asked = late.get(f"{form}/{one.some.name}/{one.titled:d}/queries")
            found = [one.scores(made, asked) for made in vectors(one)]
            for level in LEVELS:
                kept[form, level, one.some.name, one.titled] = np.mean([each[level] for each in found], axis=0)
    return kept


def gain(kept: Kept, before: str, after: str, level: str, titled: bool, names: Sequence[str]) -> Any:
    """Paired difference of two forms over some sets."""
    shown = [name for name in names if len(kept.get((before, level, name, titled), ()))]
    return difference(*([kept[form, level, name, titled] for name in shown] for form in (before, after)))


def compared(kept: Kept, base: str, names: Sequence[str]) -> tuple[list[dict], list[dict]]:
    """Differences with intervals, and the bars of what was asked for."""
    rows, bars = [], []
    needs = [name for name in names if name not in SELF_CONTAINED]
    pairs = [
        ("unnamed", before, names, least)
        for before, least in (("plain", 5.0), ("another document", 5.0), ("sum", 2.0), ("strong sum", 2.0))
    ]
    pairs += [
        ("unnamed", before, names, None) for before in ("prefix and mean", "late chunking", "trained late chunking")
    ]
    pairs += [
        ("passage", "sum", SELF_CONTAINED, -0.3),
        ("passage", "sum", needs, None),
        ("document", "sum", names, -0.3),
    ]
    forms = [form for form in dict.fromkeys(key[0] for key in kept) if form.startswith(("trained", "late"))]
    for after in forms:
        for level, before, some, points in [pair for pair in pairs if pair[1] != after]:
            for titled in (False, True):
                if not any(key[:2] == (before, level) and key[3] == titled for key in kept):
                    continue
                if not any(key[0] == after and key[3] == titled for key in kept):
                    continue
                found = gain(kept, before, after, level, titled, list(some))
                titles = "given" if titled else "hidden"
                row = {"model": base, "titles": titles, "level": level, "gain": f"{before} to {after}"}
                rows.append({**row, "sets": "self-contained" if some == SELF_CONTAINED else len(some), **found})
                if points is not None and after == "trained":
                    name = f"{base}, titles {titles}, {level}: trained over {before}, {rows[-1]['sets']} sets"
                    bars.append(bar(name, round(found["mean"], 2), points))
    return rows, bars


def table(kept: Kept, base: str) -> list[dict[str, Any]]:
    """A row for each set and setting of titles."""
    rows = []
    for name, titled in dict.fromkeys(key[2:] for key in kept):
        row: dict[str, Any] = {"set": name, "model": base, "titles": "given" if titled else "hidden"}
        for form in dict.fromkeys(key[0] for key in kept):
            for level in ("passage", "unnamed"):
                scores = kept.get((form, level, name, titled))
                row[f"{form}, {level}"] = 100 * float(scores.mean()) if scores is not None and len(scores) else None
        rows.append(row)
    return rows


def cost(data: Path, path: str, count: int, repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Passages in a trained context, against the same passages alone; titles hidden."""
    encoder = load("all-MiniLM-L6-v2", device="cpu")
    split = splitter_of(Passages.parse("auto"), ["text"], [(encoder, DocumentContext())])
    assert split is not None
    documents = of_folder(data, "medquad-ghr", count).documents(False)
    cut = [(one["text"], split(one["text"], one), "") for one in documents]
    units = Units.of([(text, [span for span in spans if not span.head], title) for text, spans, title in cut if spans])
    context = DocumentContext(trained=path, share=SHARE)
    calls = {
        "context": lambda: encode_passages(encoder, units, context),
        "plain": lambda: encode_passages(encoder, units, NONE),
    }
    found = ratio(interleaved(calls, repeats, clock=time.process_time), "context", "plain")
    row = {"cost": "passages in a trained context / alone", "passages": len(units.texts), **found}
    return row, bar(row["cost"], found["median"], 1.3, at_most=True)


def taken_in(module: TrainedContext, sets: Sequence[Embedded]) -> dict[str, float]:
    """Mean weights of lead, mean and attention over the passages of all sets."""
    found = []
    for one in sets:
        vectors, leads = (meaning_of(rows, module.config.width) for rows in (one.own, one.leads))
        for number, lead in enumerate(leads):
            found.append(module.weights(vectors[(one.units.owners == number) & ~one.units.heads], lead))
    weights = np.vstack(found).mean(axis=0)
    return dict(zip(("weight of lead", "weight of mean", "weight of attention"), map(float, weights), strict=True))


def of_steps(sets: Sequence[Embedded], run: Path) -> list[dict[str, Any]]:
    """What each checkpoint gains over the sum: own and another document's context, and on self-contained sets."""
    rows = []
    forms = forms_of([], SHARE)
    known = measured(sets, {name: forms[name] for name in ("plain", "sum")}, {})
    names = list(dict.fromkeys(key[2] for key in known))
    for folder in sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])):
        module = TrainedContext.from_pretrained(folder)
        for share in SHARES:
            forms = forms_of([module], share)
            wanted = ("trained", "another document") if share == SHARE else ("trained",)
            kept = known | measured(sets, {name: forms[name] for name in wanted}, {})
            row: dict[str, Any] = {"step": int(folder.name.rpartition("-")[2]), "share": share}
            for titled in (False, True):
                title = "given" if titled else "hidden"
                for form in ("plain", *wanted):
                    row[f"{form}, {title}"] = gain(kept, "sum", form, "unnamed", titled, names)["mean"]
                alone = gain(kept, "sum", "trained", "passage", titled, SELF_CONTAINED)
                row[f"self-contained, {title}"], row[f"worst, {title}"] = alone["mean"], alone["worst"]
                row[f"documents, {title}"] = gain(kept, "sum", "trained", "document", titled, names)["mean"]
            row |= taken_in(module, [one for one in sets if not one.titled])
            rows.append(row)
            print({name: round(value, 2) for name, value in row.items()}, flush=True)
    return rows


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="holds docs/eval, docs/train and train")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="write training documents")
    parser.add_argument("--ship", type=Path, nargs=2, metavar=("MODEL", "FILE"), help="write a model in half precision")
    parser.add_argument("--steps", type=Path, metavar="RUN", help="measure the checkpoints of a run")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], metavar="MODEL", help="trained document contexts")
    parser.add_argument("--share", type=float, default=SHARE, help="share of the trained form in a vector")
    parser.add_argument("--late", type=Path, nargs="+", metavar="FILE", help="vectors of late_chunking.py")
    parser.add_argument("--cache", type=Path, help="directory of vectors that are computed once")
    parser.add_argument("--quick", action="store_true", help="few documents, no JSON: does it run?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.prepare:
        prepare(options.data, options.prepare)
    if options.ship:
        TrainedContext.from_pretrained(options.ship[0]).save_pretrained(options.ship[1], half=True)
    if not options.runs and not options.steps and not options.late:
        return
    modules = [TrainedContext.from_pretrained(path) for path in options.runs]
    base = MODEL if options.late else modules[0].config.base if modules else BASE
    models = Models(options.cache)
    sets = development_sets(options.data, models(base), 8 if options.quick else DOCUMENTS)
    models.keep()
    settings = {"documents": DOCUMENTS, "share": options.share, "runs": len(modules), "taken": TAKEN}
    if options.steps:
        rows = of_steps(sets, options.steps)
        finish("document_training_steps", settings=settings, rows=rows, bars=[], quick=options.quick)
        return
    forms = forms_of(modules, options.share)
    late: dict[str, np.ndarray] = {}
    for file in options.late or ():
        late |= read_tensors(file)[0]
    if late:
        wanted = ("plain", "sum", "strong sum", "prefix and mean", *(["trained"] if modules else []))
        forms = {form: forms[form] for form in wanted}
    for form in dict.fromkeys(name.split("/")[0] for name in late):
        forms[form] = lambda one, form=form: [late[f"{form}/{one.some.name}/{one.titled:d}"]]  # type: ignore[misc]
    kept = measured(sets, forms, late)
    rows, bars = compared(kept, base, list(dict.fromkeys(key[2] for key in kept)))
    rows = [*table(kept, base), *rows]
    if late:
        finish("late_chunking", settings=settings, rows=rows, bars=[], quick=options.quick)
        return
    row, one = cost(options.data, str(options.runs[0]), 5 if options.quick else 40, 3)
    finish("document_training", settings=settings, rows=[*rows, row], bars=[*bars, one], quick=options.quick)


if __name__ == "__main__":
    main()
