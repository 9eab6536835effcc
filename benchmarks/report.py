"""Tables and figures of the documentation, made from ``results/*.json``, so that no number there is typed.

    python benchmarks/report.py            writes them
    python benchmarks/report.py --check    says which are not current

A table stands between ``<!-- made by benchmarks/report.py: NAME -->`` and ``<!-- end -->``, on any page. Every result
has its rows in the table of claims, also one that a new script writes.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import HERE, RESULTS, markdown, read_result
from figures import Line, bars_figure, gains_figure, growth_figure
from passage_tables import TABLES as PASSAGES
from planning import TABLES as PLANNING
from trained_tables import TABLES as TRAINED

from cderetrieval.files import atomic_write

ROOT = HERE.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), HERE / "README.md")
IMAGES = ROOT / "docs" / "images"
SECTION = re.compile(r"(<!-- made by benchmarks/report\.py: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
# Which bars of one limit become one row: more than so many, and equal up to the first comma.
MANY = 3
# Steps of `growth.py`, as they are called in a table and a figure.
STEPS = {"add": "add", "build": "build the index", "open": "open, first answer", "search": "1,000 queries"}

MINILM, CENTRE, DEFAULT = "all-MiniLM-L6-v2/none", "centre:all-MiniLM-L6-v2/own", "cde-minilm/own"
RANDOM, NULL, OTHERS, UNTRAINED = *(f"cde-minilm/{name}" for name in ("random", "null", "others")), "untrained/own"
SYSTEMS = {
    MINILM: "all-MiniLM-L6-v2",
    CENTRE: 'its `context="centre"`',
    UNTRAINED: "`cde-minilm`, untrained",
    DEFAULT: "`cde-minilm`",
    RANDOM: "random context",
    NULL: "null context",
}
COMPARED = {
    MINILM: "all-MiniLM-L6-v2",
    NULL: "the same model without a context",
    OTHERS: "the same model in the contexts of the other folders",
    RANDOM: "the same model in a neutral context (`random`)",
    UNTRAINED: "the same statistics over untrained weights",
}
FOLDERS = {
    "scifact": "SciFact",
    "squad-dev": "SQuAD dev paragraphs",
    "feedbackqa": "FeedbackQA",
    "nfcorpus-preprocessed": "NFCorpus (preprocessed)",
    "cranfield": "Cranfield",
    "cisi": "CISI",
    "med": "MED",
}
# Results whose script has another name.
SCRIPTS = {"passages_of_abstracts": "document_context", "growth_passages": "growth"}


def claims() -> str:
    """Every claim of every script: bar, measured, met, and the run that measured it; then the processors."""
    rows = []
    machines: dict[str, list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = read_result(path.stem)
        script = f"{SCRIPTS.get(path.stem, path.stem)}.py"
        run = f"{result['date'][:10]}, {result['commit']}"
        machine = f"{result['machine']['cores']} cores of {result['machine']['cpu']}, {result['machine']['capability']}"
        machines.setdefault(machine, []).append(f"`{path.stem}.json`")
        for entry in grouped(result["bars"]):
            rows.append({"script": f"[`{script}`]({script})", **entry, "date, commit": run})
    most, *others = sorted(machines, key=lambda machine: -len(machines[machine]))
    taken = [f"Taken on {most}{'; but' if others else '.'}"]
    taken += [f"- {', '.join(sorted(machines[machine]))} on {machine}" for machine in others]
    return "\n".join([markdown(rows), "", *taken])


def grouped(bars: Sequence[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Rows of bars; many of one kind become one, with the range of their values."""

    def kind(entry: dict[str, Any]) -> tuple[str, str]:
        return entry["bar"], entry["name"].partition(",")[0]

    for (limit, name), group in itertools.groupby(bars, key=kind):
        entries = list(group)
        parts = [entries] if len(entries) > MANY else [[entry] for entry in entries]
        for part in parts:
            values = sorted(float(entry["value"]) for entry in part)
            met = sum(bool(entry["met"]) for entry in part)
            yield {
                "claim": part[0]["name"] if len(part) == 1 else f"{name}, {len(part)} settings",
                "bar": limit,
                "measured": number(values[0]) if len(part) == 1 else f"{number(values[0])} to {number(values[-1])}",
                "met": "yes" if met == len(part) else "**no**" if len(part) == 1 else f"**{met} of {len(part)}**",
            }


