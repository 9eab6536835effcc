"""``cderetrieval train``: train a model from a recipe, and score it on development folders."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..files import as_path
from ..terminal import say
from .parsing import command


def add(commands: Any) -> None:
    """Add the command and its options."""
    from ..training.command import add_arguments

    what = "Train a contextual, dense or sparse model from a recipe."
    parser = command(commands, "train", run_train, what, reports="training")
    add_arguments(parser)
    folders = "development folders in BEIR form, never test sets"
    parser.add_argument("--evaluate", nargs="+", default=[], metavar="FOLDER[:SPLIT]", help=folders)
    contexts = "contexts in which contextual models are evaluated (default: own null)"
    choices = ["own", "random", "null"]
    parser.add_argument("--contexts", nargs="+", default=["own", "null"], choices=choices, help=contexts)


def run_train(arguments: argparse.Namespace) -> None:
    """Train a model, and score it on development folders every `evaluate_steps`."""
    from ..training.command import run

    say(run(arguments, _development(arguments.evaluate, arguments.contexts) if arguments.evaluate else None))


def _development(folders: Sequence[str], contexts: Sequence[str]) -> Any:
    """Make what training evaluates: nDCG@10 of each folder, of contextual models in each of the contexts."""
    from ..corpora.beir_folder import read_beir
    from ..evaluation.runner import evaluate_retrieval
    from ..types import is_contextual

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
