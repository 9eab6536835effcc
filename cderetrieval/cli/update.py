"""``cderetrieval add | sync | remove | refresh``: change an index that is there."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from ..files import as_path
from ..filters import filter_from_text
from ..terminal import keywords, printable, say
from .parsing import add_files_arguments, add_opening, command

FILTER = (
    "which documents: 'year >= 2020', 'language in [\"en\", \"fr\"]', 'title contains owl', or JSON; may be repeated"
)


def add(commands: Any) -> None:
    """Add the commands and their options."""
    for name, run, text in (
        ("add", run_add, "Add documents to an index; those that are there unchanged are left alone."),
        ("sync", run_sync, "Make an index hold these documents and no others; unchanged ones are left alone."),
    ):
        parser = _command(commands, name, run, text)
        documents = "files, folders or globs; - is standard input"
        parser.add_argument("documents", type=as_path, nargs="+", metavar="PATH", help=documents)
        add_files_arguments(parser)
        parser.add_argument("--skip-empty", action="store_true", help="leave out documents without text")
    parser = _command(commands, "remove", run_remove, "Remove documents from an index, by id or by a filter.")
    parser.add_argument("ids", nargs="*", metavar="ID", help="id of a document")
    parser.add_argument("--filter", action="append", metavar="FILTER", help=FILTER)
    parser = _command(commands, "refresh", run_refresh, "Make a new context, and embed all documents in it.")
    parser.add_argument("--context", default="own", help="own, random, null or a file (default: own)")


def run_add(arguments: argparse.Namespace) -> None:
    """Add documents."""
    with _opened(arguments) as retriever:
        retriever.add(_documents(arguments, retriever), skip_empty=arguments.skip_empty)


def run_sync(arguments: argparse.Namespace) -> None:
    """Add, replace and remove documents, so that the index holds those of the source."""
    with _opened(arguments) as retriever:
        retriever.sync(_documents(arguments, retriever), skip_empty=arguments.skip_empty)


def run_remove(arguments: argparse.Namespace) -> None:
    """Remove documents."""
    from ..integrations.adapter import Adapter

    with _opened(arguments) as retriever:
        ids = list(map(Adapter(retriever).own_id, arguments.ids)) or None
        retriever.remove(ids, filter=filter_from_text(arguments.filter) if arguments.filter else None)


def run_refresh(arguments: argparse.Namespace) -> None:
    """Make a new context."""
    with _opened(arguments) as retriever:
        retriever.refresh(arguments.context)


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = command(commands, name, run, text)
    parser.add_argument("index", metavar="INDEX", help="directory, or milvus://HOST:PORT/COLLECTION")
    add_opening(parser)
    return parser


@contextlib.contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[Any]:
    """The index, and after the change a line on what was done."""
    from ..retrieval.retriever import Retriever

    with Retriever.load(arguments.index, model=arguments.model, device=arguments.device) as retriever:
        yield retriever
        done = f"{retriever.last_change}; " if retriever.last_change else ""
        context = f" in {retriever.context}" if retriever.context is not None else ""
        say(printable(f"{done}{len(retriever):,} documents{context}"))


def _documents(arguments: argparse.Namespace, retriever: Any) -> Iterable[dict[str, Any]]:
    from ..corpora.files import read_files

    collection = retriever.collection
    given = {"paths": arguments.documents, "passages": collection.passages}
    return read_files(
        **keywords(read_files, arguments, key=collection.settings.key, on=collection.settings.on, **given)
    )
