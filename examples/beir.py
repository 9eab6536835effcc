"""Evaluate models on a folder in BEIR's format: plain against contextual, with a paired interval."""

import json
import sys
import tempfile
from pathlib import Path

from cderetrieval import evaluate
from cderetrieval.corpora import read_beir

TEXTS = {
    "d1": "Fill missing values with the last valid one before them.",
    "d2": "Join two frames on one or more columns, as a database does.",
    "d3": "Turn the values of a column into columns of their own.",
}
QUERIES = {"q1": "combine tables by a shared key", "q2": "replace NaN by what came before"}
QRELS = [("q1", "d2"), ("q2", "d1")]


def write_folder(folder: Path) -> None:
    """Write corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR has them."""
    (folder / "qrels").mkdir()
    for name, texts in (("corpus", TEXTS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": identity, "text": text}) for identity, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    rows = [f"{query}\t{document}\t1" for query, document in QRELS]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)  # your own folder, scifact/ for example
    if len(sys.argv) < 2:
        write_folder(folder)
    results = evaluate(["all-MiniLM-L6-v2", "cde-minilm"], read_beir(folder), context=["own", "null"])
    print(results.table())
