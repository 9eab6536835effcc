"""Tables of what passages and document context gain, for `report.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import read_result
from document_sets import CHOSEN_ON, REPORTED, SLICES

FORMS = ("passages", "in context", "prefix", "trained")
LEVELS = {
    ("document", "cut to passages"): "documents: passages over cutting",
    ("document", "cut to in context"): "documents: passages in context over cutting",
    ("passage", "passages to in context"): "passages, all queries: context over none",
    ("unnamed", "passages to in context"): "passages, unnamed: context over none",
    ("unnamed", "another to in context"): "passages, unnamed: own context over another document's",
    ("unnamed", "passages to prefix"): "passages, unnamed: prefix and mean over none",
}


def gains() -> str:
    """Gains of nDCG@10, mean over the sets, with intervals and the worst set."""
    rows = [row for row in read_result("document_context")["rows"] if "gain" in row]
    lines = ["| what | model | titles | mean gain | 95 % interval | worst set |", "|---|---|---|---:|---|---:|"]
    for (level, gain), name in LEVELS.items():
        for row in rows:
            if (row["level"], row["gain"]) == (level, gain):
                interval = f"{row['low']:+.1f} to {row['high']:+.1f}"
                cells = [name, row["model"], row["titles"], f"{row['mean']:+.1f}", interval, f"{row['worst']:+.1f}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\nPoints of nDCG@10 x 100; means over the sets, paired bootstrap over queries."


def forms_in(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The forms that were measured."""
    return [name for name in FORMS if any(f"passage, {name}" in row for row in rows)]


def heads(forms: Sequence[str]) -> str:
    """Heads of their columns."""
    return " | ".join("plain" if name == "passages" else name for name in forms)


def by_set(folders: Sequence[str] = (*CHOSEN_ON, *SLICES)) -> str:
    """nDCG@10 of each set at document and passage level."""
    rows = [row for row in read_result("document_context")["rows"] if row.get("folder") in folders]
    forms = forms_in(rows)
    lines = [
        f"| set | model | titles | documents: cut | passages | in context | passages: {heads(forms)} |",
        "|---|---|---|---:|---:|---:" + "|---:" * len(forms) + "|",
    ]
    for row in rows:
        names = ["document, cut", "document, passages", "document, in context"]
        # Of a slice the answer is the whole document.
        names += ["-"] * len(forms) if row["folder"] in SLICES else [f"passage, {name}" for name in forms]
        cells = " | ".join(_score(row.get(name)) for name in names)
        lines.append(f"| {row['folder']} | {row['model']} | {row['titles']} | {cells} |")
    return "\n".join(lines) + "\n\nnDCG@10 x 100."


def reported() -> str:
    """The same of sets on which nothing was chosen, and how many documents of each."""
    rows = {row["folder"]: row for row in read_result("document_context")["rows"] if row.get("folder") in REPORTED}
    sizes = "; ".join(f"{name}: {row['documents']} documents, {row['queries']} queries" for name, row in rows.items())
    return f"{by_set(REPORTED)} {sizes}."


def alone() -> str:
    """Documents by their own paragraphs, whose questions need no context."""
    rows = [row for row in read_result("document_context")["rows"] if row.get("folder", "").endswith(", paragraphs")]
    forms = forms_in(rows)
    lines = [f"| set | documents | model | titles | {heads(forms)} | gain in context | 95 % interval |"]
    lines.append("|---|---:|---|---" + "|---:" * len(forms) + "|---:|---|")
    for row in rows:
        cells = " | ".join(_score(row.get(f"passage, {name}")) for name in forms)
        interval = f"{row['mean']:+.1f} | {row['low']:+.1f} to {row['high']:+.1f}"
        name = row["folder"].partition(",")[0]
        lines.append(f"| {name} | {row['documents']} | {row['model']} | {row['titles']} | {cells} | {interval} |")
    return "\n".join(lines) + f"\n\n{rows[0]['queries']} questions of each."


def chunks() -> str:
    """Share of the golden chunks of code among the first 5, 10 and 20, beside published ones."""
    lines = ["| chunks of nine codebases | paths | Pass@5 | Pass@10 | Pass@20 |", "|---|---|---:|---:|---:|"]
    for row in (row for row in read_result("document_context")["rows"] if "chunks" in row):
        lines.append(f"| {row['chunks']} | {row['titles']} | {' | '.join(f'{value:.1f}' for value in row['pass'])} |")
    return "\n".join(lines)


def advice() -> str:
    """What `context_gain` recommends, and what judged queries say."""
    lines = ["| set | model | generated queries: own context gains | recommends | judged queries: gains | right |"]
    lines.append("|---|---|---|---|---:|---|")
    for row in (row for row in read_result("document_context")["rows"] if "recommended for" in row):
        found = f"{row['generated']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"
        cells = [row["recommended for"], row["model"], found, "own" if row["own"] else "none"]
        cells += [f"{row['judged']:+.1f}", "yes" if row["right"] else "no"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def costs() -> str:
    """Processor time of indexing and of a query, as ratios."""
    rows = [row for row in read_result("document_context")["rows"] if "cost" in row]
    lines = ["| what | ratio | from | to |", "|---|---:|---:|---:|"]
    lines += [f"| {row['cost']} | {row['median']:.2f} | {row['min']:.2f} | {row['max']:.2f} |" for row in rows]
    return "\n".join(lines)


def abstracts() -> str:
    """nDCG@10 of folders of abstracts, cut and by passages."""
    lines = ["| folder | queries | model | cut | passages | difference | 95 % interval |"]
    lines.append("|---|---:|---|---:|---:|---:|---|")
    for row in read_result("passages_of_abstracts")["rows"]:
        cells = [row["folder"], str(row["queries"]), row["model"], f"{row['cut']:.1f}", f"{row['in context']:.1f}"]
        cells += [f"{row['mean']:+.1f}", f"{row['low']:+.1f} to {row['high']:+.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _score(value: Any) -> str:
    return "" if value is None else f"{value:.1f}"


TABLES = {
    "document-context": gains,
    "document-context-sets": by_set,
    "document-context-reported": reported,
    "document-context-alone": alone,
    "document-context-chunks": chunks,
    "document-context-advice": advice,
    "document-context-costs": costs,
    "passages-of-abstracts": abstracts,
}
