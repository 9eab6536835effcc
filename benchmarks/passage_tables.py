"""Tables of what passages and document context gain, for `report.py`."""

from __future__ import annotations

from typing import Any

from common import read_result

LEVELS = {
    ("document", "cut to passages"): "documents: passages over cutting",
    ("document", "cut to in context"): "documents: passages in context over cutting",
    ("passage", "passages to in context"): "passages, all queries: context over none",
    ("unnamed", "passages to in context"): "passages, unnamed: context over none",
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


def by_set() -> str:
    """nDCG@10 of each set at document and passage level."""
    rows = [row for row in read_result("document_context")["rows"] if "folder" in row]
    lines = [
        "| set | model | titles | documents: cut | passages | in context | passages: plain | in context | prefix |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    names = ("document, cut", "document, passages", "document, in context")
    names += ("passage, passages", "passage, in context", "passage, prefix")
    for row in rows:
        cells = " | ".join(_score(row.get(name)) for name in names)
        lines.append(f"| {row['folder']} | {row['model']} | {row['titles']} | {cells} |")
    return "\n".join(lines) + "\n\nnDCG@10 x 100."


def costs() -> str:
    """Processor time of indexing and of a query, as ratios."""
    rows = [row for row in read_result("document_context")["rows"] if "cost" in row]
    lines = ["| processor time of | ratio | from | to |", "|---|---:|---:|---:|"]
    lines += [f"| {row['cost']} | {row['median']:.2f} | {row['min']:.2f} | {row['max']:.2f} |" for row in rows]
    return "\n".join(lines)


def abstracts() -> str:
    """nDCG@10 of folders of abstracts, cut and by passages."""
    lines = ["| folder | model | cut | passages | difference |", "|---|---|---:|---:|---:|"]
    for row in read_result("passages_of_abstracts")["rows"]:
        cut, context = row["cut"], row["in context"]
        lines.append(f"| {row['folder']} | {row['model']} | {cut:.1f} | {context:.1f} | {context - cut:+.1f} |")
    return "\n".join(lines)


def _score(value: Any) -> str:
    return "" if value is None else f"{value:.1f}"


TABLES = {
    "document-context": gains,
    "document-context-sets": by_set,
    "document-context-costs": costs,
    "passages-of-abstracts": abstracts,
}
