"""The evaluation command: models x contexts x datasets, one table, and answers to one's own questions.

python run_eval.py                                             the embedded corpus, plain against contextual
python run_eval.py --data scifact/ nfcorpus/ --seeds 3         BEIR folders
python run_eval.py --ask "how do I merge two tables?" --ask-in pandas
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from ..corpora import pydocs
from ..corpora.beir_folder import read_beir
from ..corpora.dataset import Dataset
from ..embedding import is_contextual
from ..errors import InputError
from ..files import atomic_write
from ..models.hub import load
from .report import terminal_table, wide_table
from .retrieval import Evaluation, evaluate_retrieval

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

PLAIN = "all-MiniLM-L6-v2"
DEMO_PACKAGES = ("numpy", "pandas", "python")
METRICS = ("ndcg@10", "recall@100")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the evaluation command."""
    parser.add_argument("--model", nargs="+", default=[PLAIN, "cde-minilm"], metavar="M", help="names or directories")
    parser.add_argument("--data", nargs="+", default=[], metavar="FOLDER", help="BEIR folders")
    parser.add_argument("--split", default="test", help="which qrels of a folder")
    parser.add_argument("--pydocs", nargs="*", metavar="PACKAGE", help="docstrings of installed packages")
    parser.add_argument("--max-documents", type=int, default=600, metavar="N", help="of each package (default: 600)")
    parser.add_argument(
        "--context",
        nargs="+",
        default=["own", "random", "null"],
        metavar="C",
        help="of contextual models: own, random, null, or a file",
    )
    parser.add_argument("--context-size", type=int, metavar="J", help="number of context documents")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with N samples of the context")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--device")
    parser.add_argument("--ask", nargs="+", default=[], metavar="QUESTION", help="then answer these questions")
    parser.add_argument("--ask-in", metavar="DATASET", help="over this dataset (default: the last)")
    parser.add_argument("--out", type=Path, metavar="CSV", help="write all metrics, one a line")


def run(arguments: argparse.Namespace) -> str:
    """Evaluate what the arguments say.

    Returns
    -------
    str
        The tables and answers, for a terminal.
    """
    import pandas as pd

    started = time.perf_counter()
    datasets = read_datasets(arguments.data, arguments.split, arguments.pydocs, arguments.max_documents)
    asked = _asked(datasets, arguments.ask_in)
    evaluations = []
    answering = None
    for evaluation in evaluate_all(arguments, datasets):
        if evaluation.dataset == asked:
            answering = answering or evaluation.retriever if evaluation.context == "none" else evaluation.retriever
        evaluations.append(evaluation.to_frame())
        logger.info("%s, %s context, %s: done", evaluation.model, evaluation.context, evaluation.dataset)
    frame = pd.concat(evaluations, ignore_index=True)
    if arguments.out:
        with atomic_write(arguments.out) as temporary:
            frame.to_csv(temporary, index=False)
    parts = [summary(frame)]
    if arguments.ask and answering is not None:
        hits = answering(arguments.ask, k=3, documents=True)
        parts += [
            f"\n{asked}: {question}\n{_answer(found)}" for question, found in zip(arguments.ask, hits, strict=True)
        ]
    parts.append(f"\n{len(evaluations)} evaluations in {time.perf_counter() - started:.0f} seconds.")
    return "\n".join(parts)


def evaluate_all(arguments: argparse.Namespace, datasets: Sequence[Dataset]) -> Iterator[Evaluation]:
    """Every model in every context on every dataset; a model that takes no context runs once on each."""
    for name in arguments.model:
        model = load(name, device=arguments.device, dtype=arguments.dtype)
        contextual = is_contextual(model)
        contexts = arguments.context if contextual else ["none"]
        # The null context has no sample that a seed could change.
        for dataset, context in product(datasets, contexts):
            seeds = arguments.seeds if contextual and context != "null" else 1
            for seed in range(seeds):
                yield evaluate_retrieval(
                    model,
                    dataset,
                    name=Path(name).name,
                    context=None if context == "null" else context,
                    context_size=arguments.context_size,
                    dtype=arguments.dtype,
                    seed=seed,
                )


def read_datasets(
    folders: Sequence[str], split: str, packages: Sequence[str] | None, max_documents: int
) -> list[Dataset]:
    """BEIR folders and docstring corpora; with neither, the embedded corpus."""
    datasets = [read_beir(folder, split) for folder in folders]
    if packages is not None or not datasets:
        datasets += [pydocs.load(package, max_documents) for package in packages or DEMO_PACKAGES]
    return datasets


def summary(frame: pd.DataFrame) -> str:
    """One row for each model and context, one column for each dataset and metric, means over seeds, times 100."""
    blocks = [f"{metric} x 100\n{terminal_table(wide_table(frame, metric))}" for metric in METRICS]
    return "\n\n".join(blocks)


def _asked(datasets: Sequence[Dataset], name: str | None) -> str:
    names = [dataset.name for dataset in datasets]
    if name is None:
        return names[-1]
    found = [known for known in names if known in (name, f"pydocs-{name}")]
    if not found:
        raise InputError(f"--ask-in {name!r} is not evaluated here; choose one of {', '.join(names)}.")
    return found[0]


def _answer(hits: Sequence[dict[str, object]]) -> str:
    lines = []
    for hit in hits:
        document = hit["document"]
        assert isinstance(document, dict)
        text = " ".join(str(document.get("text", "")).split())
        lines.append(f"  {hit['similarity']:.3f}  {hit['id']}\n         {text[:100]}{'...' if len(text) > 100 else ''}")
    return "\n".join(lines)