def number(value: float) -> str:
    """A number as people write it: three digits, and thousands in groups.

    >>> [number(value) for value in (0.37492, 1.3243, 45409.0, 6.0, 122.4)]
    ['0.375', '1.32', '45,409', '6', '122']
    """
    if value == int(value) or abs(value) >= 1_000:
        return f"{round(value):,}"
    return f"{value:.3g}"


def default_model() -> str:
    """What the context of the default model is worth on each folder."""
    result = read_result("default_model")
    folders = of_folders(result)
    names = list(SYSTEMS)
    lines = [f"| folder | {' | '.join(SYSTEMS.values())} |", "|---|" + "---:|" * len(names)]
    for folder, scores in folders.items():
        lines.append(f"| {FOLDERS.get(folder, folder)} | {' | '.join(best_bold([scores[name] for name in names]))} |")
    means = [sum(scores[name] for scores in folders.values()) / len(folders) for name in names]
    lines.append(f"| mean | {' | '.join(best_bold(means))} |")
    return "\n".join(lines) + f"\n\n{default_model_summary()}"


def default_model_summary() -> str:
    """The gains of the default model's own context, with their intervals."""
    result = read_result("default_model")
    gains = of_gains(result)
    lines = ["| `cde-minilm` in its own context, compared with | gain | 95% interval |", "|---|---:|---:|"]
    for name, label in COMPARED.items():
        row = gains[name]
        lines.append(f"| {label} | {row['mean']:+.1f} | {row['low']:.1f} to {row['high']:.1f} |")
    text = (
        f"Points of nDCG@10 (x 100), mean of {len(of_folders(result))} BEIR folders, own contexts averaged over "
        f"{result['settings']['seeds']} samples. Nothing was chosen on these queries "
        "(`python benchmarks/default_model.py FOLDER...`)."
    )
    return "\n".join(lines) + f"\n\n{wrapped(text)}"


def best_bold(scores: Sequence[float]) -> list[str]:
    """Scores with one digit, the best of them bold.

    >>> best_bold([64.5, 67.83, 67.8])
    ['64.5', '**67.8**', '**67.8**']
    """
    texts = [f"{score:.1f}" for score in scores]
    best = max(texts, key=float)
    return [f"**{text}**" if text == best else text for text in texts]


