"""``cderetrieval search``: the hits of each query, each with its best passage."""

from __future__ import annotations

import argparse
import json
import shutil
from typing import Any

from ..excerpts import Words, excerpt, plain_words, words_of
from ..filters import filter_from_text
from ..terminal import keywords, printable, say
from .parsing import add_opening, add_runtime, command
from .update import FILTER

# Spaces before a passage, and the narrowest lines of one.
INDENT, NARROW = 6, 20


def add(commands: Any) -> None:
    """Add the command and its options."""
    parser = command(commands, "search", run_search, "Search an index.")
    parser.add_argument("index", metavar="DIR", help="directory, or milvus://HOST:PORT/COLLECTION")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="text to search for")
    parser.add_argument("-k", type=int, default=10, help="hits for each query (default: 10)")
    by = "what is ranked: documents, each once, or passages (default: document)"
    parser.add_argument("--by", default="document", choices=["document", "passage"], help=by)
    parser.add_argument("--filter", action="append", metavar="FILTER", help=FILTER)
    add_opening(parser)
    reads = "a cross-encoder that reorders the best hits: its name or directory"
    parser.add_argument("--rerank", metavar="MODEL", help=reads)
    parser.add_argument("--depth", type=int, default=50, metavar="N", help="hits that it reads (default: 50)")
    add_runtime(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per hit")


def run_search(arguments: argparse.Namespace) -> None:
    """Print the hits of each query, each with its best passage."""
    from ..retrieval.retriever import Retriever

    wanted = filter_from_text(arguments.filter) if arguments.filter else None
    with Retriever.load(**keywords(Retriever.load, arguments, path=arguments.index)) as retriever:
        shown: dict[str, Any] = {"documents": True, "passages": True, "by": arguments.by, "filter": wanted}
        hits = retriever(arguments.queries, k=arguments.k, **shown)
        words = plain_words if arguments.json else words_of(retriever.parts.values())
    for query, ranking in zip(arguments.queries, hits, strict=True):
        if not arguments.json:
            say(printable(query) + ("" if ranking else "\n  no document matches"))
        for rank, hit in enumerate(ranking, start=1):
            if arguments.json:
                say(json.dumps({"query": query, "rank": rank, **hit}))
            else:
                _show(rank, hit, query, words)


def _show(rank: int, hit: dict[str, Any], query: str, words: Words) -> None:
    """Print a hit: similarity, id, headings, and the passage in lines."""
    width, passage = shutil.get_terminal_size().columns, hit["passage"]
    title = " ".join(str(passage["heading"] or hit["document"].get("title") or "").split())
    line = printable(f"  {rank:2d}  {hit['similarity']:.4f}  {hit['id']}  {title}").rstrip()
    say(line if len(line) <= width else line[: width - 1] + "…")
    for line, marks in excerpt(passage["text"], query, words, max(NARROW, width - INDENT)):
        say(" " * INDENT + line, marks=[mark.moved(INDENT) for mark in marks])
