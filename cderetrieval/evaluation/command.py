"""The evaluation command: models x contexts x tasks, tables, comparisons, and answers to one's own questions.

python run_eval.py                                             the embedded corpus, plain against contextual
python run_eval.py --data scifact/ nfcorpus/ --seeds 3 --out results/
python run_eval.py --model cde-minilm --tasks SciFact,STSBenchmark --out results/
python run_eval.py --out results/ --compare all-MiniLM-L6-v2 cde-minilm/own
python run_eval.py --ask "how do I merge two tables?" --ask-in pandas
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from ..context.spec import ContextSpec
from ..corpora import pydocs
from ..corpora.dataset import Dataset
from ..errors import InputError
from ..files import as_path, atomic_write
from ..models.document_context import document_context_of
from ..passages import passages_of
from ..terminal import keywords, printable
from .api import entrants, evaluate
from .candidates import PAPER_DEPTH
from .results import Results
from .search import index_corpus
from .tasks import GroupedDataset, Subject, benchmark_tasks, folder_subjects, tasks_named
from .variants import variants_for

BASELINE = "all-MiniLM-L6-v2"
DEMO_PACKAGES = ("numpy", "pandas", "python")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the evaluation command."""
    parser.add_argument(
        "--model",
        nargs="+",
        default=[BASELINE, "cde-minilm"],
        metavar="M",
        help="names or directories of models: cde-minilm, all-MiniLM-L6-v2, bm25, a SPLADE directory; for a hybrid "
        "hybrid:A+B (reciprocal ranks), the directory of a saved one (with its tuned weights), or a JSON file "
        '{"parts": ["A", "B"], "fusion": {"method": "weighted", "weights": [0.6, 0.4]}}; NAME=M shows M as NAME',
    )
    what = parser.add_argument_group("datasets (default: docstrings of installed packages)")
    what.add_argument("--tasks", default="", metavar="NAME,NAME", help="mteb tasks, from the hub")
    what.add_argument("--benchmark", metavar="NAME", help='an mteb benchmark: "MTEB(eng, v1)", BEIR, ...')
    what.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="BEIR folders, or folders with spans.jsonl, each FOLDER or NAME=FOLDER; needs no network",
    )
    what.add_argument("--pydocs", nargs="*", metavar="PACKAGE", help="docstrings of installed packages")
    what.add_argument(
        "--max-documents", type=int, default=600, metavar="N", help="documents of each package (default: 600)"
    )
    what.add_argument("--split", help="split of the judgements (default: the task's own, or test)")
    context = parser.add_argument_group("the context of contextual models")
    context.add_argument(
        "--context", nargs="+", default=["own", "random", "null"], metavar="C", help="own, random, null, or a file"
    )
    context.add_argument("--context-size", type=int, metavar="J", help="number of context documents")
    context.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with N samples of the context")
    long = parser.add_argument_group("long documents")
    long.add_argument(
        "--passages",
        nargs="+",
        type=_passages,
        default=[None],
        metavar="P",
        help="none, auto, or a number of word pieces",
    )
    long.add_argument(
        "--document-context",
        nargs="+",
        type=_document,
        default=["auto"],
        metavar="D",
        help="what a passage takes in of its document: auto, none, or NAME=VALUE,... (lead=0.4,prefix=32)",
    )
    long.add_argument("--no-title", action="store_true", help="search documents without their titles")
    results = parser.add_argument_group("results")
    results.add_argument("--out", type=as_path, metavar="DIR", help="folder for results; finished work is not repeated")
    results.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="compare B with A, each MODEL or MODEL/CONTEXT; with --out, also a plot",
    )
    results.add_argument("--metric", default="ndcg@10", help="metric of the comparison (default: ndcg@10)")
    results.add_argument(
        "--ask", nargs="+", default=[], metavar="QUESTION", help="questions to answer after the evaluation"
    )
    results.add_argument("--ask-in", metavar="DATASET", help="dataset that answers the questions (default: the last)")
    parser.add_argument(
        "--truncated",
        nargs="?",
        const=BASELINE,
        metavar="MODEL",
        help=f"rerank the best documents of this first-stage model (default: {BASELINE}) instead of searching all",
    )
    parser.add_argument(
        "--depth", type=int, default=PAPER_DEPTH, metavar="K", help="number of documents to rerank (default: 1024)"
    )
    parser.add_argument(
        "--rerank", metavar="MODEL", help="a cross-encoder that reorders the best hits: its name or directory"
    )
    parser.add_argument(
        "--rerank-depth", type=int, default=50, metavar="N", help="hits of each query that it reads (default: 50)"
    )
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    runtime = "what computes on the processor (default: onnx where it is installed and knows the model)"
    parser.add_argument("--runtime", default="auto", choices=["auto", "onnx", "torch"], help=runtime)
    parser.add_argument("--precision", default="float32", choices=["float32", "int8"], help="numbers of the weights")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the best available)")