def of_folders(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Scores by folder, in the order of `FOLDERS`."""
    rows = {row["folder"]: row for row in result["rows"] if "folder" in row}
    return {name: rows[name] for name in [*(n for n in FOLDERS if n in rows), *(n for n in rows if n not in FOLDERS)]}


def of_gains(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Gain of the own context over each other system."""
    key = "own context against"
    return {row[key]: row for row in result["rows"] if key in row}


def hybrid() -> str:
    """Means of a hybrid and of its parts over all folders."""
    rows = [row for row in read_result("hybrid")["rows"] if "folder" in row]
    lines = [
        "| hybrid | best part | `rrf` | `weighted` | tuned | folders |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(row["hybrid"] for row in rows):
        mine = [row for row in rows if row["hybrid"] == name]
        means = [sum(row[column] for row in mine) / len(mine) for column in ("rrf", "weighted", "weighted, tuned")]
        parts = {part: sum(row[part] for row in mine) / len(mine) for part in name.split("+")}
        best = max(parts, key=lambda part: parts[part])
        numbers = " | ".join(f"{mean:.1f}" for mean in means)
        lines.append(f"| `{name}` | {parts[best]:.1f} (`{best}`) | {numbers} | {len(mine)} |")
    text = (
        "Mean nDCG@10 x 100 of BEIR folders. `weighted` has equal weights and min-max normalisation; tuned weights "
        "were chosen on development sets."
    )
    return "\n".join(lines) + f"\n\n{wrapped(text)}"


def systems() -> str:
    """Means of the models that need no network, and of their hybrids with BM25."""
    every = read_result("hybrid")["rows"]
    rows = [row for row in every if "folder" in row]
    means: dict[str, list[float]] = {}
    for row in rows:
        for part in row["hybrid"].split("+"):
            means.setdefault(part, []).append(row[part])
        means.setdefault(row["hybrid"], []).append(row["weighted"])
    count = len({row["folder"] for row in rows})
    found = {name: sum(scores) / len(scores) for name, scores in means.items()}
    order = sorted(found, key=lambda name: ("+" in name, "cde-minilm" in name, found[name]))
    lines = ["| model | nDCG@10 |", "|---|---:|"]
    scores = zip(order, best_bold([found[name] for name in order]), strict=True)
    lines += [f"| `{'hybrid:' if '+' in name else ''}{name}` | {score} |" for name, score in scores]
    chosen = [row for row in every if "development set" in row]
    hybrids = [[row["equal weights"] for row in chosen if part in row] for part in ("all-MiniLM-L6-v2", "cde-minilm")]
    plain, ours = (sum(scores) / len(scores) for scores in hybrids)
    text = (
        f'Mean nDCG@10 x 100 of {count} BEIR folders. Hybrids fuse scores with equal weights, `fusion="weighted"`. '
        f"On {len(hybrids[0])} development sets the two hybrids have {plain:.1f} and {ours:.1f}. Nothing was chosen on "
        "the folders' queries (`python benchmarks/hybrid.py FOLDER...`)."
    )
    return "\n".join(lines) + f"\n\n{wrapped(text)}"


def sparse_training() -> str:
    """How two small sparse models learn, step by step, with BM25 and their base beside them."""
    result = read_result("sparse_training")
    tasks = result["settings"]["tasks"]
    lines = [
        f"| model | steps | {' | '.join(tasks)} | terms of a query | of a document | FLOPS | CPU s |",
        "|---|---:|" + "---:|" * len(tasks) + "---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        scores = " | ".join(f"{100 * row[task]:.1f}" for task in tasks)
        found = " | ".join(str(row[name]) for name in ("query terms", "document terms", "FLOPS", "seconds"))
        lines.append(f"| {row['model']} | {row['step']} | {scores} | {found} |")
    sizes = "; ".join(
        f"{name}: {size['queries']} queries, {size['documents']} documents" for name, size in tasks.items()
    )
    text = (
        f"nDCG@10 x 100 on development data ({sizes}). Both models start from all-MiniLM-L6-v2 with its word "
        "embeddings as output layer, and read 64 tokens of a text; BM25 reads all."
    )
    return "\n".join(lines) + f"\n\n{wrapped(text)}"


def context_cost() -> str:
    """What a context of 512 documents costs a text, by shape and length."""
    result = read_result("context_cost")
    lines = ["| encoder | tokens of a text | texts at once | `cached` | `joint` |", "|---|---:|---:|---:|---:|"]
    for row in result["rows"]:
        factors = f"{row['gated']['median']:.2f} | {row['joint']['median']:.1f}"
        lines.append(f"| {row['shape']} | {row['tokens']} | {row['texts']} | {factors} |")
    text = (
        f"CPU time of a text over that of the same encoder without context; {result['settings']['context']} context "
        f"documents, {result['settings']['threads']} thread."
    )
    return "\n".join(lines) + f"\n\n{wrapped(text)}"


def grown() -> Iterator[dict[str, Any]]:
    """Rows of documents of one vector each, then of those of several."""
    for row in read_result("growth")["rows"]:
        yield {**row, "what": number(row["documents"])}
    for row in read_result("growth_passages")["rows"]:
        yield {**row, "what": f"{number(row['documents'])} of {number(row['vectors'])} passages"}


def growth() -> str:
    """Seconds and memory of each step at each number of documents, of one vector each and of several."""
    steps = "".join(f" {name} |" for name in STEPS.values())
    lines = [f"| documents | index | on disk: store | index |{steps}", "|---:|---|---:|---:|" + "---:|" * len(STEPS)]
    for row in grown():
        cells = [f"{number(row[f'{step}_s'])} s, {number(row[f'{step}_mb'])} MB" for step in STEPS]
        sizes = [f"{number(row[f'{what}_mb'])} MB" for what in ("store", "index")]
        cells = [row["what"], f"`{row['index']}`", *sizes, *cells]
        lines.append(f"| {' | '.join(cells)} |")
    text = (
        f"Processor time, {threads('growth')}, and the most memory of a process beyond what it was given (adding) or "
        "its imports (opening, searching), mapped files included."
    )
    return "\n".join(lines) + f"\n\n{wrapped(text)}"


def search_sizes() -> str:
    """Queries a second through the Retriever and by FAISS itself, and recall, at each number of vectors."""
    lines = [
        "| documents | index | recall@10 | queries a second | FAISS alone | ratio |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for row in grown():
        speeds = [number(row[f"{who}_queries_per_second"]) for who in ("retriever", "faiss")]
        ratios = "{median:.2f} ({min:.2f} to {max:.2f})".format(**row["ratio"])
        cells = [row["what"], f"`{row['index']}`", f"{row['recall']:.3f}", *speeds, ratios]
        lines.append(f"| {' | '.join(cells)} |")
    text = (
        f"Batches of 1,000 queries, ten answers each, processor time of {threads('growth')}; ratios are medians of "
        "rounds, with smallest and largest. Recall is that of queries which no index was tuned on."
    )
    return "\n".join(lines) + f"\n\n{wrapped(text)}"


def threads(name: str) -> str:
    """How many threads a benchmark ran on, in words."""
    count = read_result(name)["settings"]["threads"]
    return "one thread" if count == 1 else f"{count} threads"


def wrapped(text: str) -> str:
    """Text in lines of at most 120 characters."""
    import textwrap

    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def rows_of(rows: Callable[[], Sequence[dict[str, Any]]]) -> str:
    """A table that another script has the rows of."""
    return markdown(rows())


def campaign() -> str:
    """What each attack of the campaign counted."""
    result = read_result("campaign")
    failures = {entry["name"].partition(":")[0]: entry["value"] for entry in result["bars"]}
    counts: dict[str, list[str]] = {}
    for row in result["rows"]:
        counts.setdefault(row["attack"], []).append(f"{row['count']:,} {row['what']}")
    return markdown(
        [
            {"attack": attack, "counted": "; ".join(found), "failures": failures[attack]}
            for attack, found in counts.items()
        ]
    )


TABLES: dict[str, Callable[[], str]] = {
    "campaign": campaign,
    "claims": claims,
    "context_cost": context_cost,
    "default_model": default_model,
    "default_model_summary": default_model_summary,
    "growth": growth,
    "hybrid": hybrid,
    "search_sizes": search_sizes,
    "sparse_training": sparse_training,
    "systems": systems,
    **PASSAGES,
    **TRAINED,
    **{f"planning_{name}": partial(rows_of, rows) for name, rows in PLANNING.items()},
}


def filled(text: str) -> str:
    """A page with its tables made anew."""
    return SECTION.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[4]}", text)


def draw() -> None:
    """Draw the figures."""
    draw_default_model(IMAGES / "default_model.png")
    entries = [
        (path.stem, entry) for path in sorted(RESULTS.glob("*.json")) for entry in read_result(path.stem)["bars"]
    ]
    bars_figure(entries, IMAGES / "claims.png")
    draw_growth(IMAGES / "growth.png")


def draw_default_model(path: Path) -> None:
    """Draw what contexts gain over MiniLM on each folder and in the mean."""
    result = read_result("default_model")
    folders, gain = of_folders(result), of_gains(result)[MINILM]
    base = [scores[MINILM] for scores in folders.values()]
    names = [f"{FOLDERS.get(folder, folder)} ({scores[MINILM]:.1f})" for folder, scores in folders.items()]
    labels = {
        UNTRAINED: "cde-minilm, untrained",
        RANDOM: "cde-minilm, random context",
        DEFAULT: "cde-minilm, own context",
    }
    lines = []
    for name, label in labels.items():
        gains = [scores[name] - plain for scores, plain in zip(folders.values(), base, strict=True)]
        interval = (gain["low"], gain["high"]) if name == DEFAULT else None
        lines.append(Line(label, [*gains, sum(gains) / len(gains)], [*[None] * len(gains), interval]))
    mean = f"mean ({sum(base) / len(base):.1f}), with 95% interval"
    unit = "gain in nDCG@10 x 100 over all-MiniLM-L6-v2, whose score is in brackets"
    gains_figure([*names, mean], lines, unit, path)


def draw_growth(path: Path) -> None:
    """Draw memory and seconds of each step against the number of documents."""
    rows = read_result("growth")["rows"]
    memory = [(name, [row[f"{step}_mb"] for row in rows]) for step, name in STEPS.items()]
    memory.append(("the vectors, float32", [row["vectors_mb"] for row in rows]))
    seconds = [(name, [row[f"{step}_s"] for row in rows]) for step, name in STEPS.items()]
    panels = [("memory beyond what was given, MB (log scale)", memory), ("processor seconds (log scale)", seconds)]
    growth_figure(panels, [row["documents"] for row in rows], path)


def main(argv: Sequence[str] | None = None) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a page is not current")
    arguments = parser.parse_args(argv)
    stale = [page for page in PAGES if filled(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")]
    for page in stale:
        print(f"{page.relative_to(ROOT)} is not current" + ("" if arguments.check else ": written"))
        if not arguments.check:
            text = filled(page.read_text(encoding="utf-8"))
            with atomic_write(page) as temporary:
                temporary.write_text(text, encoding="utf-8")
    if not arguments.check:
        draw()
    return int(bool(stale) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
