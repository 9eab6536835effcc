"""The command line: ``cderetrieval index | search | context | embed | eval | train``.

Each command parses, calls the package, and prints through `terminal`. Errors that the package raises on purpose, and
those of the operating system, end the program with their message and status 2; anything else is a bug and shows its
traceback. A closed pipe (``| head``) ends it quietly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .errors import CDEError, InputError
from .excerpts import Words, excerpt, plain_words
from .files import as_path
from .milvus.location import is_location
from .terminal import Formatter, complain, printable, say

DEFAULT_MODEL = "cde-minilm"
SIGPIPE = 13
# Spaces before a passage, and the narrowest lines of one.
INDENT, NARROW = 6, 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    try:
        _run(argv)
    except CDEError as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt as error:
        complain(f"interrupted; {str(error) or 'nothing half-done was kept'}")
        return 130
    except BrokenPipeError:
        _leave_pipe()
        return 128 + SIGPIPE
    except OSError as error:
        complain(f"error: {error.filename or 'this system'}: {error.strerror or error}")
        return 2
    except Exception:
        complain(traceback.format_exc().rstrip())
        return 1
    return 0


def _run(argv: Sequence[str] | None) -> None:
    try:
        arguments = build_parser().parse_args(argv)
        # Log to standard error, unless the program that calls has said where logs go.
        handler = logging.StreamHandler()
        handler.setFormatter(Formatter("%(levelname)s: %(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        logging.getLogger("cderetrieval").setLevel(logging.INFO if arguments.verbose else logging.WARNING)
        _check_out(getattr(arguments, "out", None))
        arguments.command(arguments)
    finally:
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()  # a closed pipe shows here, also after --help


def _check_out(out: Path | None) -> None:
    """Refuse a place that cannot be written, before long work begins."""
    if out is None:
        return
    place = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        raise InputError(f"--out {out}: {place} is a file; choose a directory.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--out {out} cannot be written: {place} is another user's, or read-only. Choose another.")


def _leave_pipe() -> None:
    """Point standard output to nothing, so that Python does not complain about the pipe when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """A parser whose messages, which repeat arguments, are shown like all others."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            say(message.removesuffix("\n"), file or sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = _Parser(prog="cderetrieval", description="Search documents with embeddings that know the corpus.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_index, _add_search, _add_context, _add_embed, _add_eval, _add_train):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is being done")
    parser.set_defaults(command=run)
    return parser


def _add_index(commands: Any) -> None:
    parser = _command(commands, "index", run_index, "Index documents: JSONL, CSV, TSV, Parquet, text or a BEIR folder.")
    parser.add_argument("documents", type=as_path, nargs="?", metavar="DOCUMENTS", help="a file, or a BEIR folder")
    parser.add_argument("--out", type=as_path, metavar="DIR", help="directory of the index; not needed for a server")
    model = "name or directory of a model, or hybrid:A+B (default: cde-minilm, or the model of the vectors)"
    parser.add_argument("--model", help=model)
    index = "auto, a FAISS factory string, or milvus://HOST:PORT/COLLECTION"
    parser.add_argument("--index", default="auto", metavar="FACTORY", help=index)
    from .distributed.command import add_corpus_arguments, add_passages_arguments, add_vectors_arguments

    add_corpus_arguments(parser)
    add_passages_arguments(parser, "auto")
    add_vectors_arguments(parser)


def _add_search(commands: Any) -> None:
    parser = _command(commands, "search", run_search, "Search an index.")
    parser.add_argument("index", metavar="DIR", help="directory, or milvus://HOST:PORT/COLLECTION")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="text to search for")
    parser.add_argument("-k", type=int, default=10, help="hits for each query (default: 10)")
    by = "what is ranked: documents, each once, or passages (default: document)"
    parser.add_argument("--by", default="document", choices=["document", "passage"], help=by)
    parser.add_argument("--model", help="new place of a model that has moved; PART=MODEL in a hybrid")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the best available)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per hit")


def _add_context(commands: Any) -> None:
    what = "Describe the context of an index: its sample, its cost, and how far the corpus has drifted."
    parser = _command(commands, "context", run_context, what)
    parser.add_argument("index", metavar="DIR", help="directory, or milvus://HOST:PORT/COLLECTION")
    parser.add_argument("--model", help="new place of a model that has moved")
    parser.add_argument("--show", type=int, default=5, metavar="N", help="ids to show (default: 5)")


def _add_embed(commands: Any) -> None:
    from .distributed.command import add_embed_arguments, run_embed

    what = "Embed a large corpus into Parquet files; after a crash, the same command continues."
    add_embed_arguments(_command(commands, "embed", run_embed, what))


def _add_eval(commands: Any) -> None:
    from .evaluation.command import add_arguments, run

    what = "Evaluate models on BEIR folders, mteb tasks and benchmarks."
    add_arguments(_command(commands, "eval", lambda arguments: say(run(arguments)), what))


def _add_train(commands: Any) -> None:
    from .training.command import add_arguments

    parser = _command(commands, "train", run_train, "Train a contextual, dense or sparse model from a recipe.")
    add_arguments(parser)
    folders = "development folders in BEIR form, never test sets"
    parser.add_argument("--evaluate", nargs="+", default=[], metavar="FOLDER[:SPLIT]", help=folders)
    contexts = "contexts in which contextual models are evaluated (default: own null)"
    choices = ["own", "random", "null"]
    parser.add_argument("--contexts", nargs="+", default=["own", "null"], choices=choices, help=contexts)


def run_index(arguments: argparse.Namespace) -> None:
    """Build an index from a file of documents, or from vectors that are ready."""
    place = arguments.index if is_location(arguments.index) else arguments.out
    if place is None:
        raise InputError(
            "--out is missing: where to write the index (one on a server, --index milvus://..., needs none)."
        )
    if arguments.vectors:
        from .distributed.command import run_index as run_from_vectors

        run_from_vectors(arguments)
        return
    if arguments.documents is None:
        raise InputError("nothing to index: name a file of documents, or folders of vectors with --vectors.")
    from .corpora.readers import read_documents
    from .models.document_context import document_context_of
    from .passages import passages_of
    from .retrieval.retriever import Retriever

    documents = read_documents(arguments.documents, key=arguments.key)
    retriever = Retriever(
        arguments.model or DEFAULT_MODEL,
        key=arguments.key,
        on=arguments.on,
        context=arguments.context,
        context_size=arguments.context_size,
        passages=passages_of(arguments.passages),
        document_context=document_context_of(arguments.document_context),
        index=arguments.index,
        path=arguments.out,
        device=arguments.device,
        dtype=arguments.dtype,
        seed=arguments.seed,
    )
    with retriever:
        retriever.add(documents, skip_empty=arguments.skip_empty)
        context = f" in {retriever.context}" if retriever.context is not None else ""
        say(printable(f"{len(retriever)} documents indexed{context}, written to {place}"))


def run_search(arguments: argparse.Namespace) -> None:
    """Print the hits of each query, each with its best passage."""
    from .retrieval.retriever import Retriever

    with Retriever.load(arguments.index, model=arguments.model, device=arguments.device) as retriever:
        hits = retriever(arguments.queries, k=arguments.k, documents=True, passages=True, by=arguments.by)
        words = plain_words if arguments.json else _words_of(retriever)
    for query, ranking in zip(arguments.queries, hits, strict=True):
        if not arguments.json:
            say(printable(query) + ("" if ranking else "\n  no document matches"))
        for rank, hit in enumerate(ranking, start=1):
            if arguments.json:
                say(json.dumps({"query": query, "rank": rank, **hit}))
            else:
                _show(rank, hit, query, words)


def _words_of(retriever: Any) -> Words:
    """What cuts texts into words: a model of words, where there is one."""
    models = (part.model for part in retriever.parts.values())
    found = next((model for model in models if getattr(model, "kind", "") == "lexical"), None)
    return plain_words if found is None else found.encode_query


def _show(rank: int, hit: dict[str, Any], query: str, words: Words) -> None:
    """Print a hit: similarity, id, headings, and the passage in lines."""
    width, passage = shutil.get_terminal_size().columns, hit["passage"]
    title = " ".join(str(passage["heading"] or hit["document"].get("title") or "").split())
    line = printable(f"  {rank:2d}  {hit['similarity']:.4f}  {hit['id']}  {title}").rstrip()
    say(line if len(line) <= width else line[: width - 1] + "…")
    for line, marks in excerpt(passage["text"], query, words, max(NARROW, width - INDENT)):
        say(" " * INDENT + line, marks=[mark.moved(INDENT) for mark in marks])


def run_context(arguments: argparse.Namespace) -> None:
    """Print what was sampled, how large the cache is, and whether the corpus has moved away."""
    from .retrieval.retriever import Retriever

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


def run_train(arguments: argparse.Namespace) -> None:
    """Train a model, and score it on development folders every `evaluate_steps`."""
    from .training.command import run

    say(run(arguments, _development(arguments.evaluate, arguments.contexts) if arguments.evaluate else None))


def _development(folders: Sequence[str], contexts: Sequence[str]) -> Any:
    """Make what training evaluates: nDCG@10 of each folder, of contextual models in each of the contexts."""
    from .corpora.beir_folder import read_beir
    from .evaluation.runner import evaluate_retrieval
    from .types import is_contextual

    datasets = []
    for folder in folders:
        path, _, split = folder.rpartition(":") if not as_path(folder).is_dir() else (folder, "", "dev")
        datasets.append(read_beir(path, split))

    def evaluate(model: Any, step: int) -> dict[str, float]:
        scores = {}
        for dataset in datasets:
            for context in contexts if is_contextual(model) else ("own",):
                evaluation = evaluate_retrieval(model, dataset, context=context, show_progress=False)
                name = f"{dataset.name}_{context}" if is_contextual(model) else dataset.name
                scores[name] = evaluation.scores.mean()["ndcg@10"]
        return scores

    return evaluate
