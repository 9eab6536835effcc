"""``cderetrieval context``: what was sampled, what it costs, and how far the corpus has drifted."""

from __future__ import annotations

import argparse
from typing import Any

from ..terminal import printable, say
from .parsing import command


def add(commands: Any) -> None:
    """Add the command and its options."""
    what = "Describe the context of an index: its sample, its cost, and how far the corpus has drifted."
    parser = command(commands, "context", run_context, what)
    parser.add_argument("index", metavar="DIR", help="directory, or milvus://HOST:PORT/COLLECTION")
    parser.add_argument("--model", help="new place of a model that has moved")
    parser.add_argument("--show", type=int, default=5, metavar="N", help="ids to show (default: 5)")


def run_context(arguments: argparse.Namespace) -> None:
    """Print what was sampled, how large the cache is, and whether the corpus has moved away."""
    from ..retrieval.retriever import Retriever

    with Retriever.load(arguments.index, model=arguments.model) as retriever:
        reports, several = retriever.context_report(), retriever.fusion is not None
        documents = len(retriever)
    for name, report in (reports if several else {"": reports}).items():
        say(_described(report, arguments.show, f"{documents} documents" + (f", part {name}" if name else "")))


def _described(report: dict[str, Any], n_ids: int, index: str) -> str:
    """Say what a context is, in lines."""
    drift = report["drift"]
    shown = ", ".join(str(name) for name in report["ids"][:n_ids])
    more = f", ... ({len(report['ids'])} in all)" if len(report["ids"]) > n_ids else ""
    lines = {
        "index": index,
        "context": f"{report['documents']} documents, {report['source']}, seed {report['seed']}",
        "ids": shown + more or "none",
        "digest": report["digest"][:16],
        "model": report["model"][:16],
        "cache": f"{report['cache_bytes'] / 2**20:.1f} MiB, shared by all texts",
    }
    if drift is not None:
        verdict = "stale: call refresh()" if drift.stale else "still represents the corpus"
        lines["drift"] = f"shift {drift.shift:.4f} (p = {drift.p_value:.3f}), {verdict}"
    return "\n".join(f"{name:8s} {printable(value)}" for name, value in lines.items())
