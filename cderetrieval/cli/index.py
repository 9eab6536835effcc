"""``cderetrieval index``: build an index from documents, or from vectors that are ready."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import InputError
from ..files import as_path
from ..milvus.location import is_location
from ..terminal import keywords, printable, say
from .parsing import add_files_arguments, add_runtime, command


def add(commands: Any) -> None:
    """Add the command and its options."""
    what = "Index files and folders: Markdown, text, HTML, PDF, DOCX, notebooks, code, JSON, CSV, Parquet and others."
    parser = command(commands, "index", run_index, what)
    documents = "files, folders or globs; - is standard input"
    parser.add_argument("documents", type=as_path, nargs="*", metavar="PATH", help=documents)
    parser.add_argument("--out", type=as_path, metavar="DIR", help="directory of the index; not needed for a server")
    model = "name or directory of a model, or hybrid:A+B (default: cde-minilm, or the model of the vectors)"
    parser.add_argument("--model", help=model)
    index = "auto, a FAISS factory string, or milvus://HOST:PORT/COLLECTION"
    parser.add_argument("--index", default="auto", metavar="FACTORY", help=index)
    from ..distributed.command import add_corpus_arguments, add_passages_arguments, add_vectors_arguments

    add_files_arguments(parser)
    add_corpus_arguments(parser)
    add_passages_arguments(parser, "auto")
    add_vectors_arguments(parser)
    add_runtime(parser)
    precision = "int8: faster, with other vectors; kept with the index"
    parser.add_argument("--precision", default="float32", choices=["float32", "int8"], help=precision)


def run_index(arguments: argparse.Namespace) -> None:
    """Build an index from a file of documents, or from vectors that are ready."""
    place = arguments.index if is_location(arguments.index) else arguments.out
    if place is None:
        raise InputError(
            "--out is missing: where to write the index (one on a server, --index milvus://..., needs none)."
        )
    if arguments.vectors:
        from ..distributed.command import run_index as run_from_vectors

        run_from_vectors(arguments)
        return
    if not arguments.documents:
        raise InputError("nothing to index: name files or folders, or folders of vectors with --vectors.")
    from ..corpora.files import read_files
    from ..models.document_context import document_context_of
    from ..models.locate import DEFAULT_MODEL
    from ..passages import passages_of
    from ..retrieval.retriever import Retriever

    given: dict[str, Any] = {
        "model": arguments.model or DEFAULT_MODEL,
        "path": arguments.out,
        "passages": passages_of(arguments.passages),
        "document_context": document_context_of(arguments.document_context),
    }
    files = read_files(**keywords(read_files, arguments, paths=arguments.documents, passages=given["passages"]))
    retriever = Retriever(**keywords(Retriever, arguments, **given))
    with retriever:
        retriever.add(files)
        context = f" in {retriever.context}" if retriever.context is not None else ""
        say(printable(f"{len(retriever)} documents indexed{context}, written to {place}"))
        say(printable(files))