def _passages(word: str) -> str | int | None:
    """``--passages``; no field, since evaluation reads titles and texts alone."""
    if word not in ("none", "auto") and not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not none, auto or a number of word pieces")
    return passages_of(word)


def _document(word: str) -> str | dict[str, Any]:
    """``--document-context``; the values are numbers."""
    found = document_context_of(word)
    if isinstance(found, dict) and any(isinstance(value, str) for value in found.values()):
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME=VALUE,NAME=VALUE")
    return found


def run(arguments: argparse.Namespace) -> str:
    """Evaluate what the arguments say; the tables, comparisons and answers, for a terminal."""
    for name in ("seeds", "depth", "max_documents"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(arguments, name)} must be at least 1.")
    evaluates = arguments.tasks or arguments.benchmark or arguments.data or arguments.pydocs is not None
    if arguments.compare and arguments.out and not evaluates:
        return _compare(Results.load(arguments.out), arguments)
    started = time.perf_counter()
    subjects = read_subjects(arguments)
    asked = _asked_dataset(arguments, subjects) if arguments.ask else None
    if arguments.document_context != ["auto"] and arguments.passages == [None]:
        raise InputError("--document-context says what passages take in: pass --passages auto too.")
    for given in arguments.context:
        ContextSpec.parse(given)  # a list of other strings would be the texts of one context
    said = {name: str(value) for name, value in vars(arguments).items() if name != "command"}
    settings = {"first_stage": arguments.truncated, "titles": not arguments.no_title, "about": {"arguments": said}}
    results = evaluate(**keywords(evaluate, arguments, tasks=subjects, **settings))
    parts = [results.summary()]
    if arguments.compare:
        whole = Results.load(arguments.out) if arguments.out else results
        parts.append("\n" + _compare(whole, arguments))
    if asked is not None:
        parts += _answers(arguments, asked)
    parts.append(f"\n{len(results)} evaluations in {time.perf_counter() - started:.0f} seconds.")
    return "\n".join(parts)


def read_subjects(arguments: argparse.Namespace) -> list[Subject]:
    """What to evaluate on; the embedded corpus, if the arguments name nothing."""
    found: list[Subject] = folder_subjects(arguments.data, arguments.split)
    found += tasks_named((name.strip() for name in arguments.tasks.split(",") if name.strip()), arguments.split)
    if arguments.benchmark:
        found += benchmark_tasks(arguments.benchmark, arguments.split)
    if arguments.pydocs is not None or not found:
        packages = arguments.pydocs or DEMO_PACKAGES
        found += [GroupedDataset(pydocs.load(package, arguments.max_documents)) for package in packages]
    return found


def _asked_dataset(arguments: argparse.Namespace, subjects: Sequence[Subject]) -> Dataset:
    """The dataset that answers the questions."""
    datasets = {one.dataset.name: one.dataset for one in subjects if isinstance(one, GroupedDataset)}
    if not datasets:
        raise InputError("--ask needs a folder or --pydocs to search in; mteb's tasks are not kept.")
    name = arguments.ask_in or list(datasets)[-1]
    dataset = datasets.get(name) or datasets.get(f"pydocs-{name}")
    if dataset is None:
        raise InputError(f"--ask-in {name!r} is not evaluated here; choose one of {', '.join(datasets)}.")
    return dataset


def _answers(arguments: argparse.Namespace, dataset: Dataset) -> list[str]:
    """The best three documents of each question, by the last model in its first context."""
    compute = arguments.device, arguments.dtype, arguments.runtime, arguments.precision
    model = list(entrants(arguments.model, *compute))[-1].model
    cuts = arguments.passages, arguments.document_context
    variant = variants_for(model, arguments.context, arguments.context_size, [0], *cuts)[0]
    with index_corpus(model, variant, dataset.corpus, arguments.dtype) as retriever:
        found = retriever(arguments.ask, k=3, documents=True, passages=True)
    lines = []
    for question, hits in zip(arguments.ask, found, strict=True):
        lines.append("\n" + printable(f"{dataset.name}: {question}"))
        for hit in hits:
            text = " ".join(hit["passage"]["text"].split())
            shown = printable(text[:100]) + ("..." if len(text) > 100 else "")
            lines.append(f"  {hit['similarity']:.3f}  {printable(hit['id'])}\n         {shown}")
    return lines


def _compare(results: Results, arguments: argparse.Namespace) -> str:
    """Compare two systems; with a results folder, write the numbers and the plot beside them."""
    a, b = arguments.compare
    comparison = results.compare(a, b, arguments.metric)
    text = comparison.summary()
    if arguments.out:
        path = arguments.out / f"compare-{a.replace('/', '-')}-vs-{b.replace('/', '-')}.png"
        with atomic_write(path.with_suffix(".csv")) as temporary:
            comparison.to_frame().to_csv(temporary, index=False)
        comparison.plot(path)
        text += f"\nplot and numbers: {printable(path)} and .csv"
    return text
