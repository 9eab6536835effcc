"""The commands that embed a large corpus, and that index what was embedded.

cderetrieval embed corpus/ --model cde-minilm --out vectors/
cderetrieval embed corpus/ --model cde-minilm --out vectors/ --workers 8
cderetrieval embed corpus/ --model cde-minilm --out vectors/ --address auto        a Ray cluster that is running
cderetrieval index --vectors vectors/ --out index/
"""

from __future__ import annotations

import argparse
import logging
import time

from ..errors import InputError
from ..files import as_path
from ..models.document_context import document_context_of
from ..passages import passages_of
from ..terminal import keywords, printable, say
from .embed import ENGINES, FEW_DOCUMENTS, embed_corpus
from .index import index_vectors
from .vector_folder import VectorFolder

logger = logging.getLogger(__name__)


def add_embed_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cderetrieval embed``."""
    parser.add_argument("corpus", type=as_path, nargs="+", metavar="CORPUS", help="JSONL or Parquet files, or folders")
    out = "folder of the vectors; unfinished work there is continued"
    parser.add_argument("--out", type=as_path, required=True, metavar="DIR", help=out)
    parser.add_argument("--model", default="cde-minilm", help="name or directory (default: cde-minilm)")
    parser.add_argument("--block", type=int, default=10_000, metavar="N", help="documents in a block (default: 10000)")
    engine = f"auto: Ray Data from {FEW_DOCUMENTS:,} documents on"
    parser.add_argument("--engine", default="auto", choices=ENGINES, help=engine)
    add_corpus_arguments(parser)
    add_passages_arguments(parser, "none")
    workers = "number of Ray workers (default: one for each GPU, or for each CPU)"
    parser.add_argument("--workers", type=int, metavar="N", help=workers)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPUs for each worker (default: 1)")
    address = "address of a Ray cluster (default: workers on this machine)"
    parser.add_argument("--address", metavar="HOST:PORT", help=address)


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """How a corpus is read and embedded, for ``cderetrieval embed`` and ``cderetrieval index``."""
    parser.add_argument("--key", default="id", help="field that holds the id (default: id)")
    parser.add_argument("--on", nargs="+", metavar="FIELD", help="fields that hold the text (default: title and text)")
    parser.add_argument("--context", default="own", help="own, random, null, centre, or a file (default: own)")
    parser.add_argument("--context-size", type=int, metavar="J", help="number of context documents")
    parser.add_argument("--seed", type=int, default=0, help="seed of the context's sample (default: 0)")
    parser.add_argument("--skip-empty", action="store_true", help="skip documents without text")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the best available)")


def add_passages_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """How documents become passages."""
    passages = "auto (split what is longer than the model reads), none, most word pieces, or a field that holds them"
    parser.add_argument(
        "--passages", default=default, metavar="auto|none|N|FIELD", help=f"{passages} (default: {default})"
    )
    document = "what a passage takes in of its document: auto, none, or NAME=VALUE,... (prefix=32, say)"
    parser.add_argument("--document-context", default="auto", metavar="auto|none|NAME=VALUE", help=document)


def add_vectors_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``cderetrieval index`` takes in addition, to build from vectors."""
    group = parser.add_argument_group("from ready vectors (PATH is then the new place of a corpus that has moved)")
    vectors = "folders that `cderetrieval embed` wrote"
    group.add_argument("--vectors", type=as_path, nargs="+", metavar="DIR", help=vectors)
    for ignored in ("--workers", "--threads", "--address"):
        group.add_argument(ignored, help=argparse.SUPPRESS)


def run_embed(arguments: argparse.Namespace) -> None:
    """Embed, and say how long it took."""
    logging.getLogger(__package__).setLevel(logging.INFO)
    started = time.perf_counter()
    try:
        cut = {"passages": passages_of(arguments.passages)}
        taken = {"document_context": document_context_of(arguments.document_context)}
        folder = embed_corpus(**keywords(embed_corpus, arguments, **cut, **taken))
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("the blocks that are done stay; the same command goes on") from error
    took = f"this run took {time.perf_counter() - started:,.0f} s"
    say(printable(f"{len(folder):,} documents in {folder.path}, {folder.plan.layout}; {took}"))


def run_index(arguments: argparse.Namespace) -> None:
    """Build an index from vectors."""
    logging.getLogger(__package__).setLevel(logging.INFO)
    for name in ("workers", "threads", "address"):
        if getattr(arguments, name) is not None:
            logger.warning("--%s is deprecated and ignored: an index is built in this process.", name)
    if arguments.documents and len(arguments.vectors) > 1:
        raise InputError("PATH says where one corpus has moved, and there are several folders of vectors.")
    corpus = arguments.documents or None
    folders = [VectorFolder(path, corpus) for path in arguments.vectors]
    with index_vectors(**keywords(index_vectors, arguments, vectors=folders)) as retriever:
        place = arguments.index if arguments.out is None else arguments.out
        say(printable(f"{len(retriever):,} documents indexed from vectors, written to {place}"))
