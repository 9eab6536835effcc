"""Tables of what trained document contexts gain, for `report.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

from common import read_result

TRAINED, LATE, CORPUS = "document_training", "late_chunking", "corpus_context"
LEVELS = {"unnamed": "unnamed queries", "passage": "all queries", "document": "documents"}
DOCUMENTS = {"withheld": "that lack words", "told": "beside them", "full": "all, in full"}


def gains() -> str:
    """Differences of nDCG@10, means over the sets, with intervals and the worst set."""
    rows = [row for row in read_result(TRAINED)["rows"] if "gain" in row]
    rows = [row for row in rows if row["gain"].endswith((" to trained", "prefix and mean to trained and prefix"))]
    return difference_rows(rows)


def gains_of_late() -> str:
    """Those of late chunking, plain and trained, over what is simpler, and those of the module over both."""
    rows = [
        row for row in read_result(LATE)["rows"] if "gain" in row and (row["level"] != "passage" or row["sets"] != 2)
    ]
    pairs = [row["gain"].split(" to ") for row in rows]
    simpler = {"trained": ("late chunking", "trained late chunking"), "late chunking": ("plain", "sum")}
    simpler["trained late chunking"] = ("plain", "sum", "late chunking")
    return difference_rows([row for row, (before, after) in zip(rows, pairs, strict=True) if before in simpler[after]])


def difference_rows(rows: list[dict[str, Any]]) -> str:
    """A line for each difference."""
    lines = ["| what | over | model | titles | mean | 95 % interval | worst set |", "|---|---|---|---|---:|---|---:|"]
    for row in rows:
        before, _, after = row["gain"].partition(" to ")
        what = f"{after}: {LEVELS[row['level']]}" + (", self-contained sets" if row["sets"] == "self-contained" else "")
        interval = f"{row['low']:+.1f} to {row['high']:+.1f}"
        cells = [what, before, row["model"], row["titles"], f"{row['mean']:+.1f}", interval, f"{row['worst']:+.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\nPoints of nDCG@10 x 100; means over the sets, paired bootstrap over queries."


def by_set(result: str = TRAINED) -> str:
    """nDCG@10 of passages of each set, of all and of unnamed queries, in each form."""
    rows = [row for row in read_result(result)["rows"] if "set" in row]
    forms = [name.removesuffix(", passage") for name in rows[0] if name.endswith(", passage")]
    lines = [f"| set | model | titles | {' | '.join(forms)} |", "|---|---|---|" + "---:|" * len(forms)]
    for row in rows:
        cells = " | ".join(_pair(row.get(f"{form}, passage"), row.get(f"{form}, unnamed")) for form in forms)
        lines.append(f"| {row['set']} | {row['model']} | {row['titles']} | {cells} |")
    return "\n".join(lines) + "\n\nnDCG@10 x 100 of all queries / of those that name a document whose passage does not."


def _pair(every: float | None, unnamed: float | None) -> str:
    if every is None:
        return ""
    return f"{every:.1f}" if unnamed is None else f"{every:.1f} / {unnamed:.1f}"


def of_corpus() -> str:
    """What own, null and another cluster's context find at each checkpoint, and the gain of the own one."""
    result = read_result(CORPUS)
    lines = ["| step | documents | own | null | another cluster | own over null | own over another | gates |"]
    lines.append("|---:|---|---:|---:|---:|---|---|---:|")
    for row in result["rows"]:
        gates = [value for name, value in row.items() if name.startswith("gate ")]
        for level, documents in DOCUMENTS.items():
            found = [f"{row[f'{level}, {context}']:.1f}" for context in ("own", "null", "other")]
            found += [_interval(row, f"{level}, own over {context}") for context in ("null", "other")]
            lines.append(f"| {row['step']} | {documents} | {' | '.join(found)} | {max(gates):.3f} |")
    facts = result["settings"]
    return "\n".join(lines) + (
        f"\n\nnDCG@10 x 100, means over {facts['held out']} clusters that were held out of {facts['clusters']}; paired "
        f"bootstrap over queries, 95 %.\nOf {facts['pairs']:,} documents {facts['withheld']:,} lack words, and "
        f"{facts['withheld and asked for']:,} of their queries ask for one of these.\nGates: the mean of |tanh| over "
        "the heads of the layer whose gates are widest open."
    )


def _interval(row: dict[str, Any], name: str) -> str:
    mean, low, high = (row[f"{name}, {part}"] for part in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


TABLES = {
    "corpus-context": of_corpus,
    "document-training": gains,
    "document-training-sets": by_set,
    "late-chunking": gains_of_late,
    "late-chunking-sets": partial(by_set, LATE),
}
