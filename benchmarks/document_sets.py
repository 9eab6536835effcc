"""The sets of `document_context.py`: some documents of each, queries, gold spans, and how documents are split."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cderetrieval.corpora.qrels import read_qrels
from cderetrieval.corpora.spans import SpanDataset, read_spans

# Development sets; those of which documents alone are ranked; and those that are only reported.
CHOSEN_ON = ("medquad-ghr", "masked-wiki-sections", "chunking-evaluation", "feedbackqa-pages")
SLICES = ("medquad", "20newsgroups-subject-body")
REPORTED = ("squad-articles", "masked-articles", "cuad-contracts", "feedbackqa-pages-test", "anthropic-codebases")
QUERIES = 500
# Training data of questions that stand for themselves; sentences of a document, and of a paragraph.
QUESTIONS, SENTENCES, PARAGRAPH = "nqg-squad", 40, 4


@dataclass(frozen=True)
class DocumentSet:
    """Documents with gold spans; `unnamed` queries name a document whose passage does not."""

    name: str
    spans: SpanDataset
    unnamed: set[str] = field(default_factory=set)

    @property
    def queries(self) -> dict[str, str]:
        """Query id to text."""
        return self.spans.queries

    def documents(self, titled: bool, parts: str = "") -> list[dict[str, Any]]:
        """As a retriever takes them; `parts` names the field of those that come split, "paragraphs" or "chunks"."""
        found = []
        for one in self.spans.documents:
            document = {"id": one["id"], "text": one["text"], **({"title": one["title"]} if titled else {})}
            if parts:
                document[parts] = [one["text"][start:end] for start, end in one[parts]]
            found.append(document)
        return found


def of_folder(data: Path, name: str, most: int) -> DocumentSet:
    """Some documents of a folder, chosen by a hash of their ids, and the queries whose spans are all in them."""
    folder = data / "docs" / "eval" / name.removesuffix("-test")
    if name == "feedbackqa-pages":  # its test queries are for reporting only
        dataset, unnamed = read_spans(folder, "dev", spans="spans-dev.jsonl"), None
    else:
        dataset, unnamed = read_spans(folder), folder / "qrels" / "unnamed.tsv"
    some = sampled(dataset, most)
    return DocumentSet(name, some, set(read_qrels(unnamed)) if unnamed is not None else set())


def sampled(dataset: SpanDataset, most: int) -> SpanDataset:
    """Some documents, and the queries whose spans are all in them."""
    order = sorted(dataset.documents, key=lambda document: _draw(document["id"]))
    kept = {document["id"] for document in order[:most]}
    spans = {query: found for query, found in dataset.spans.items() if all(name in kept for name, _, _ in found)}
    spans = dict(sorted(spans.items(), key=lambda pair: _draw(pair[0]))[:QUERIES])
    queries = {query: dataset.queries[query] for query in spans}
    return SpanDataset(tuple(one for one in dataset.documents if one["id"] in kept), queries, spans)


def of_pairs(data: Path, name: str, most: int, is_long: Any) -> DocumentSet:
    """Some documents of a file of pairs that are longer than a model reads, with one query each."""
    with gzip.open(data / "train" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = (json.loads(line) for line in lines)
        asked = {pair["document"]: pair["query"] for pair in pairs if pair.get("domain") != "medical-ghr"}
    drawn: Iterable[str] = filter(is_long, sorted(asked, key=_draw))
    texts = {str(number): text for number, text in enumerate(islice(drawn, most))}
    documents = tuple({"id": number, "title": "", "text": text} for number, text in texts.items())
    queries = {number: asked[text] for number, text in texts.items()}
    spans = {number: [(number, 0, len(text))] for number, text in texts.items()}
    return DocumentSet(name, SpanDataset(documents, queries, spans))


def of_questions(data: Path, most: int) -> DocumentSet:
    """Pieces of encyclopedia articles, in paragraphs of sentences of which each has a question: training data."""
    sentences: dict[str, list[str]] = {}
    with gzip.open(data / "train" / f"{QUESTIONS}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for pair in map(json.loads, lines):
            sentences.setdefault(pair["document"], []).append(pair["query"])
    documents, spans, queries = [], {}, {}
    for number, some in enumerate(islice(batched(sentences.items(), SENTENCES), most)):
        text, paragraphs = "", []
        for part in batched(some, PARAGRAPH):
            first = len(text)
            for sentence, asked in part:
                name, start = f"{number}.{len(spans)}", len(text)
                text += f"{sentence} "
                queries[name], spans[name] = asked[0], [(str(number), start, len(text) - 1)]
            paragraphs.append((first, len(text) - 1))
            text = f"{text[:-1]}\n\n"
        documents.append({"id": str(number), "title": "", "text": text[:-2], "paragraphs": paragraphs})
    kept = sorted(queries, key=_draw)[:QUERIES]
    chosen = SpanDataset(tuple(documents), {name: queries[name] for name in kept}, {name: spans[name] for name in kept})
    return DocumentSet(QUESTIONS, chosen)


def batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Items, some at a time; that of itertools is newer than Python 3.11."""
    rest = iter(items)
    while some := tuple(islice(rest, size)):
        yield some


def codebases(data: Path) -> tuple[DocumentSet, dict[str, set[tuple[str, int]]]]:
    """Files of code as their authors cut them, and each query's golden chunks, as document and start."""
    found = of_folder(data, "anthropic-codebases", 1_000)
    folder = data / "docs" / "eval" / "anthropic-codebases"
    rows = [json.loads(line) for line in (folder / "chunks.jsonl").read_text(encoding="utf-8").splitlines()]
    chunks: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        chunks.setdefault(row["document"], []).append((row["start"], row["end"]))
    for one in found.spans.documents:
        one["chunks"] = chunks[one["id"]]
    places = {row["_id"]: (row["document"], row["start"]) for row in rows}
    judged = read_qrels(folder / "qrels" / "chunks.tsv")
    return found, {query: {places[name] for name in names} for query, names in judged.items()}


def _draw(value: str) -> str:
    return hashlib.md5(value.encode(errors="surrogatepass")).hexdigest()
