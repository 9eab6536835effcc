"""``cderetrieval eval``: evaluate models on folders, mteb tasks and benchmarks."""

from __future__ import annotations

from typing import Any

from ..terminal import say
from .parsing import command


def add(commands: Any) -> None:
    """Add the command and its options."""
    from ..evaluation.command import add_arguments, run

    what = "Evaluate models on BEIR folders, mteb tasks and benchmarks."
    add_arguments(command(commands, "eval", lambda arguments: say(run(arguments)), what, reports="evaluation"))
